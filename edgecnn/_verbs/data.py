"""Check labelled pictures before the work: what there is, which split is which, and what looks wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from edgecnn import options
from edgecnn.datasets import Dataset, Sample, Truth
from edgecnn.datasets.data_report import DataReport, check
from edgecnn.errors import DataError, SpecError
from edgecnn.options import Option, kinds
from edgecnn.report.picture_grid import truth_tile, write_grid
from edgecnn.results import UInt8Array


def check_data(
    data: Annotated[
        str | Path,
        Option(help="Labelled pictures: a folder, a COCO JSON or a data.yaml.", positional=True, metavar="DATA"),
    ],
    *,
    task: Annotated[
        str | None,
        Option(
            help="Check the labels for this task: {tasks}.",
            default="the first with labels",
            group=options.LABELS,
        ),
    ] = None,
    split: Annotated[
        str | None, Option(help="The split of the data to check.", default="all", group=options.LABELS)
    ] = None,
    labels: str | Sequence[str] = (),
    grid: Annotated[
        str | Path | None,
        Option(
            help="Write pictures with their labels drawn on them: FILE.png.", metavar="FILE.png", group=options.OUTPUT
        ),
    ] = None,
    limit: Annotated[
        int | None, Option(help="At most this many pictures of each split, evenly spaced.", group=options.LABELS)
    ] = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> DataReport:
    """Read every picture and label of a data set, and report its contents and what looks wrong.

    Args:
        data: labelled pictures, as `edgecnn.datasets.open_dataset` takes them.
        task: name of a task; default: the first that there are labels for.
        split: only this split; default: all.
        labels: a network's class names, to see which classes of the data it knows; default: the data's own.
        grid: write a PNG of pictures of all splits with their labels drawn on them.
        limit: read at most this many pictures of each split, evenly spaced.
        progress: called with (pictures done, pictures in total, current step).

    Raises:
        DataError: no data, or no labels for the task.
        SplitError: no such split.
        SpecError, UnknownNameError: an invalid limit or task.
        StorageError: the grid cannot be written.
    """
    path = Path(data)
    if not path.exists():
        raise DataError(f"{path} does not exist: DATA is a folder or file of labelled images")
    if limit is not None and limit < 1:
        raise SpecError(f"limit must be at least 1, got {limit}")
    tiles: list[UInt8Array] = []

    def show(dataset: Dataset, sample: Sample, image: UInt8Array, truth: Truth) -> None:
        part = f"{dataset.split}: " if dataset.split else ""
        tiles.append(truth_tile(image, truth, dataset.classes.labels, title=f"{part}{sample.path.name}"))

    report = check(
        path,
        task=task,
        split=split,
        labels=kinds.one_or_more(labels),
        limit=limit,
        show=None if grid is None else show,
        progress=progress,
    )
    if grid is None or not tiles:
        return report
    write_grid(tiles, Path(grid))
    return replace(report, grid=str(grid))
