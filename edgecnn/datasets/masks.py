"""Image and mask folders: images/ and masks*/, where a mask is a PNG of class ids with its image's size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgecnn.datasets.base import (
    UNLABELLED,
    ClassMap,
    Dataset,
    MapTruth,
    Sample,
    has_common_class,
    map_classes,
    read_names,
)
from edgecnn.datasets.mask_files import read_class_ids
from edgecnn.datasets.mask_values import check_ids, count_ids, void_id
from edgecnn.datasets.splits import Part, split_by_name
from edgecnn.errors import DataError
from edgecnn.pictures import list_pictures
from edgecnn.results import IntArray, UInt8Array

NAME = "image and mask folders"


def mask_parts(path: Path, kind: str) -> list[Part]:
    """The folders images/ and masks*/, or folders of the same name in both."""
    del kind  # this form has only class maps
    images = path / "images"
    folders = [folder for folder in sorted(path.glob("masks*")) if folder.is_dir()] if path.is_dir() else []
    if not images.is_dir() or not folders:
        return []
    if list_pictures(images):
        return [Part(None, "its folders", partial(_open, path, folders, ""), place=path)]
    below = [f.name for f in sorted(images.iterdir()) if f.is_dir() and any((m / f.name).is_dir() for m in folders)]
    return [
        Part(
            split_by_name(name),
            f"the folder images/{name}",
            partial(_open, path, folders, name),
            names=(name,),
            place=images / name,
        )
        for name in below
    ]


def _open(path: Path, folders: Sequence[Path], below: str, labels: Sequence[str]) -> Dataset:
    """Open the data set; of several mask folders, the one whose classes have most in common with the network's.

    Raises:
        DataError: no class names, no class in common, or ids that are certainly wrong.
    """
    there = [folder for folder in folders if (folder / below).is_dir()]
    named = [(folder, _class_names(path, folder.name)) for folder in there]
    folder, found = max(named, key=lambda pair: has_common_class(pair[1] or (), labels))
    names = found or tuple(labels)
    if not names:
        own = _own_names(folder.name)
        raise DataError(f"{folder} has no class names: put them into {path / own}, one per line in id order")
    remarks: tuple[str, ...] = () if found else ("the data has no class names: its ids are used as the network's",)
    images = list_pictures(path / "images" / below)
    return mask_dataset(path, folder, images, names, labels, below=below, remarks=remarks)


def mask_dataset(
    path: Path,
    folder: Path,
    images: Sequence[Path],
    names: Sequence[str],
    labels: Sequence[str],
    *,
    below: str = "",
    form: str = NAME,
    remarks: tuple[str, ...] = (),
) -> Dataset:
    """Pictures with their masks.

    Args:
        path: the data set's.
        folder: of the masks, which have the names of their pictures.
        images: the pictures; those without a mask are counted.
        names: of the data's classes, by id.
        labels: the network's class names.
        below: the folder in `folder` where the masks lie.
        form: what the form of the labels is called.
        remarks: what is known already.

    Raises:
        DataError: no class in common, or ids that are certainly wrong.
    """
    classes = map_classes(names, labels, where=folder)
    masks = {mask.stem: mask for mask in list_pictures(folder / below)}
    paired = [(image, masks[image.stem]) for image in images if image.stem in masks]
    if paired:
        looked = check_ids(count_ids([mask for _, mask in paired]), names, where=folder)
        classes = dataclasses.replace(classes, unnamed_ids=looked.unnamed_ids)
        remarks += looked.remarks
    samples = tuple(Sample(image, _Truth(mask, classes)) for image, mask in paired)
    without = len(images) - len(samples)
    left_out = {"images without a mask": without} if without else {}
    return Dataset(folder, form, classes, samples, left_out, remarks, root=path)


class _Truth:
    """The mask of one picture, read when it is needed."""

    def __init__(self, mask: Path, classes: ClassMap) -> None:
        self._mask = mask
        self._network_ids = np.append(classes.network_ids, UNLABELLED)
        self._void = void_id(len(classes.names))

    def __call__(self, image: UInt8Array) -> MapTruth:
        ids = read_class_ids(self._mask)
        if ids.shape != image.shape[:2]:
            raise DataError(
                f"{self._mask} has {ids.shape[1]}x{ids.shape[0]} px, "
                f"its image {image.shape[1]}x{image.shape[0]}: "
                "a mask must have its image's size (resize it by nearest neighbour)"
            )
        last = len(self._network_ids) - 1  # the entry for all ids without a name
        known: IntArray = np.minimum(ids.astype(np.int64), last)
        if self._void is not None:
            known[ids == self._void] = last
        return MapTruth(self._network_ids[known])


def _own_names(folder_name: str) -> str:
    return f"classes{folder_name.removeprefix('masks')}.txt"


def _class_names(path: Path, folder_name: str) -> tuple[str, ...] | None:
    """Class names of `masks_voc21` from classes_voc21.txt, otherwise classes.txt, in the folder or its parent."""
    for name in dict.fromkeys((_own_names(folder_name), "classes.txt")):
        for folder in (path, path.absolute().parent):
            if (folder / name).is_file():
                return read_names(folder / name)
    return None
