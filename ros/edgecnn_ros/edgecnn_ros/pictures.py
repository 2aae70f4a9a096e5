"""Pictures in messages: `sensor_msgs/Image` and `CompressedImage` to arrays, and arrays to `Image`.

Encodings are those of sensor_msgs/image_encodings.hpp, with the meaning that it gives them.
"""

from __future__ import annotations

from typing import Any, Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.arrays import UInt8Array
from edgecnn.errors import DataError
from edgecnn.printable import shortened
from edgecnn_ros.messages import Messages

# (bytes of a pixel, OpenCV's conversion to BGR; None where none is needed). OpenCV names Bayer patterns by the second
# row's second and third pixel, ROS by the first row's first two.
_CONVERSIONS: Final[dict[str, tuple[int, int | None]]] = {
    "bgr8": (3, None),
    "8UC3": (3, None),
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "8UC4": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    "8UC1": (1, cv2.COLOR_GRAY2BGR),
    "yuv422": (2, cv2.COLOR_YUV2BGR_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2BGR_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2BGR_YUY2),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2BGR),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2BGR),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2BGR),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2BGR),
}
ENCODINGS: Final = tuple(_CONVERSIONS)
_LARGEST_SIDE_PX: Final = 1 << 15


def picture_of(message: Any) -> UInt8Array:
    """The pixels of an `Image` or `CompressedImage`: uint8 [height, width, 3] BGR.

    A view of the message's data where that is "bgr8"; rows may be padded (`step`).

    Raises:
        DataError: an encoding without 8-bit colours, big-endian data, sizes that don't fit together, or compressed
            data that is no picture.
    """
    if hasattr(message, "format"):
        return _uncompressed(message)
    encoding, height, width = str(message.encoding), int(message.height), int(message.width)
    if encoding not in _CONVERSIONS:
        raise DataError(
            f"encoding {shortened(repr(encoding), length=40)}: expected one of {', '.join(ENCODINGS)}; image_proc and "
            "cv_bridge convert others"
        )
    if message.is_bigendian:
        raise DataError(f"{encoding} with is_bigendian set: expected little-endian data, as 8-bit pictures are")
    size, conversion = _CONVERSIONS[encoding]
    if not (0 < height <= _LARGEST_SIDE_PX and 0 < width <= _LARGEST_SIDE_PX):
        raise DataError(f"a picture of {width}x{height} px: expected 1 to {_LARGEST_SIDE_PX} px a side")
    if conversion in (cv2.COLOR_YUV2BGR_UYVY, cv2.COLOR_YUV2BGR_YUY2) and width % 2:
        raise DataError(f"{encoding} with {width} px a row: two pixels share a colour, so expected an even number")
    rows = _rows(message.data, height, int(message.step), width * size, encoding)
    pixels = rows.reshape(height, width, size) if size > 1 else rows
    if conversion is None:
        return pixels
    return cast(UInt8Array, cv2.cvtColor(np.ascontiguousarray(pixels), conversion))


def _rows(data: Any, height: int, step: int, used: int, encoding: str) -> UInt8Array:
    """uint8 [height, used] of rows of `step` bytes each; the last one may lack its padding."""
    octets: UInt8Array = np.frombuffer(data, np.uint8)
    if step < used or len(octets) < (height - 1) * step + used:
        raise DataError(
            f"{encoding} of {height} rows: expected at least {used} bytes a row, found {len(octets)} bytes with "
            f"{step} a row"
        )
    return np.lib.stride_tricks.as_strided(octets, (height, used), (step, 1), writeable=False)


def _uncompressed(message: Any) -> UInt8Array:
    octets = np.frombuffer(message.data, np.uint8)
    image = cv2.imdecode(octets, cv2.IMREAD_COLOR) if octets.size else None
    if image is None:
        form = shortened(repr(str(message.format)), length=40)
        raise DataError(f"a compressed picture of the format {form}: {octets.size} bytes that are no JPEG or PNG")
    return cast(UInt8Array, image)


def image_message(messages: Messages, header: Any, pixels: UInt8Array | NDArray[np.uint16], encoding: str) -> Any:
    """An `Image`.

    Args:
        messages: where its class is from.
        header: of the picture that it was made from.
        pixels: uint8 [height, width, 3] ("bgr8") or [height, width] ("mono8"), or uint16 [height, width] ("mono16").
        encoding: one of these.
    """
    little = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    octets = np.ascontiguousarray(little).view(np.uint8).reshape(-1)
    return messages.of("sensor_msgs/msg/Image")(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=octets.size // pixels.shape[0],
        data=messages.octets(octets),
    )
