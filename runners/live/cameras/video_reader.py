"""The interface of a reader of recordings, common to all decoders."""

from __future__ import annotations

from typing import Protocol

from edgecnn.results import UInt8Array

LARGEST_PX = 1 << 26  # per picture: twice the size of 8K; a larger size is an attack on our memory


class VideoReader(Protocol):
    """Frames of a recording, in order; used by one thread at a time.

    Attributes:
        fps: declared average frames per second; None where there is none, or an impossible one.
        frames_total: declared number of frames.
        complaints: the decoder's error messages so far.
    """

    fps: float | None
    frames_total: int | None
    complaints: list[str]

    def read(self) -> tuple[UInt8Array, int | None] | None:
        """The next picture, uint8 [height, width, 3] BGR, and its time in the recording in ns, if it is known.

        Returns:
            None at the end.

        Raises:
            DataError: it can't be decoded, or not correctly.
        """
        ...

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        ...
