"""Small labelled pictures: coloured squares on a noisy ground, in the forms that people keep them in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURS = {"red": (40, 40, 220), "green": (40, 200, 40)}  # BGR
SIZE_PX = 64


def draw(rng: np.random.Generator, squares: int) -> tuple[NDArray[np.uint8], list[tuple[int, int, int, int, int]]]:
    """A picture, and (class id, left, top, right, bottom) of each square in it."""
    picture = rng.integers(90, 160, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    found = []
    for _ in range(squares):
        class_id, side = int(rng.integers(len(COLOURS))), int(rng.integers(14, 26))
        left, top = (int(value) for value in rng.integers(0, SIZE_PX - side, 2))
        picture[top : top + side, left : left + side] = list(COLOURS.values())[class_id]
        found.append((class_id, left, top, left + side, top + side))
    return picture, found


def write_classes(folder: Path, count: int, *, seed: int = 0) -> Path:
    """One folder a colour, with pictures of one square."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        picture, [(class_id, *_)] = draw(rng, 1)
        place = folder / list(COLOURS)[class_id]
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{number}.png"), picture)
    return folder


def write_boxes(folder: Path, count: int, *, seed: int = 0) -> Path:
    """YOLO: images/, labels/, classes.txt."""
    rng = np.random.default_rng(seed)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(COLOURS))
    for number in range(count):
        picture, squares = draw(rng, 1)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
        lines = [
            f"{i} {(x1 + x2) / 2 / SIZE_PX} {(y1 + y2) / 2 / SIZE_PX} {(x2 - x1) / SIZE_PX} {(y2 - y1) / SIZE_PX}"
            for i, x1, y1, x2, y2 in squares
        ]
        (folder / "labels" / f"{number}.txt").write_text("\n".join(lines))
    return folder


def write_masks(folder: Path, count: int, *, seed: int = 0) -> Path:
    """images/, masks/ and classes.txt: the ground is class 0."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(("ground", *COLOURS)))
    for number in range(count):
        picture, squares = draw(rng, 1)
        mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
        for class_id, left, top, right, bottom in squares:
            mask[top:bottom, left:right] = class_id + 1
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    return folder
