"""Messages with pictures become arrays, and the other way round."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.errors import DataError

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'edgecnn[ros]'")

from edgecnn_ros import pictures

from .bags import image

BGR = np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)
SMOOTH = cv2.resize(np.array([[[10, 200, 40], [240, 30, 90]], [[0, 90, 250], [120, 130, 140]]], np.uint8), (32, 24))


def uyvy_of(bgr: Any) -> Any:
    """By the definition of UYVY: two pixels share U and V."""
    blue, green, red = (bgr[..., i].astype(np.float64) for i in range(3))
    studio = np.empty(bgr.shape)
    studio[..., 0] = 16 + 0.257 * red + 0.504 * green + 0.098 * blue
    studio[..., 1] = 128 - 0.148 * red - 0.291 * green + 0.439 * blue
    studio[..., 2] = 128 + 0.439 * red - 0.368 * green - 0.071 * blue
    packed = np.empty((*bgr.shape[:2], 2), np.uint8)
    packed[..., 1] = np.rint(studio[..., 0])
    packed[:, 0::2, 0] = np.rint(studio[:, 0::2, 1])
    packed[:, 1::2, 0] = np.rint(studio[:, 0::2, 2])
    return packed


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("bgr8", BGR),
        ("8UC3", BGR),
        ("rgb8", BGR[:, :, ::-1]),
        ("bgra8", np.dstack((BGR, BGR[:, :, :1]))),
        ("rgba8", np.dstack((BGR[:, :, ::-1], BGR[:, :, :1]))),
    ],
)
@pytest.mark.parametrize("padding", [0, 1, 13])
def test_colours_come_in_their_order_whatever_the_padding(jazzy: Any, encoding: str, data: Any, padding: int) -> None:
    rows = np.full((6, data.shape[2] * 8 + padding), 99, np.uint8)
    rows[:, : data.shape[2] * 8] = data.reshape(6, -1)
    message = image(jazzy, rows, encoding, height=6, width=8)
    raw = jazzy.store.serialize_cdr(message, "sensor_msgs/msg/Image")
    found = pictures.picture_of(jazzy.store.deserialize_cdr(raw, "sensor_msgs/msg/Image"))
    assert found.tolist() == BGR.tolist()


def test_grey_is_grey_in_all_colours(jazzy: Any) -> None:
    for encoding in ("mono8", "8UC1"):
        found = pictures.picture_of(image(jazzy, BGR[:, :, 0], encoding, height=6, width=8))
        assert (found == BGR[:, :, :1]).all()


@pytest.mark.parametrize(("encoding", "swapped"), [("yuv422", 0), ("uyvy", 0), ("yuv422_yuy2", 1), ("yuyv", 1)])
def test_yuv_of_both_orders_gives_the_colours_that_went_in(jazzy: Any, encoding: str, swapped: bool) -> None:
    packed = uyvy_of(SMOOTH)
    found = pictures.picture_of(image(jazzy, packed[..., ::-1] if swapped else packed, encoding, height=24, width=32))
    assert np.abs(found.astype(int) - SMOOTH).mean() < 4, "two pixels share their colour"


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_ros_and_not_opencvs(jazzy: Any, pattern: str) -> None:
    flat = np.zeros((16, 16, 3), np.uint8)
    flat[:] = (20, 120, 220)
    raw = np.empty((16, 16), np.uint8)
    for position, letter in enumerate(pattern):
        raw[position // 2 :: 2, position % 2 :: 2] = {"b": 20, "g": 120, "r": 220}[letter]
    found = pictures.picture_of(image(jazzy, raw, f"bayer_{pattern}8", height=16, width=16))
    assert (found[4:-4, 4:-4] == flat[4:-4, 4:-4]).all()


def test_an_unpadded_picture_is_not_copied(jazzy: Any) -> None:
    message = image(jazzy, BGR, "bgr8", height=6, width=8)
    assert np.shares_memory(pictures.picture_of(message), message.data)


@pytest.mark.parametrize(
    ("encoding", "words", "reason"),
    [
        ("32FC1", {}, "'32FC1': expected one of bgr8"),
        ("mono16", {}, "expected one of"),
        ("\x1b[2Jbgr8", {}, r"'\\x1b"),
        ("bgr8", {"is_bigendian": 1}, "little-endian"),
        ("bgr8", {"step": 23}, "expected at least 24 bytes a row"),
        ("bgr8", {"step": 25}, "found 144 bytes with 25 a row"),
        ("bgr8", {"height": 0}, "8x0 px"),
        ("bgr8", {"width": 2**31}, "2147483648x6 px"),
        ("bgr8", {"height": 2**15, "step": 2**32 - 1}, "found 144 bytes"),
        ("yuv422", {"width": 7, "step": 14}, "even number"),
    ],
)
def test_what_is_no_picture_of_eight_bits_is_refused_with_the_reason(
    jazzy: Any, encoding: str, words: dict[str, int], reason: str
) -> None:
    message = image(jazzy, BGR, encoding, **{"height": 6, "width": 8, "step": 24} | words)
    with pytest.raises(DataError, match=reason):
        pictures.picture_of(message)


def test_compressed_pictures_are_read_and_damaged_ones_refused() -> None:
    png = cv2.imencode(".png", BGR)[1].reshape(-1)
    assert (pictures.picture_of(SimpleNamespace(format="rgb8; png compressed bgr8", data=png)) == BGR).all()
    for data in (png[:20], np.zeros(0, np.uint8)):
        with pytest.raises(DataError, match="that are no JPEG or PNG"):
            pictures.picture_of(SimpleNamespace(format="png", data=data))


def test_class_maps_and_numbers_of_instances_survive_the_wire(jazzy: Any) -> None:
    for pixels, encoding in ((BGR[:, :, 0], "mono8"), (BGR, "bgr8"), (BGR[:, :, 0].astype(np.uint16) * 257, "mono16")):
        message = pictures.image_message(jazzy, image(jazzy, BGR, "bgr8", height=6, width=8).header, pixels, encoding)
        raw = jazzy.store.serialize_cdr(message, "sensor_msgs/msg/Image")
        there = jazzy.store.deserialize_cdr(raw, "sensor_msgs/msg/Image")
        assert (there.height, there.width, there.encoding, there.is_bigendian) == (6, 8, encoding, 0)
        assert there.step == pixels.nbytes // 6
        assert (np.frombuffer(there.data.tobytes(), pixels.dtype).reshape(pixels.shape) == pixels).all()
