"""Labelled pictures in the usual forms, recognised by what a folder or file holds; numpy and OpenCV only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.datasets import coco, folders, masks, voc, yolo
from edgecnn.datasets.base import (
    UNLABELLED,
    BoxTruth,
    ClassMap,
    Dataset,
    LabelTruth,
    MapTruth,
    Sample,
    Truth,
    evenly_spaced,
)
from edgecnn.datasets.images import VIDEO_SUFFIXES, is_image, list_images, read_image, read_video_frames
from edgecnn.errors import DataError, SpecError, SplitError
from edgecnn.results import UInt8Array

__all__ = [
    "FORMS",
    "UNLABELLED",
    "BoxTruth",
    "ClassMap",
    "Dataset",
    "LabelTruth",
    "MapTruth",
    "Sample",
    "Truth",
    "iterate_frames",
    "open_dataset",
    "read_image",
]


@dataclass(frozen=True)
class Form:
    """One way in which labelled pictures lie on a disk.

    Attributes:
        name: what people call it.
        tasks: what its labels are for.
        holds: what must be there, for messages.
        open: returns the data set, or None where `path` isn't of this form or has no labels for the task.
    """

    name: str
    tasks: frozenset[str]
    holds: str
    open: Callable[..., Dataset | None]


# In the order in which they are tried: a folder may hold labels of several forms.
FORMS = (
    Form(
        coco.NAME,
        frozenset({"detect", "instances"}),
        "a .json file with images, annotations and categories",
        coco.open_coco,
    ),
    Form(
        yolo.NAME,
        frozenset({"detect", "instances"}),
        "images/ and labels/*.txt, with classes.txt, *.names or data.yaml",
        yolo.open_yolo,
    ),
    Form(
        voc.NAME,
        frozenset({"detect"}),
        "JPEGImages/ and Annotations/*.xml, with lists in ImageSets/Main/ if wanted",
        voc.open_voc,
    ),
    Form(
        masks.NAME,
        frozenset({"segment"}),
        "images/ and masks*/ with PNGs of class ids, with classes.txt",
        masks.open_masks,
    ),
    Form(
        folders.NAME,
        frozenset({"classify"}),
        "one folder a class, with the name of the class and images in it",
        folders.open_folders,
    ),
)

_DEFAULT_SPLITS = ("test", "val", "valid", "validation")
_LABEL_FOLDERS = ("masks*", "labels", "Annotations", "annotations", "SegmentationClass", "SegmentationObject")


def open_dataset(path: str | Path, *, task: str, labels: Sequence[str], split: str | None = None) -> Dataset:
    """Labelled pictures for a task.

    Args:
        path: a folder or file in one of FORMS, recognised by what it holds. Where it holds several kinds of
            label, the task picks its own, and images without that kind are left out and counted.
        task: "classify", "detect", "segment" or "instances".
        labels: the network's class names, by class id; the data set's are mapped to them by name. Empty: the data
            set's own, as for training.
        split: a folder, list or file name in it ("test", "train"); without it "test", else "val", else all.

    Raises:
        DataError: nothing there, no labels for this task, broken labels, or no class in common.
        SplitError: no such split.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: DATA is a folder or file of labelled images")
    places = [(path, split)]
    if path.is_dir() and split is not None and (path / split).is_dir():
        places.insert(0, (path / split, None))
    elif path.is_dir() and split is None:
        places += [(path / name, None) for name in _DEFAULT_SPLITS if (path / name).is_dir()]
    forms = [form for form in FORMS if task in form.tasks]
    if not forms:
        raise ValueError(f"no task is called {task!r}")
    for place, split_below in places:
        for form in forms:
            dataset = form.open(place, task=task, labels=labels, split=split_below)
            if dataset is not None:
                return dataset
    wanted = "; or ".join(f"{form.holds} ({form.name})" for form in forms)
    below = f" in the split {split!r}" if split else ""
    error = SplitError if split else DataError
    raise error(f"{path} holds no labels for the task {task}{below}. It wants {wanted}. Found: {_found(path)}")


def iterate_frames(path: str | Path, limit: int, *, seed: int | None = None) -> list[UInt8Array]:
    """At most `limit` pictures, uint8 [height, width, 3] BGR, labelled or not: to calibrate, to compare.

    Args:
        path: an image, a video (evenly spaced frames are taken), or a folder of images, at any depth (evenly
            spaced in the order of their names, so that folders that sort by class or time give some of each).
        limit: at most so many.
        seed: draw a folder's images at random instead; the same seed draws the same, another one others.

    Raises:
        DataError: nothing there, or a file that cannot be read.
        SpecError: a limit below 1.
    """
    path = Path(path)
    if limit < 1:
        raise SpecError(f"limit must be at least 1, got {limit}")
    if not path.exists():
        raise DataError(f"{path} does not exist: expected an image, a video, or a folder of images")
    if path.is_dir():
        files = _images_below(path)
        if not files:
            raise DataError(f"{path} holds no image. Found: {_found(path)}")
        chosen: Sequence[int] = evenly_spaced(len(files), limit)
        if seed is not None and len(files) > limit:
            chosen = sorted(np.random.default_rng(seed).choice(len(files), limit, replace=False).tolist())
        return [read_image(files[index]) for index in chosen]
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return read_video_frames(path, limit)
    if path.suffix.lower() == ".json":  # a COCO JSON: its images lie beside it
        return iterate_frames(path.parent, limit, seed=seed)
    return [read_image(path)]


def _images_below(folder: Path) -> list[Path]:
    """The folder's images, else those in folders below, by name; masks are no pictures."""
    direct = list_images(folder)
    if direct:
        return direct
    masked = {place for pattern in _LABEL_FOLDERS for place in folder.rglob(pattern) if place.is_dir()}
    files = (p for p in folder.rglob("*") if is_image(p) and p.is_file() and masked.isdisjoint(p.parents))
    return sorted(files)


def _found(path: Path) -> str:
    """What lies at `path`, for a message."""
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
