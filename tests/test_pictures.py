"""One reader for every picture: the same pixels everywhere, and no damaged or huge file slips through."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.errors import DataError
from edgecnn.picture_headers import read_header
from edgecnn.pictures import MAX_PIXELS, decode_picture, read_picture
from edgecnn.runners.live.cameras.camera import open_camera

SUFFIXES = (".jpg", ".png", ".bmp", ".webp", ".tif", ".ppm", ".jp2", ".avif")


@pytest.fixture
def photograph() -> np.ndarray[Any, Any]:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def encoded(suffix: str, picture: np.ndarray[Any, Any]) -> bytes:
    try:
        return cv2.imencode(suffix, picture)[1].tobytes()
    except cv2.error:
        pytest.skip(f"this OpenCV writes no {suffix}")


def png(width: int, height: int, *, data: bytes = b"", end: bool = True) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + (chunk(b"IEND", b"") if end else b"")


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block that says how it is to be turned."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_header_tells_what_the_decoder_gives(suffix: str, photograph: np.ndarray[Any, Any]) -> None:
    header = read_header(encoded(suffix, photograph))
    assert header is not None
    assert (header.width_px, header.height_px) == (160, 120)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_an_error(suffix: str, share: float, photograph: np.ndarray[Any, Any]) -> None:
    data = encoded(suffix, photograph)
    with pytest.raises(DataError, match=r"decoded|truncated"):
        decode_picture(data[: int(len(data) * share)], "p")


def test_a_file_whose_rest_is_zeros_is_an_error(photograph: np.ndarray[Any, Any]) -> None:
    for suffix in (".jpg", ".png"):
        data = encoded(suffix, photograph)
        with pytest.raises(DataError):
            decode_picture(data[: len(data) // 2] + bytes(len(data) - len(data) // 2), "p")


def test_a_png_with_a_changed_byte_fails_its_checksum(photograph: np.ndarray[Any, Any]) -> None:
    data = bytearray(encoded(".png", photograph))
    data[len(data) // 2] ^= 1
    with pytest.raises(DataError, match="checksum"):
        decode_picture(bytes(data), "p")


def test_a_thumbnail_with_its_own_end_marker_does_not_hide_a_truncated_picture(
    photograph: np.ndarray[Any, Any],
) -> None:
    thumbnail = encoded(".jpg", photograph[:20, :20])
    block = b"Exif\0\0" + thumbnail
    data = encoded(".jpg", photograph)
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    decode_picture(data, "whole")
    with pytest.raises(DataError, match="truncated"):
        decode_picture(data[:-400], "cut")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_run_and_eval_see_the_same_upright_pixels(
    orientation: int, tmp_path: Path, photograph: np.ndarray[Any, Any]
) -> None:
    from edgecnn.datasets import open_dataset

    place = tmp_path / "cat" / "a.jpg"
    place.parent.mkdir()
    place.write_bytes(with_orientation(encoded(".jpg", photograph), orientation))
    with open_camera(place) as camera:
        live = next(iter(camera)).image
    measured = open_dataset(tmp_path, task="classify", labels=("cat",))[0].image()
    assert np.array_equal(live, measured)
    assert live.shape[:2] == ((160, 120) if orientation > 4 else (120, 160))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".jp2"])
def test_of_sixteen_bits_the_upper_eight_count(suffix: str) -> None:
    deep = (np.arange(120 * 160).reshape(120, 160) * 3).astype(np.uint16)
    picture = decode_picture(encoded(suffix, deep), "p")
    assert picture.dtype == np.uint8
    assert all(np.array_equal(picture[..., channel], deep >> 8) for channel in range(3))


def test_transparency_is_dropped_and_the_colours_below_it_stay(photograph: np.ndarray[Any, Any]) -> None:
    alpha = np.dstack([photograph, np.zeros(photograph.shape[:2], np.uint8)])
    assert np.array_equal(decode_picture(encoded(".png", alpha), "p"), photograph)


def test_float_samples_are_refused() -> None:
    with pytest.raises(DataError, match="decoded"):
        decode_picture(encoded(".tif", np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)), "p")


@pytest.mark.parametrize(
    "head",
    [
        png(30000, 30000),
        b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 30000, -30000, 1, 24) + bytes(40),
        b"P6 30000 30000 255\n",
        b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, 30000, 30000, 3) + bytes(40),
        b"RIFF" + struct.pack("<I", 40) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\x2f\x75\0" * 2,
        b"II*\0" + struct.pack("<IHHHIIHHII", 8, 2, 256, 4, 1, 30000, 257, 4, 1, 30000) + bytes(40),
        b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 47, 0, 30000, 30000, 0, 0) + bytes(60),
        bytes(4) + b"ftypavif" + bytes(8) + b"ispe" + struct.pack(">III", 0, 30000, 30000) + bytes(9),
    ],
    ids=["png", "bmp", "ppm", "jpeg", "webp", "tiff", "jp2", "avif"],
)
def test_a_huge_picture_is_refused_by_its_header(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(head)
    with pytest.raises(DataError, match="30000x30000 px, the limit is 100 megapixels"):
        read_picture(tmp_path / "huge.png")


def test_a_picture_bomb_takes_neither_time_nor_memory(tmp_path: Path) -> None:
    assert MAX_PIXELS < 30000**2
    squeezed = zlib.compressobj(9)
    row = bytes(30001)
    data = b"".join(squeezed.compress(row) for _ in range(30000)) + squeezed.flush()
    (tmp_path / "bomb.png").write_bytes(png(30000, 30000, data=data))
    program = textwrap.dedent(
        """
        import re, sys, time
        from pathlib import Path
        from edgecnn.errors import DataError
        from edgecnn.pictures import read_picture
        start = time.perf_counter()
        try:
            read_picture(Path(sys.argv[1]))
        except DataError:
            status = Path("/proc/self/status").read_text()  # of this program alone; ru_maxrss begins with its starter's
            print(time.perf_counter() - start, re.search(r"VmHWM:[^0-9]*([0-9]+)", status)[1])
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "bomb.png")], capture_output=True, text=True, check=True
    )
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 5  # 0.01 s on a quiet machine
    assert kilobytes < 400_000


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0\xff\xff\xff\xff"]
)
def test_anything_but_a_picture_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg"):
        read_picture(tmp_path / "a.jpg")


