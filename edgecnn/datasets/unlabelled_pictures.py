"""Reads pictures without labels, for calibration and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgecnn.datasets.base import evenly_spaced
from edgecnn.datasets.data_yaml import description_of
from edgecnn.datasets.labelled_pictures import kind_of_path, logger
from edgecnn.datasets.splits import TEST, TRAIN, VAL, split_by_name
from edgecnn.datasets.video import VIDEO_SUFFIXES, read_video_frames
from edgecnn.errors import DataError, SpecError, near_path
from edgecnn.pictures import is_picture, list_pictures, read_picture
from edgecnn.results import UInt8Array

_LABEL_FOLDERS = ("masks*", "labels", "Annotations", "annotations", "SegmentationClass", "SegmentationObject")


def iterate_frames(path: str | Path, limit: int, *, seed: int | None = None) -> list[UInt8Array]:
    """At most `limit` pictures, uint8 [height, width, 3] BGR, with or without labels: for calibration and comparisons.

    Args:
        path: an image, a video (evenly spaced frames), a data.yaml (its `train`), or a folder of images,
            at any depth (evenly spaced in the order of their names, so that folders sorted by class or time give
            some of each); of a folder divided into train, val and test, those of train. Which ones is logged.
        limit: largest number of pictures.
        seed: draw a folder's images at random instead; the same seed gives the same images.

    Raises:
        DataError: no pictures, or a file that cannot be read.
        SpecError: a limit below 1.
    """
    path = Path(path)
    if limit < 1:
        raise SpecError(f"limit must be at least 1, got {limit}")
    if not path.exists():
        raise DataError(f"{path} does not exist: expected an image, a video, or a folder of images{near_path(path)}")
    if path.is_dir():
        place = _part_to_learn_from(path)
        files = _images_below(place)
        if not files:
            raise DataError(f"{path} has no images. Found: {kind_of_path(path)}")
        return _frames_of(files, limit, seed, place)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return read_video_frames(path, limit)
    if path.suffix.lower() == ".json":  # a COCO JSON: its images are near it
        return iterate_frames(path.parent, limit, seed=seed)
    if path.suffix.lower() in {".yaml", ".yml"}:
        return _frames_of(_pictures_to_learn_from(path), limit, seed, path)
    return [read_picture(path)]


def _part_to_learn_from(folder: Path) -> Path:
    """The folder train of a folder divided by such names; otherwise the folder itself."""
    for place in (folder, folder / "images"):
        if place.is_dir():
            names = {split_by_name(below.name): below for below in sorted(place.iterdir()) if below.is_dir()}
            if TRAIN in names and names.keys() & {VAL, TEST}:
                return names[TRAIN]
    return folder


def _frames_of(files: Sequence[Path], limit: int, seed: int | None, place: Path) -> list[UInt8Array]:
    logger.info("%s: %d of %d, without their labels", place, min(len(files), limit), len(files))
    chosen: Sequence[int] = evenly_spaced(len(files), limit)
    if seed is not None and len(files) > limit:
        chosen = sorted(np.random.default_rng(seed).choice(len(files), limit, replace=False).tolist())
    return [read_picture(files[index]) for index in chosen]


def _pictures_to_learn_from(file: Path) -> list[Path]:
    """The pictures of `train` in a data.yaml; never those of val or test."""
    described = description_of(file)
    if described is None or "train" not in described.splits:
        raise DataError(f"{file} has no training pictures: add train:")
    return described.pictures("train")


def _images_below(folder: Path) -> list[Path]:
    """The folder's images, otherwise those in its subfolders, sorted by name; masks are left out."""
    direct = list_pictures(folder)
    if direct:
        return direct
    masked = {place for pattern in _LABEL_FOLDERS for place in folder.rglob(pattern) if place.is_dir()}
    files = (p for p in folder.rglob("*") if is_picture(p) and p.is_file() and masked.isdisjoint(p.parents))
    return sorted(files)
