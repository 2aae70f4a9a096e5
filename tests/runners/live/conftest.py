"""Pictures, videos and a stream of a moving square, whose place is known in every frame."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
import pytest

from edgecnn._verbs import run as verb
from edgecnn._verbs.run import run
from edgecnn.bundle.evidence import Opened
from edgecnn.results import Detections, UInt8Array
from edgecnn.runners.live.frame import Frame, frame_now, image_of
from edgecnn.runners.live.run_summary import RunSummary
from edgecnn.runners.runner import StageTimes
from edgecnn.tasks import Detect

if TYPE_CHECKING:
    from .web_page import Page

WIDTH_PX, HEIGHT_PX, SIDE_PX = 160, 120, 24
LABELS = ("square", "circle")


def square_at(index: int) -> tuple[int, int]:
    """Left and top of the square in frame `index`."""
    return 4 * (index % 33), 2 * (index % 47)


def square_frame(index: int) -> UInt8Array:
    """A grey picture with a white square."""
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), 60, np.uint8)
    left, top = square_at(index)
    image[top : top + SIDE_PX, left : left + SIDE_PX] = 255
    return image


def find_square(image: UInt8Array) -> tuple[int, int]:
    """Left and top of the white square, from the pixels."""
    rows, columns = np.nonzero(image[:, :, 1] > 160)
    return int(columns.min()), int(rows.min())


class SquareRunner:
    """Finds the square, as a network would; takes its time if asked to."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.stage_times = StageTimes(1000, 2000, 3000)

    def __call__(self, picture: UInt8Array | Frame) -> Detections:
        time.sleep(self.seconds)
        left, top = find_square(image_of(picture))
        box = np.array([[left, top, left + SIDE_PX, top + SIDE_PX]], np.float32)
        return Detections(box, np.array([0.9], np.float32), np.array([0]), ("square",))


class OpenRunner(SquareRunner):
    """What `open_runner` gives, as far as `run` looks at it."""

    format, precision, why_chosen = "fake", "fp32", ""
    task = Detect(labels=LABELS)
    backend = SimpleNamespace(
        opened=Opened(device_name="test", runtime="none", provider="none", precision="fp32", threads=1)
    )

    def __enter__(self) -> OpenRunner:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def run_squares(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run` without a bundle: the network is one that finds squares."""
    monkeypatch.setattr(verb, "open_runner", lambda *_, **__: OpenRunner())

    def run_it(source: str | Path, **words: Any) -> RunSummary:
        return run("no.edge", source, **words)

    return run_it


def until(true: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{true} is not so after {seconds} s"
        time.sleep(0.005)


class ScriptedCamera:
    """A live camera whose frames come when the test says so; green tells which frame it is, blue which camera."""

    live, stills = True, False
    fps: float | None = None
    frames_total: int | None = None
    dropped = 0
    remark: str | None = None

    def __init__(self, number: int = 0) -> None:
        self.name = f"script {number}"
        self._number, self._shown = number, 0
        self._waiting: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()

    def show(self, count: int = 1, *, age_ms: float = 0, taken_ns: int | None = None) -> int:
        """So many more frames, taken so long ago, or then; the index of the last."""
        for _ in range(count):
            image = np.full((8, 8, 3), (self._number, self._shown % 256, 0), np.uint8)
            now = frame_now(image, self._shown, self.name)
            old_ns = int(age_ms * 1e6) if taken_ns is None else now.captured_ns - taken_ns
            self._waiting.put(
                Frame(image, now.index, now.captured_ns - old_ns, now.captured_unix_ns - old_ns, self.name)
            )
            self._shown += 1
        return self._shown - 1

    def close(self) -> None:
        """No more frames."""
        self._waiting.put(None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        frame = self._waiting.get()
        if frame is None:
            raise StopIteration
        return frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HeldRunner:
    """A network that answers when it is let; an answer's only box tells the frame and the camera.

    Attributes:
        begun: (camera, frame) of each call, in order.
    """

    def __init__(self, *, held: bool = True) -> None:
        self.stage_times = StageTimes(1000, 2000, 3000)
        self.begun: list[tuple[int, int]] = []
        self._may = threading.Semaphore(0) if held else None

    def let(self, count: int = 1) -> None:
        """Answer so many frames."""
        assert self._may is not None
        self._may.release(count)

    def __call__(self, picture: UInt8Array | Frame) -> Detections:
        image = image_of(picture)
        number, index = int(image[0, 0, 0]), int(image[0, 0, 1])
        self.begun.append((number, index))
        if self._may is not None:
            assert self._may.acquire(timeout=60)
        box = np.array([[number, index, number + 1, index + 1]], np.float32)
        return Detections(box, np.array([0.9], np.float32), np.array([0]), ("frame",))


def write_video(path: Path, *, frames: int, fps: float = 20.0) -> Path:
    """A Motion JPEG file of the moving square."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (WIDTH_PX, HEIGHT_PX))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(square_frame(index))
    writer.release()
    return path


def count_frames(path: Path) -> int:
    """How many frames of a video OpenCV can read."""
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


class StreamServer(ThreadingHTTPServer):
    """MJPEG over HTTP on loopback: /stream goes on, /short ends after 5 frames, any other path is a file.

    /silent gives 5 frames and then nothing, on a connection that stays. Where `port` is given, it may be that of a
    server that has just been closed.
    """

    allow_reuse_address = True

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path, *, port: int = 0, scale: int = 1) -> None:
        super().__init__(("127.0.0.1", port), _StreamHandler)
        self.folder = folder
        self.fps = 50.0
        self.closed = False
        self.parts = [_part(index, scale) for index in range(33 * 47 if scale == 1 else 50)]

    def start(self) -> None:
        """Serve, in a thread."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def kill(self) -> None:
        """End at once: streams that run are cut off."""
        self.closed = True
        self.shutdown()
        self.server_close()

    def url(self, path: str, *, login: str = "") -> str:
        """Address of a path on this server."""
        return f"http://{login}127.0.0.1:{self.server_address[1]}/{path}"


class _StreamHandler(BaseHTTPRequestHandler):
    server: StreamServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        """Serve a stream or a file."""
        name = self.path.partition("?")[0].lstrip("/")
        try:
            if name in {"stream", "short", "silent"}:
                self._stream(None if name == "stream" else 5)
                while name == "silent" and not self.server.closed:
                    time.sleep(0.02)
            elif (self.server.folder / name).is_file():
                data = (self.server.folder / name).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            else:
                self.send_error(404)
        except OSError:
            pass  # the reader has gone

    def _stream(self, frames: int | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        start = time.monotonic()
        index = 0
        while (frames is None or index < frames) and not self.server.closed:
            self.wfile.write(self.server.parts[index % len(self.server.parts)])
            index += 1
            time.sleep(max(0.0, start + index / self.server.fps - time.monotonic()))


def _part(index: int, scale: int) -> bytes:
    image = square_frame(index)
    jpeg = cv2.imencode(".jpg", cv2.resize(image, None, fx=scale, fy=scale) if scale > 1 else image)[1].tobytes()
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg)


@pytest.fixture
def stream_server(tmp_path: Path) -> Iterator[StreamServer]:
    """A running server; serves files from `tmp_path`."""
    server = StreamServer(tmp_path)
    server.start()
    yield server
    if not server.closed:
        server.kill()


@pytest.fixture
def page() -> Iterator[Page]:
    """A live page that is served."""
    from .web_page import served  # needs the extra [web], which the other tests don't

    with served() as page:
        yield page
