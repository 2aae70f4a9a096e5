"""Pictures in GStreamer's buffers: out of them, and into new ones with the same stamps."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.gstreamer import gstreamer


def picture_in(buffer: Any, *, width_px: int, height_px: int, offset: int, stride: int) -> UInt8Array:
    """A copy of the picture, uint8 [height, width, 3] BGR.

    Raises:
        DeviceError: the buffer can't be read, or is too small.
    """
    gst = gstreamer()
    mapped, memory = buffer.map(gst.MapFlags.READ)
    if not mapped:
        raise DeviceError("a buffer can't be read")
    try:
        octets = np.frombuffer(memory.data, np.uint8)
        needed = offset + stride * (height_px - 1) + 3 * width_px
        if len(octets) < needed:
            raise DeviceError(f"a buffer of {width_px}x{height_px} px: expected {needed} bytes, found {len(octets)}")
        steps = (stride, 3, 1)
        picture = np.lib.stride_tricks.as_strided(octets[offset:], (height_px, width_px, 3), steps)
        return np.array(picture)
    finally:
        buffer.unmap(memory)


def shared_copy(buffer: Any) -> Any:
    """A buffer with the same memory, stamps, flags and metadata, to which more can be attached."""
    gst = gstreamer()
    kinds = gst.BufferCopyFlags
    copy = gst.Buffer.new()
    what = kinds.FLAGS | kinds.TIMESTAMPS | kinds.META | kinds.MEMORY
    if not copy.copy_into(buffer, what, 0, buffer.get_size()):
        raise DeviceError("a buffer can't be copied")
    return copy


def with_picture(buffer: Any, picture: UInt8Array, *, offset: int, stride: int) -> Any:
    """A buffer with another picture (uint8 [height, width, 3] BGR), and the stamps, flags and metadata of the first."""
    gst = gstreamer()
    kinds = gst.BufferCopyFlags
    height, width = picture.shape[:2]
    octets = np.zeros(max(buffer.get_size(), offset + stride * height), np.uint8)
    rows = octets[offset : offset + stride * height].reshape(height, stride)
    rows[:, : 3 * width] = picture.reshape(height, -1)
    drawn = gst.Buffer.new_wrapped(octets[: buffer.get_size()].tobytes())
    drawn.copy_into(buffer, kinds.FLAGS | kinds.TIMESTAMPS | kinds.META, 0, buffer.get_size())
    return drawn
