"""Opens labelled pictures for a task, in any form."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgecnn.datasets.base import Dataset
from edgecnn.datasets.forms import FORMS, dataset_parts
from edgecnn.datasets.splits import Part, Use, choose, known
from edgecnn.errors import DataError, SplitError, near_path
from edgecnn.tasks import TASKS

logger = logging.getLogger("edgecnn.datasets")  # logs which pictures are used; the command line prints it


def open_dataset(
    path: str | Path, *, task: str, labels: Sequence[str], split: str | None = None, use: Use = "measure"
) -> Dataset:
    """Open labelled pictures for a task; which ones is logged, in one line.

    Args:
        path: a folder or file in one of FORMS, recognised by its content. Where it has several kinds of
            labels, the task's kind is used, and images without it are ignored and counted.
        task: its name ("classify", "detect", …), which decides the kind of labels.
        labels: the network's class names, by class id; the data set's are matched by name. Empty: the data
            set's own, as for training.
        split: a part of it: as named in its own file, or a folder, list or file ("test", "train").
        use: the purpose, which decides the default split: "test", otherwise "val", otherwise all to measure on;
            "train", otherwise all to learn from. See `edgecnn.datasets.splits`.

    Raises:
        DataError: no data, no labels for this task, broken labels, or no class in common.
        SplitError: no such split, or none for this use.
        UnknownNameError: no such task.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: expected a folder or file of labelled images{near_path(path)}")
    kind = TASKS.get(task).truth
    forms = [form for form in FORMS if kind in form.truths]
    if not forms:
        held = ", ".join(sorted({each for form in FORMS for each in form.truths}))
        raise DataError(f"the task {task} needs the {kind} of every picture; data sets here can have: {held}")
    others: list[Part] = []
    for form in forms:
        parts = dataset_parts(path, form, kind)
        chosen = choose(parts, split, use)
        if not chosen and split is not None and path.is_dir() and (path / split).is_dir():
            defined_by = f"the folder {split}/"
            chosen = [
                replace(p, split=split, defined_by=defined_by) for p in form.parts(path / split, kind) if not p.split
            ]
        for part in chosen:
            dataset = part.open(labels)
            if dataset is not None:
                dataset = replace(dataset, split=part.split, defined_by=part.defined_by)
                logger.info("%s", dataset.described)
                for remark in dataset.remarks:
                    logger.warning("%s: %s", dataset.path.name, remark)
                return dataset
        others += parts
    wanted = "; or ".join(f"{form.holds} ({form.name})" for form in forms)
    if others and split is not None:
        raise SplitError(f"{path} has no split {split!r}; it has {known(others)}")
    if others and not any(part in choose(others, None, use) for part in others):
        what = "measure on" if use == "measure" else "learn from"
        raise SplitError(f"{path} has {known(others)}: choose the one to {what} with --split")
    below = f" in the split {split!r}" if split else ""
    error = SplitError if split else DataError
    raise error(f"{path} has no labels for the task {task}{below}. Expected {wanted}. Found: {kind_of_path(path)}")


def kind_of_path(path: Path) -> str:
    """The content of `path`, for a message."""
    if path.is_file():
        return f"a {path.suffix or 'suffixless'} file"
    kinds: Counter[str] = Counter()
    folders_there = []
    for entry in sorted(path.iterdir()):
        if entry.is_dir():
            folders_there.append(f"{entry.name}/")
        else:
            kinds[entry.suffix.lower() or "(no suffix)"] += 1
    files = [f"{count} {suffix} file{'s' if count > 1 else ''}" for suffix, count in kinds.most_common(5)]
    more = [f"{len(folders_there) - 8} more folders"] if len(folders_there) > 8 else []
    return ", ".join(folders_there[:8] + more + files) or "nothing"
