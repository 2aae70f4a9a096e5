"""Image-and-mask folders: images/ and masks*/, where a mask is a PNG of class ids, of its image's size."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

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
from edgecnn.datasets.images import decode, list_images
from edgecnn.errors import DataError
from edgecnn.results import IntArray, UInt8Array

NAME = "image and mask folders"
_NEVER_A_CLASS = 255  # the void of Pascal VOC, Cityscapes and most others
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PALETTE = 3  # colour type


def open_masks(path: Path, *, task: str, labels: Sequence[str], split: str | None) -> Dataset | None:
    """The data set, or None where `path` has no images/ beside masks*/.

    Of several folders of masks, the one whose classes have most in common with the network's is taken.

    Raises:
        DataError: no class names, no class in common.
    """
    del task  # segment alone
    below = Path(split or "")
    images_folder = path / "images" / below
    mask_folders = [f for f in sorted(path.glob("masks*")) if (f / below).is_dir()]
    if not images_folder.is_dir() or not mask_folders:
        return None
    named = [(folder, _class_names(path, folder.name)) for folder in mask_folders]
    folder, names = max(named, key=lambda pair: has_common_class(pair[1], labels))
    classes = map_classes(names, labels, where=folder)

    images = list_images(images_folder)
    masks = {mask.stem: mask for mask in list_images(folder / below)}
    samples = tuple(Sample(i, _Truth(masks[i.stem], classes)) for i in images if i.stem in masks)
    without = len(images) - len(samples)
    return Dataset(folder, NAME, classes, samples, {"images without a mask": without} if without else {})


class _Truth:
    """The mask of one picture, read when it is wanted."""

    def __init__(self, mask: Path, classes: ClassMap) -> None:
        self._mask = mask
        self._network_ids = np.append(classes.network_ids, UNLABELLED)

    def __call__(self, image: UInt8Array) -> MapTruth:
        ids = read_class_ids(self._mask)
        if ids.shape != image.shape[:2]:
            raise DataError(
                f"{self._mask} has {ids.shape[1]}x{ids.shape[0]} px, "
                f"its image {image.shape[1]}x{image.shape[0]}: "
                "a mask wants its image's size (resize it by nearest neighbour)"
            )
        last = len(self._network_ids) - 1  # stands for all that has no name
        known: IntArray = np.where(ids == _NEVER_A_CLASS, last, np.minimum(ids.astype(np.int64), last))
        return MapTruth(self._network_ids[known])


def read_class_ids(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The class ids of a mask, uint8 or uint16 [height, width]; of a palette PNG, the indices.

    Raises:
        DataError: it cannot be read, or is a colour picture.
    """
    header = _png_header(path)
    if header is not None and header.palette is not None:
        return _indices(decode(path, cv2.IMREAD_COLOR), header.palette)
    ids = decode(path, cv2.IMREAD_UNCHANGED)
    if header is not None and header.bit_depth < 8:  # OpenCV has stretched 1, 2 or 4 bits over 0..255
        ids = ids // (255 // (2**header.bit_depth - 1))
    if ids.ndim == 3 and (ids[..., :1] == ids[..., :3]).all():  # grey, written as colour
        ids = ids[..., 0]
    if ids.ndim != 2:
        raise DataError(
            f"{path} is a colour picture: a mask wants one channel of class ids, or a palette whose indices they are"
        )
    return ids


@dataclass(frozen=True)
class _PngHeader:
    """What OpenCV doesn't tell of a PNG: bits a sample, and the palette, uint8 [n, 3] RGB, if it has one."""

    bit_depth: int
    palette: NDArray[np.uint8] | None


def _png_header(path: Path) -> _PngHeader | None:
    try:
        data = path.read_bytes()
    except OSError as failed:
        raise DataError(f"{path} cannot be read: {failed.strerror}") from failed
    if not data.startswith(_PNG_SIGNATURE) or len(data) < 33:
        return None
    bit_depth, colour_type = data[24], data[25]
    position = len(_PNG_SIGNATURE) if colour_type == _PNG_PALETTE else len(data)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"PLTE":
            colours = np.frombuffer(data[position + 8 : position + 8 + length], np.uint8)
            return _PngHeader(bit_depth, colours[: len(colours) // 3 * 3].reshape(-1, 3))
        position += length + 12
    return _PngHeader(bit_depth, None)


def _indices(picture: UInt8Array, palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Palette indices of a decoded picture: OpenCV gives colours. Of two equal ones, the first."""
    table = np.zeros(1 << 24, np.uint8)
    keys = palette.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    table[keys[::-1]] = np.arange(len(palette), dtype=np.uint8)[::-1]
    indices: NDArray[np.uint8] = table[picture.astype(np.int64) @ (1, 1 << 8, 1 << 16)]  # BGR
    return indices


def _class_names(path: Path, folder_name: str) -> tuple[str, ...]:
    """Class names of `masks_voc21` from classes_voc21.txt, else classes.txt, in the folder or its parent."""
    own = f"classes{folder_name.removeprefix('masks')}.txt"
    for name in dict.fromkeys((own, "classes.txt")):
        for folder in (path, path.parent):
            if (folder / name).is_file():
                return read_names(folder / name)
    raise DataError(
        f"{path / folder_name} has no class names: put them, one a line in the order of the ids, into {path / own}"
    )
