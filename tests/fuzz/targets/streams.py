"""Streams and videos: what a camera's server answers, and what a file of video holds."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from pathlib import Path

from tests.fuzz.target import Attempt, Target

_HTTP_WORDS = (
    b"\r\n\r\n",
    b"--frame\r\n",
    b"Content-Length: ",
    b"Content-Type: image/jpeg",
    b"\xff\xd8",
    b"\xff\xd9",
    b"HTTP/1.1 302",
)


_RTSP_WORDS = (
    b"RTSP/1.0 200 OK\r\n",
    b"WWW-Authenticate: Digest ",
    b"realm=",
    b"nonce=",
    b"CSeq: 1\r\n",
    b"m=video 0",
    b",",
)


class OneAnswer:
    """A server on loopback that gives the same bytes to whoever connects, and closes after a moment."""

    def __init__(self, *, open_s: float = 0.0) -> None:
        self.content, self._open_s = b"", open_s
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(2)
                connection.recv(4096)
                connection.sendall(self.content)
                time.sleep(self._open_s)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            except OSError:
                pass  # the other side has gone


def _mjpeg() -> Attempt:
    """The whole answer of a server of Motion JPEG."""
    from edgecnn.runners.live.cameras.camera import open_camera
    from edgecnn.runners.live.cameras.reconnect import Reconnect

    server = OneAnswer()

    def attempt(content: bytes, folder: Path) -> None:
        server.content = content
        policy = Reconnect(stall_s=1.0, give_up_s=0.0)
        with open_camera(f"http://127.0.0.1:{server.port}/stream", reconnect=policy) as camera:
            for frame in itertools.islice(camera, 4):
                frame.image.sum()

    return attempt


def _rtsp() -> Attempt:
    """What a server answers to whatever RTSP asks."""
    from edgecnn.runners.live.cameras.camera import open_camera
    from edgecnn.runners.live.cameras.reconnect import Reconnect

    server = OneAnswer()

    def attempt(content: bytes, folder: Path) -> None:
        server.content = content
        policy = Reconnect(stall_s=1.0, give_up_s=0.0)
        with open_camera(f"rtsp://user:word@127.0.0.1:{server.port}/stream", reconnect=policy) as camera:
            next(iter(camera), None)

    return attempt


def _video() -> Attempt:
    """A file of video, read to its end; a hundred frames at most."""
    from edgecnn.runners.live.cameras.camera import open_camera

    def attempt(content: bytes, folder: Path) -> None:
        path = folder / ("video.avi" if content.startswith(b"RIFF") else "video.mp4")
        path.write_bytes(content)
        with open_camera(path) as camera:
            for frame in itertools.islice(camera, 100):
                frame.image.sum()

    return attempt


TARGETS = (
    Target(name="rtsp", title="an RTSP server's answers", prepare=_rtsp, words=_RTSP_WORDS, heavy=True, guided=False),
    Target(name="mjpeg", title="MJPEG over HTTP", prepare=_mjpeg, words=_HTTP_WORDS, heavy=True, guided=False),
    Target(
        name="video",
        title="a video file",
        prepare=_video,
        words=(b"moov", b"trak", b"stsd", b"stsz", b"00dc", b"edts"),
        heavy=True,
        guided=False,
    ),
)
