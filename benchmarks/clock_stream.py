"""A stream whose every picture says when it was made: MJPEG over HTTP, with a clock as a bar code in the top rows.

    python benchmarks/clock_stream.py --fps 30        # prints its address, serves until it is killed

So that the age of a result can be read from the picture that it is of, with codec, network and buffers included.
"""

from __future__ import annotations

import argparse
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH_PX, HEIGHT_PX = 640, 480
BITS = 40  # milliseconds of CLOCK_MONOTONIC: 34 years
CELL_PX = WIDTH_PX // BITS
WHITE_ABOVE = 127

Picture = NDArray[np.uint8]


def stamp(picture: Picture, now_ns: int) -> None:
    """Draw a time into the top rows of a picture, uint8 [480, 640, 3]."""
    bits = (now_ns // 1_000_000 >> np.arange(BITS)) & 1
    picture[:CELL_PX] = (np.repeat(bits, CELL_PX) * 255).astype(np.uint8)[None, :, None]


def stamped_ms(picture: Picture) -> int:
    """The time that was drawn into a picture, in ms of CLOCK_MONOTONIC."""
    middle = picture[CELL_PX // 2, CELL_PX // 2 :: CELL_PX, 1] > WHITE_ABOVE
    return int((middle.astype(np.int64) << np.arange(BITS)).sum())


class _Handler(BaseHTTPRequestHandler):
    fps: ClassVar[float] = 30.0
    background: ClassVar[Picture] = np.full((HEIGHT_PX, WIDTH_PX, 3), 90, np.uint8)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Send pictures for as long as someone reads."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        start, index = time.monotonic(), 0
        picture = self.background.copy()
        try:
            while True:
                stamp(picture, time.monotonic_ns())
                jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                self.wfile.write(head + jpeg + b"\r\n")
                index += 1
                time.sleep(max(0.0, start + index / self.fps - time.monotonic()))
        except OSError:
            pass  # the reader has gone


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fps", type=float, default=30.0)
    _Handler.fps = parser.parse_args().fps
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
