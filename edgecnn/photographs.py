"""The photographs that come with edgecnn, for comparing networks where the user gives none."""

from __future__ import annotations

from importlib.resources import files

from edgecnn.arrays import UInt8Array
from edgecnn.pictures import decode_picture

NAMES = ("astronaut", "cat", "coffee", "rocket")


def photographs() -> dict[str, UInt8Array]:
    """Name → uint8 [height, width, 3] BGR; all public domain or CC0 (see NOTICE)."""
    folder = files("edgecnn") / "assets"
    return {name: decode_picture((folder / f"{name}.jpg").read_bytes(), f"{name}.jpg") for name in NAMES}