def test_absent_files_and_folders_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jpg", tmp_path, tmp_path / "a\0b.jpg"):
        with pytest.raises(DataError):
            read_picture(path)


def test_one_damaged_picture_of_a_folder_is_noted_and_the_others_are_frames(
    tmp_path: Path, photograph: np.ndarray[Any, Any]
) -> None:
    whole = encoded(".jpg", photograph)
    for name in ("a", "c"):
        (tmp_path / f"{name}.jpg").write_bytes(whole)
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    with open_camera(tmp_path) as camera:
        frames = [Path(frame.source).name for frame in camera]
    assert frames == ["a.jpg", "c.jpg"]
    assert camera.remark is not None
    assert camera.remark.startswith("1 of 3 pictures skipped: ")
    assert "b.jpg is truncated" in camera.remark


def test_a_folder_of_nothing_but_damaged_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    with open_camera(tmp_path) as camera, pytest.raises(DataError, match=r"a\.jpg"):
        next(iter(camera))


def test_a_jpeg_of_scans_without_end_is_refused(photograph: np.ndarray[Any, Any]) -> None:
    """Three thousand of them, in 300 KB, took minutes; encoders write about ten."""
    words = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    whole = cv2.imencode(".jpg", photograph, words)[1].tobytes()
    assert decode_picture(whole, "a.jpg").shape == photograph.shape
    first = whole.index(b"\xff\xda")
    bomb = whole[:-2] + whole[first:-2] * 300 + whole[-2:]
    with pytest.raises(DataError, match=r"a\.jpg is a JPEG of more than 200 scans"):
        decode_picture(bomb, "a.jpg")


def test_a_pipe_is_neither_a_picture_nor_a_video_and_not_waited_for(
    tmp_path: Path, photograph: np.ndarray[Any, Any]
) -> None:
    for name in ("a.jpg", "a.mp4", "a"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="neither a file nor a folder"):
            open_camera(tmp_path / name)
        with pytest.raises(DataError):
            read_picture(tmp_path / name)
    cv2.imwrite(str(tmp_path / "b.jpg"), photograph)
    with open_camera(tmp_path) as camera:
        assert [frame.image.shape for frame in camera] == [photograph.shape]
