"""Reads a data set picture by picture, and reports its content, its parts and its problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn.datasets import FORMS, Dataset, Form, Sample, Truth, dataset_parts
from edgecnn.datasets.base import evenly_spaced
from edgecnn.datasets.splits import Part, known, split_by_name
from edgecnn.datasets.summary import Duplicates, Finding, Look, PartSummary
from edgecnn.errors import DataError, SplitError
from edgecnn.results import UInt8Array
from edgecnn.tasks import TASKS

_FIRST = ("detect", "segment", "classify")  # order of preference where data has labels for several tasks
_SHOWN = 16  # pictures in the grid, from all parts together

Progress = Callable[[int, int, str], None]
Show = Callable[[Dataset, Sample, UInt8Array, Truth], None]


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Content and problems of a data set.

    Attributes:
        data: the path of the data.
        task: the task for which its labels were read.
        other_tasks: other tasks that it has labels for.
        parts: one entry for each part.
        findings: problems between the parts.
        grid: path of the picture grid that was written, or None.
    """

    data: str
    task: str
    other_tasks: tuple[str, ...]
    parts: tuple[PartSummary, ...]
    findings: tuple[Finding, ...]
    grid: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether metrics on this data would be wrong."""
        return any(part.wrong for part in self.parts) or any(finding.wrong for finding in self.findings)


def check(
    path: Path,
    *,
    task: str | None,
    split: str | None,
    labels: Sequence[str],
    limit: int | None,
    show: Show | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Read the whole data set; arguments and errors are those of `check_data`.

    Args:
        show: called with some pictures of each part, evenly spaced.
    """
    found = _parts_by_task(path, task, split, labels)
    chosen = task if task is not None else _first(found)
    duplicates = Duplicates()
    opened = [one for one in found[chosen] if isinstance(one, Dataset)]
    shown = 0 if show is None else max(_SHOWN // max(len(opened), 1), 1)
    summaries = []
    for one in found[chosen]:
        if isinstance(one, PartSummary):
            summaries.append(one)
            continue
        dataset = one if limit is None else one.limited(limit)
        look, to_show = Look(dataset.classes), set(evenly_spaced(len(dataset), shown)) if shown else set()
        for index, sample, image, truth in _read(dataset, look, progress):
            if dataset.split != "trainval":  # which is train and val together
                duplicates.add(dataset.split or "it", sample.path.name, image)
            if show is not None and index in to_show:
                show(dataset, sample, image, truth)
        summaries.append(look.summary(dataset))
    return DataReport(
        data=str(path),
        task=chosen,
        other_tasks=tuple(name for name in found if name != chosen),
        parts=tuple(summaries),
        findings=duplicates.findings,
    )


def _parts_by_task(
    path: Path, task: str | None, split: str | None, labels: Sequence[str]
) -> dict[str, list[Dataset | PartSummary]]:
    """Task → the parts with labels for it."""
    kind = None if task is None else TASKS.get(task).truth
    found: dict[str, list[Dataset | PartSummary]] = {}
    for name in TASKS.names() if task is None else (task, *(one for one in TASKS.names() if one != task)):
        opened = _opened(path, TASKS.get(name).truth, split, labels, asked_for=task == name)
        if opened:
            found[name] = opened
    if not found or (task is not None and task not in found):
        wanted = "; or ".join(f"{form.holds} ({form.name})" for form in FORMS if kind is None or kind in form.truths)
        raise DataError(f"{path} has no labels{f' for the task {task}' if task else ''}. Expected {wanted}")
    return found


def _first(found: Mapping[str, Sequence[Dataset | PartSummary]]) -> str:
    """The task to read, where data has labels for several: one with readable parts, in a fixed order."""

    def rank(name: str) -> tuple[bool, int]:
        opened = any(isinstance(one, Dataset) for one in found[name])
        return not opened, _FIRST.index(name) if name in _FIRST else len(_FIRST)

    return min(found, key=rank)


def _read(dataset: Dataset, look: Look, progress: Progress | None) -> Iterator[tuple[int, Sample, UInt8Array, Truth]]:
    """Each picture with its labels; unreadable ones are recorded."""
    what = f"reading {dataset.split or 'pictures'}"
    for index, sample in enumerate(dataset):
        if progress is not None:
            progress(index, len(dataset), what)
        try:
            image = sample.image()
        except DataError:
            look.note("pictures that cannot be read", sample.path.name, wrong=True)
            continue
        try:
            truth = sample.truth(image)
        except DataError:
            look.note("labels that don't fit their picture, or cannot be read", sample.path.name, wrong=True)
            continue
        look.add(sample.path.name, image, truth)
        yield index, sample, image, truth
    if progress is not None:
        progress(len(dataset), len(dataset), what)


def _opened(
    path: Path, kind: str, split: str | None, labels: Sequence[str], *, asked_for: bool
) -> list[Dataset | PartSummary]:
    """The parts with this kind of labels, of the first form that has some; for a broken part, the error."""
    names: list[Part] = []
    for form in (form for form in FORMS if kind in form.truths):
        try:
            parts = dataset_parts(path, form, kind)
        except DataError as wrong:
            return [_unopened(None, form, path, wrong)]
        names += parts
        wanted = [p for p in parts if split is None or split in (p.split, *p.names) or split_by_name(split) == p.split]
        opened: list[Dataset | PartSummary] = []
        for part in wanted:
            try:
                dataset = part.open(labels)
            except DataError as wrong:
                opened.append(_unopened(part, form, path, wrong))
                continue
            if dataset is not None:
                opened.append(replace(dataset, split=part.split, defined_by=part.defined_by))
        if opened:
            return opened
    if asked_for and names and split is not None:
        raise SplitError(f"{path} has no split {split!r}; it has {known(names)}")
    return []


def _unopened(part: Part | None, form: Form, path: Path, wrong: DataError) -> PartSummary:
    split, defined_by, place = (None, "", path) if part is None else (part.split, part.defined_by, part.place)
    return PartSummary(split=split, defined_by=defined_by, path=str(place), form=form.name, error=str(wrong))
