"""COCO's compressed run-length encoding of masks, in numpy.

Runs go down the columns, starting with zeros. Each count, from the fourth on as the difference to the one
two before, is written in groups of five bits, lowest first, each as a character: bit 5 means that more follow,
bit 4 of the last is the sign. Source: `rleToString` and `rleFrString` in cocoapi's maskApi.c.
"""

from __future__ import annotations

from typing import TypedDict

import cv2
import numpy as np

from edgecnn.arrays import BoolArray, IntArray, UInt8Array
from edgecnn.errors import DataError


class Rle(TypedDict):
    """A mask in COCO's form: size [height, width] in px, and the runs."""

    size: list[int]
    counts: str


def encode(mask: BoolArray) -> Rle:
    """Encode one mask, bool [height, width]."""
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    if len(columns) == 0:
        return {"size": [height, width], "counts": _to_string(np.array([height * width], np.int64))}
    first, last = int(columns[0]), int(columns[-1]) + 1  # objects are small: only their columns are scanned
    flat = cv2.transpose(mask[:, first:last].view(np.uint8)).ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = changes + first * height
    if flat[0]:
        edges = np.concatenate(([first * height], edges))
    if flat[-1] and last * height < height * width:
        edges = np.append(edges, last * height)
    return {"size": [height, width], "counts": _to_string(np.diff(edges, prepend=0, append=height * width))}


def encode_classes(classes: UInt8Array) -> dict[int, Rle]:
    """Encode a class map, uint8 [height, width]: one mask for each class that occurs, by increasing class id."""
    height, width = classes.shape
    flat = cv2.transpose(classes).ravel()  # four times as fast as ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    masks: dict[int, Rle] = {}
    for class_id in np.unique(values).tolist():
        mine = values == class_id  # runs of one class never touch: each edge is a change of its mask
        edges = np.column_stack((starts[mine], ends[mine])).ravel()
        if edges[-1] == flat.size:
            edges = edges[:-1]
        masks[class_id] = {
            "size": [height, width],
            "counts": _to_string(np.diff(edges, prepend=0, append=flat.size)),
        }
    return masks


def decode(rle: Rle) -> BoolArray:
    """The mask, bool [height, width].

    Raises:
        DataError: the runs are damaged, or don't fill the size.
    """
    height, width = rle["size"]
    counts = _from_string(rle["counts"])
    if (counts < 0).any() or counts.sum() != height * width:
        raise DataError(f"a mask's runs cover {counts.sum()} px, but its size is {width}x{height} px")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T


def area_px(rle: Rle) -> int:
    """How many pixels the mask has, without decoding it."""
    return int(_from_string(rle["counts"])[1::2].sum())


def _to_string(counts: IntArray) -> str:
    deltas = counts.astype(np.int64)
    deltas[3:] -= counts[1:-2]
    groups = []
    written = []
    more = np.ones(len(deltas), np.bool_)
    while more.any():
        written.append(more)
        group = deltas & 0x1F
        deltas = deltas >> 5  # keeps the sign
        more = more & np.where(group & 0x10, deltas != -1, deltas != 0)
        groups.append(group | more * 0x20)
    characters = np.column_stack(groups)[np.column_stack(written)] + 48
    return characters.astype(np.uint8).tobytes().decode("ascii")


def _from_string(text: str) -> IntArray:
    try:
        characters = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError as wrong:
        raise DataError("a mask's runs are not ASCII text") from wrong
    if len(characters) == 0 or (characters < 0).any() or (characters > 63).any() or characters[-1] & 0x20:
        raise DataError("a mask's runs are not COCO's compressed form")
    last = (characters & 0x20) == 0
    starts = np.concatenate(([0], np.flatnonzero(last)[:-1] + 1))
    number = np.cumsum(last) - last  # which count each character belongs to
    place = np.arange(len(characters)) - starts[number]
    if place.max() > 11:
        raise DataError("a mask's runs are not COCO's compressed form: a count has more than 60 bits")
    counts = np.add.reduceat((characters & 0x1F) << (5 * place), starts)
    negative = (characters[last] & 0x10) != 0
    counts[negative] -= np.int64(1) << (5 * (place[last][negative] + 1))
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return counts
