"""A site of one camera before which a cat comes and goes: what the site's soak and its kills run.

    python -m benchmarks.visited_site --fps 5        # prints the stream's address, serves until it is killed

The stream is MJPEG over HTTP. For `VISIT_S` seconds a photograph's cat walks by, then the place is empty for `AWAY_S`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from edgecnn.photographs import photographs

VISIT_S, AWAY_S = 6.0, 3.0
_SIZE_PX = (480, 360)


class _Handler(BaseHTTPRequestHandler):
    fps: ClassVar[float] = 5.0
    cat: ClassVar[Any] = None

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Send pictures for as long as someone reads."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        start, index = time.monotonic(), 0
        try:
            while True:
                jpeg = cv2.imencode(".jpg", self._picture(time.monotonic()))[1].tobytes()
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                self.wfile.write(head + jpeg + b"\r\n")
                index += 1
                time.sleep(max(0.0, start + index / self.fps - time.monotonic()))
        except OSError:
            pass  # the reader has gone

    def _picture(self, now_s: float) -> Any:
        since_s = now_s % (VISIT_S + AWAY_S)
        if since_s > VISIT_S:
            return np.full_like(self.cat, 90)
        return np.roll(self.cat, int(20 * since_s), axis=1)


@contextlib.contextmanager
def visitor_stream(fps: float) -> Iterator[str]:
    """The stream's address, served by a process of its own."""
    words = [sys.executable, "-m", "benchmarks.visited_site", "--fps", str(fps)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A mosquitto on a port of its own, which forgets nothing that is retained while it runs."""
    port = free_port()
    settings = folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen(["mosquitto", "-c", str(settings)], stderr=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.kill()


def write_site(
    folder: Path,
    *,
    url: str,
    web: int,
    metrics: int,
    mqtt: int,
    kept: str = "1h,30MB",
    rotate: str = "2m",
    keep: int = 5,
) -> Path:
    """The file of a camera with all that a site has: page, metrics, Home Assistant, events, lines, a recording."""
    path = folder / "site.toml"
    path.write_text(
        f'bundle = "default-detector"\nthreads = 1\nweb = {web}\nmetrics = {metrics}\n'
        f'mqtt = "mqtt://127.0.0.1:{mqtt}/home"\nhome-assistant = true\n'
        f'[cameras.door]\nsource = "{url}"\nclasses = ["cat"]\n'
        "zones = { hall = [0, 0, 480, 0, 480, 360, 0, 360] }\n"
        f'events = "events"\nevent-after = 0.5\nevent-before = 1\nkeep-events = "{kept}"\n'
        f'jsonl = "door.jsonl"\nrecord = "door.mp4"\nrotate = "{rotate}"\nkeep = {keep}\n'
    )
    return path


def start_site(path: Path, log: Path) -> subprocess.Popen[bytes]:
    """The site, in a session of its own, so that all of it can be killed."""
    words = [sys.executable, "-m", "edgecnn", "run", "--config", path.name, "--log", "json"]
    with log.open("ab") as lines:
        return subprocess.Popen(words, cwd=path.parent, stdout=lines, stderr=lines, start_new_session=True)


def records(file: Path) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines; raises ValueError where one isn't whole."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def main() -> None:
    """Serve the stream until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fps", type=float, default=5.0)
    _Handler.fps = parser.parse_args().fps
    _Handler.cat = cv2.resize(photographs()["cat"], _SIZE_PX)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
