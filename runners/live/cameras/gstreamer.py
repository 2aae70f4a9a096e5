"""A GStreamer pipeline as a source, with PyGObject: OpenCV's wheels have no GStreamer.

It serves what FFmpeg can't: a board's own decoders and cameras, and network streams without the delay of one frame in
FFmpeg's parser.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import re
import sys
import time
from importlib import import_module
from typing import Any, Final, cast

import numpy as np

from edgecnn.errors import DeviceError, LoginError, MissingDependencyError, SpecError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.base import CameraBase
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.cameras.grabber import FoundRecordingError
from edgecnn.runners.live.cameras.kind import CameraKind, FoundCamera, Opening, Source, Words
from edgecnn.runners.live.cameras.live_camera import open_live
from edgecnn.runners.live.cameras.urls import redacted
from edgecnn.runners.live.frame import Frame, frame_now, plausible_capture_time

PREFIX: Final = "gst:"
OPEN_TIMEOUT_S: Final = 5.0
_STEP_NS: Final = 100_000_000  # interval at which the wait for a frame checks for errors
_SINK: Final = "edgecnn"
_TO_BGR: Final = f"videoconvert ! video/x-raw,format=BGR ! appsink name={_SINK}"
_ELEMENT: Final = re.compile(r"[a-z][a-z0-9_-]*")
_BETWEEN: Final = re.compile(r"\s+!\s+")
_READS_FILES: Final = re.compile(r"\b(multi)?filesrc\b|\bfile://")  # waiting for a missing file makes no sense
_INSTALL: Final = (
    "apt-get install gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good libgirepository1.0-dev libcairo2-dev gcc "
    "pkg-config python3-dev, and pip install 'edgecnn[gstreamer]'"
)


class Pipeline:
    """A running pipeline and its frames, one after the other.

    Args:
        description: as for gst-launch-1.0, without its sink; ends in raw video of any format.
        name: the pipeline's name in errors.
        patience_s: time without a frame after which `grab` gives up.

    Attributes:
        live: True if its source runs at its own rate (a camera); otherwise it waits until each frame is taken.
        fps: frame rate from its caps.
        captured_ns: CLOCK_MONOTONIC time of the last frame, from its time stamp; None where the pipeline isn't live.

    Raises:
        SpecError: the description is not a valid pipeline.
        DeviceError: it doesn't start, or gives no frame in time.
        MissingDependencyError: PyGObject or GStreamer is not installed.
    """

    pixel_format: str | None = None
    notice: str | None = None

    def __init__(self, description: str, name: str, *, patience_s: float) -> None:
        self._gst = gstreamer()
        self._name = name
        self._patience_s = patience_s
        self.captured_ns: int | None = None
        self.fps: float | None = None
        self._said: str | None = None
        self._unauthorized = False
        self._pipeline = self._built(f"{description} ! {_TO_BGR}")
        try:
            self.live = self._started()
            self._first = self._pull(OPEN_TIMEOUT_S)
            if self._first is None:
                reason = self._fault() or f"none in {OPEN_TIMEOUT_S:g} s"
                raise (LoginError if self._unauthorized else DeviceError)(f"{name} gives no frame: {reason}")
            self.fps = _rate(self._first.get_caps().get_structure(0))
        except BaseException:
            self.close()
            raise

    def _built(self, description: str) -> Any:
        try:
            pipeline = self._gst.parse_launch(description)
        except Exception as failed:  # PyGObject's GLib.Error, known only when it is loaded
            reason = redacted(getattr(failed, "message", str(failed)))
            raise SpecError(f"{self._name} is not a valid pipeline here: {reason}") from None
        clock = self._gst.SystemClock.obtain()  # CLOCK_MONOTONIC, the clock of the frames' time stamps
        pipeline.use_clock(clock)
        self._appsink = pipeline.get_by_name(_SINK)
        self._appsink.set_property("sync", False)
        return pipeline

    def _started(self) -> bool:
        """Start it; returns whether it is live."""
        states, changes = self._gst.State, self._gst.StateChangeReturn
        change = self._pipeline.set_state(states.PAUSED)
        if change == changes.ASYNC:
            change = self._pipeline.get_state(round(OPEN_TIMEOUT_S * 1e9))[0]
        if change == changes.FAILURE:
            raise DeviceError(f"{self._name} does not start: {self._fault() or 'GStreamer gives no reason'}")
        live = change == changes.NO_PREROLL
        self._appsink.set_property("drop", live)
        self._appsink.set_property("max-buffers", 1)
        self._pipeline.set_state(states.PLAYING)
        return bool(live)

    def grab(self) -> UInt8Array | None:
        """The next picture, uint8 [height, width, 3] BGR; None at the end, or if none came in time.

        Raises:
            DeviceError: the pipeline failed.
        """
        sample, self._first = self._first or self._pull(self._patience_s), None
        if sample is None:
            if fault := self._fault():
                raise DeviceError(f"{self._name} ended: {fault}")
            return None
        buffer, caps = sample.get_buffer(), sample.get_caps().get_structure(0)
        width, height = caps.get_value("width"), caps.get_value("height")
        self.captured_ns = self._taken_ns(sample, buffer) if self.live else None
        mapped, memory = buffer.map(self._gst.MapFlags.READ)
        if not mapped:
            raise DeviceError(f"{self._name}: a frame can't be read")
        try:
            rows = np.frombuffer(memory.data, np.uint8)[: memory.size].reshape(height, -1)  # rows are padded to 4 bytes
            picture = rows[:, : 3 * width].reshape(height, width, 3)
            return cast(UInt8Array, np.array(picture))
        finally:
            buffer.unmap(memory)

    def _pull(self, timeout_s: float) -> Any:
        """The next sample; None at the end, after an error, or if none came in time."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            sample = self._appsink.try_pull_sample(_STEP_NS)
            if sample is not None or self._appsink.is_eos() or self._fault():
                return sample
        return None

    def _taken_ns(self, sample: Any, buffer: Any) -> int | None:
        if buffer.pts == self._gst.CLOCK_TIME_NONE:
            return None
        running_ns = sample.get_segment().to_running_time(self._gst.Format.TIME, buffer.pts)
        return plausible_capture_time(self._pipeline.get_base_time() + running_ns)

    def _fault(self) -> str | None:
        """Error message of the first element that failed."""
        if self._said is None:
            message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
            error = message.parse_error()[0] if message else None
            self._said = redacted(error.message) if error is not None else None
            resources = self._gst.ResourceError
            self._unauthorized = error is not None and error.matches(resources.quark(), resources.NOT_AUTHORIZED)
        return self._said

    def close(self) -> None:
        """Stop the pipeline and wait until its threads have ended."""
        self._pipeline.set_state(self._gst.State.NULL)


