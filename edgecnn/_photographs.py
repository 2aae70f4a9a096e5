"""The photographs that come with edgecnn, to compare networks on where the user gave none."""

from __future__ import annotations

from importlib.resources import files

import cv2
import numpy as np

from edgecnn.results import UInt8Array

NAMES = ("astronaut", "cat", "coffee", "rocket")


def photographs() -> dict[str, UInt8Array]:
    """Name → uint8 [height, width, 3] BGR; all public domain or CC0 (NOTICE says whose)."""
    folder = files("edgecnn") / "assets"
    pictures = {}
    for name in NAMES:
        data = np.frombuffer((folder / f"{name}.jpg").read_bytes(), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert picture is not None, name
        pictures[name] = np.asarray(picture, np.uint8)
    return pictures
