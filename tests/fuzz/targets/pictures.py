"""Pictures and masks, in every format that is read."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.target import Attempt, Target

_WORDS = (
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"PLTE",
    b"eXIf",
    b"\xff\xd8",
    b"\xff\xd9",
    b"\xff\xc0",
    b"\xff\xda",
    b"VP8X",
    b"ispe",
)


def _picture() -> Attempt:
    from edgecnn.pictures import check_picture_file, picture_hash, read_picture

    def attempt(content: bytes, folder: Path) -> None:
        (folder / "picture.png").write_bytes(content)
        check_picture_file(folder / "picture.png")
        picture_hash(read_picture(folder / "picture.png"))

    return attempt


def _mask() -> Attempt:
    from edgecnn.datasets.mask_files import read_class_ids

    def attempt(content: bytes, folder: Path) -> None:
        (folder / "mask.png").write_bytes(content)
        read_class_ids(folder / "mask.png")

    return attempt


TARGETS = (
    Target(name="picture", title="a picture", prepare=_picture, words=_WORDS),
    Target(name="mask", title="a mask of class ids", prepare=_mask, words=_WORDS),
)