class RecordedPipeline(CameraBase):
    """A pipeline that is not live, as a source: every frame, in order."""

    live = False
    stills = False
    frames_total: int | None = None
    dropped = 0
    remark: str | None = None

    def __init__(self, name: str, pipeline: Pipeline) -> None:
        self.name = name
        self.fps = pipeline.fps
        self._pipeline: Pipeline | None = pipeline
        self._next = 0

    def __next__(self) -> Frame:
        image = self._pipeline.grab() if self._pipeline else None
        if image is None:
            self.close()
            raise StopIteration
        frame = frame_now(image, self._next, self.name)
        self._next += 1
        return frame

    def close(self) -> None:
        """Stop the pipeline; a second call does nothing."""
        if self._pipeline:
            self._pipeline.close()
            self._pipeline = None


def recognise(words: Words) -> Source | None:
    """The source for "gst: v4l2src ! image/jpeg,width=1280 ! jpegdec"."""
    if not (isinstance(words, str) and words.startswith(PREFIX)):
        return None
    return Source(
        name=pipeline_name(words),
        title="a pipeline, whose description contains its settings,",
        open=lambda opening: open_pipeline(words, opening),
    )


def open_pipeline(source: str, opening: Opening) -> Camera:
    """A pipeline ("gst: v4l2src ! image/jpeg,width=1280 ! jpegdec").

    Raises:
        SpecError, MissingDependencyError: as `Pipeline` does.
        DeviceError: it doesn't start, and it reads files or `reconnect` does not wait for it.
    """
    description = source.removeprefix(PREFIX).strip()
    if not description:
        raise SpecError(f"expected a pipeline after {PREFIX}, as for gst-launch-1.0: gst: v4l2src ! jpegdec")
    gstreamer()  # raises for a missing package now, instead of waiting for the source
    name, policy = opening.name, opening.reconnect
    if _READS_FILES.search(description):
        opening = dataclasses.replace(opening, reconnect=dataclasses.replace(policy, give_up_s=0))

    def started() -> Pipeline:
        pipeline = Pipeline(description, name, patience_s=policy.stall_s)
        if not pipeline.live:
            raise FoundRecordingError(RecordedPipeline(name, pipeline))
        return pipeline

    return open_live(opening, started)


def pipeline_name(source: str) -> str:
    """The pipeline's elements, without their properties, which may hold a login."""
    description = source.removeprefix(PREFIX)
    elements = [part.split(maxsplit=1)[0] for part in _BETWEEN.split(description) if part.strip()]
    return f"{PREFIX} {' ! '.join(element for element in elements if _ELEMENT.fullmatch(element))}"


def _rate(caps: Any) -> float | None:
    there, numerator, denominator = caps.get_fraction("framerate")
    return numerator / denominator if there and numerator > 0 and denominator > 0 else None


def gstreamer() -> Any:
    """The module gi.repository.Gst, initialised."""
    _restore_unwinder()
    try:
        gi: Any = import_module("gi")
        gi.require_version("Gst", "1.0")
        gi.require_version("GstApp", "1.0")
        gst: Any = import_module("gi.repository.Gst")
        import_module("gi.repository.GstApp")  # gives an appsink its methods
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("a GStreamer pipeline", missing.name or "gi", install=_INSTALL) from missing
    except (
        ImportError,
        ValueError,
    ) as missing:  # a ValueError where GStreamer's description for PyGObject is not there
        raise MissingDependencyError("a GStreamer pipeline", "GStreamer", install=_INSTALL) from missing
    if not gst.is_initialized():
        gst.init(None)
    return gst


def _restore_unwinder() -> None:
    """Let C++ exceptions of other libraries find their own unwinder.

    GStreamer loads libunwind, whose _Unwind_Resume is found before the compiler's once it is loaded globally: OpenVINO,
    which throws and catches exceptions while it looks for devices, then crashes the process.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # systems with another compiler's library don't have this conflict
            ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)


def found() -> list[FoundCamera]:
    """Whether pipelines can be built here."""
    try:
        version = ".".join(map(str, gstreamer().version()[:3]))
    except MissingDependencyError as missing:
        why = str(missing).partition(":")[0]
        return [FoundCamera(kind=KIND.name, source=KIND.form, works=False, why=why, needs=_INSTALL)]
    return [FoundCamera(kind=KIND.name, source=KIND.form, device_name=f"GStreamer {version}", works=True)]


KIND: Final = CameraKind(
    name="gstreamer",
    form="gst: ELEMENT ! ELEMENT",
    about="a GStreamer pipeline, without its sink",
    recognise=recognise,
    found=found,
    extra="gstreamer",
)
