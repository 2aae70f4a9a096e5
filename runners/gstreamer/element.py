"""The element itself; importing this needs PyGObject."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any, ClassVar

from edgecnn.errors import EdgeCnnError, SpecError
from edgecnn.results import Result
from edgecnn.runners.gstreamer import attached, buffers
from edgecnn.runners.live.cameras.gstreamer import gstreamer
from edgecnn.runners.live.frame import Frame, frame_now
from edgecnn.runners.live.tracking.tracked_runner import TrackedRunner
from edgecnn.runners.live.tracking.tracker import DEFAULT_FPS, Tracker
from edgecnn.runners.runner import Runner, open_runner

Gst: Any = gstreamer()


def _loaded(name: str) -> Any:
    gi: Any = import_module("gi")
    gi.require_version(name, "1.0")
    return import_module(f"gi.repository.{name}")


GObject: Any = import_module("gi.repository.GObject")
GLib: Any = import_module("gi.repository.GLib")
GstBase: Any = _loaded("GstBase")
GstVideo: Any = _loaded("GstVideo")
_CAPS: str = "video/x-raw,format=BGR,width=[1,32768],height=[1,32768]"
_TEXTS = {
    "bundle": "a bundle (NAME.edge), or the name of a network that ships",
    "device": "as --device of edgecnn run",
    "format": "as --format; empty: the first that is there",
    "precision": "as --precision; empty: fp32 where it is there",
    "trusted-key": "open only a bundle that this public key (a file) signed",
}
_DEFAULTS: dict[str, Any] = {"bundle": "default-detector", "device": "cpu"}


def _properties() -> dict[str, Any]:
    write = GObject.ParamFlags.READWRITE
    texts = {name: (str, name, about, _DEFAULTS.get(name, ""), write) for name, about in _TEXTS.items()}
    return texts | {
        "threads": (int, "threads", "threads per inference; 0: the cores that the process may use", 0, 1024, 0, write),
        "score": (float, "score", "a detector's score threshold; negative: the bundle's", -1.0, 1.0, -1.0, write),
        "nms-iou": (float, "nms-iou", "a detector's NMS threshold; negative: the bundle's", -1.0, 1.0, -1.0, write),
        "track": (bool, "track", "give objects ids that they keep", False, write),
        "overlay": (bool, "overlay", "draw the result on the picture", False, write),
        "messages": (bool, "messages", "post each result as JSON on the bus", True, write),
    }


_PROPERTIES = _properties()
_METADATA = (
    "Inference with edgecnn",
    "Filter/Analyzer/Video",
    "Runs a network of edgecnn on each picture, and passes it on with the result",
    "The edgecnn developers",
)
_TEMPLATES = tuple(
    Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, Gst.Caps.from_string(_CAPS))
    for name, direction in (("sink", Gst.PadDirection.SINK), ("src", Gst.PadDirection.SRC))
)


class Inference(GstBase.BaseTransform):  # type: ignore[misc] # PyGObject's classes are not known
    """Runs a network on each buffer, and passes it on with the result.

    Buffers that are late by a sink's clock are dropped (QoS). What fails ends the pipeline with an error on its bus.
    """

    __gtype_name__ = "EdgecnnInference"
    __gstmetadata__ = _METADATA
    __gsttemplates__ = _TEMPLATES
    __gproperties__: ClassVar[dict[str, Any]] = _PROPERTIES

    def __init__(self) -> None:
        super().__init__()
        self._values = {name: words[-2] for name, words in _PROPERTIES.items()}
        self._runner: Runner | None = None
        self._called: Runner | TrackedRunner | None = None
        self._layout: dict[str, int] = {}
        self._fps = DEFAULT_FPS
        self._index = 0
        self._first_seen_ns: dict[int, int] = {}
        self._free = threading.Lock()  # the state changes in another thread than buffers come
        self.set_in_place(True)
        self.set_qos_enabled(True)

    def do_get_property(self, prop: Any) -> Any:
        """For GObject."""
        return self._values[prop.name]

    def do_set_property(self, prop: Any, value: Any) -> None:
        """For GObject; counts from the next start on."""
        self._values[prop.name] = value

    def do_start(self) -> bool:
        """Open the network."""
        try:
            with self._free:
                self._open()
            return True
        except EdgeCnnError as failed:
            self._fail(str(failed), Gst.ResourceError.quark(), Gst.ResourceError.OPEN_READ)
            return False

    def _open(self) -> None:
        given = {name: value or None for name, value in self._values.items()}
        score, nms_iou = self._values["score"], self._values["nms-iou"]
        self._runner = open_runner(
            self._values["bundle"],
            device=self._values["device"],
            format=given["format"],
            precision=given["precision"],
            threads=given["threads"],
            score=None if score < 0 else score,
            nms_iou=None if nms_iou < 0 else nms_iou,
            trusted_keys=[given["trusted-key"]] if given["trusted-key"] else None,
        )
        if self._values["track"] and not self._runner.task.finds_objects():
            task = self._runner.task.name
            self._runner.close()
            self._runner = None
            raise SpecError(f"track: only objects can be tracked, but this network's task is {task}")
        self._called, self._index = None, 0

    def do_stop(self) -> bool:
        """Close the network."""
        with self._free:
            if self._runner is not None:
                self._runner.close()
            self._runner = self._called = None
        return True

    def do_set_caps(self, given: Any, made: Any) -> bool:
        """Learn the size and the rate of pictures."""
        info = GstVideo.VideoInfo.new_from_caps(given)
        if info is None:
            return False
        self._layout = {
            "width_px": info.width,
            "height_px": info.height,
            "offset": info.offset[0],
            "stride": info.stride[0],
        }
        self._fps = info.fps_n / info.fps_d if info.fps_n > 0 and info.fps_d > 0 else DEFAULT_FPS
        self._called = None  # another picture: objects are followed anew
        return True

    def do_prepare_output_buffer(self, given: Any) -> tuple[Any, Any]:
        """The buffer that is passed on; the one that came may be somebody else's too, so nothing is added to it."""
        try:
            with self._free:
                return Gst.FlowReturn.OK, self._answered(given)
        except EdgeCnnError as failed:
            self._fail(str(failed), Gst.StreamError.quark(), Gst.StreamError.FAILED)
        except Exception as failed:  # PyGObject would print it, and the pipeline would go on without it
            self._fail(f"{type(failed).__name__}: {failed}", Gst.LibraryError.quark(), Gst.LibraryError.FAILED)
        return Gst.FlowReturn.ERROR, None

    def do_transform_ip(self, buffer: Any) -> Any:
        """All is done: see `do_prepare_output_buffer`."""
        return Gst.FlowReturn.OK

    def _answered(self, given: Any) -> Any:
        layout, meta = dict(self._layout), GstVideo.buffer_get_video_meta(given)
        if meta is not None:
            layout |= {"offset": meta.offset[0], "stride": meta.stride[0]}
        picture = buffers.picture_in(given, **layout)
        pts_ns = None if given.pts == Gst.CLOCK_TIME_NONE else given.pts
        frame = frame_now(picture, self._index, self.get_name(), media_ns=pts_ns)
        self._index += 1
        result = self._result(frame)
        if self._values["overlay"]:
            place = {"offset": layout["offset"], "stride": layout["stride"]}
            made = buffers.with_picture(given, result.draw(picture), **place)
        else:
            made = buffers.shared_copy(given)
        assert self._runner is not None
        times: dict[str, Any] = {"now_ns": pts_ns or 0, "first_seen_ns": self._first_seen_ns}
        task = self._runner.task
        scores = task.figures(result) if task.labels_whole_picture else {}
        attached.attach(made, task.objects(result), scores, **times)
        if self._values["messages"]:
            self.post_message(attached.message_with(self, attached.json_of(result, pts_ns)))
        return made

    def _result(self, frame: Frame) -> Result:
        if self._runner is None:
            raise SpecError(f"{self.get_name()} gets a buffer and was not started")
        if self._called is None:
            tracked = self._values["track"]
            self._first_seen_ns = {}
            self._called = TrackedRunner(self._runner, Tracker(fps=self._fps)) if tracked else self._runner
        return self._called(frame)

    def _fail(self, message: str, domain: int, code: int) -> None:
        """Post an error, which ends the pipeline."""
        error = GLib.Error.new_literal(domain, message, int(code))
        self.post_message(Gst.Message.new_error(self, error, f"{attached.ELEMENT}: {self.get_name()}"))


# GStreamer's own additions to PyGObject read the class's attributes; without them, as from PyPI, this does it.
Inference.set_metadata(*_METADATA)
for _template in _TEMPLATES:
    Inference.add_pad_template(_template)
