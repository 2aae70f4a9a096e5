"""edgecnn: from a trained PyTorch CNN to a real-time program on an edge device.

Importing it loads neither torch nor a runtime: names are found on first use.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Runtimes that report their use over the network, unless told not to: OpenVINO through this package, which it takes for
# absent now; ONNX Runtime by itself, with a device id that it writes into the user's cache.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from edgecnn._verbs.bench import bench
    from edgecnn._verbs.compress import compress
    from edgecnn._verbs.convert import convert
    from edgecnn._verbs.demo import demo
    from edgecnn._verbs.devices import devices
    from edgecnn._verbs.evaluate import evaluate
    from edgecnn._verbs.inspect import compare_layers, inspect
    from edgecnn._verbs.on_boards import bench_on, devices_on, evaluate_on
    from edgecnn._verbs.prune import prune
    from edgecnn._verbs.quantize import quantize
    from edgecnn._verbs.run import run
    from edgecnn._verbs.train import train
    from edgecnn._verbs.versus import evaluate_versus
    from edgecnn.bundle import Bundle
    from edgecnn.errors import EdgeCnnError
    from edgecnn.frame import FrameSpec
    from edgecnn.results import Classification, Detections, Instances, SegmentationMap
    from edgecnn.runners.base import Runner, open_runner
    from edgecnn.runners.live.asynchronous import live_async
    from edgecnn.runners.live.background import LiveLoop, start_live
    from edgecnn.runners.live.camera import Frame, open_camera
    from edgecnn.runners.live.capture_spec import CaptureSpec
    from edgecnn.runners.live.counting import LineCounter, ZoneCounter
    from edgecnn.runners.live.loop import LiveCounters, live
    from edgecnn.runners.live.reconnect import Reconnect
    from edgecnn.runners.live.track import Tracker
    from edgecnn.sources import TrainedModel, load_model
    from edgecnn.tasks import Classify, Detect, InstanceSegment, Segment

_HOMES = {
    "Bundle": "edgecnn.bundle",
    "CaptureSpec": "edgecnn.runners.live.capture_spec",
    "Classification": "edgecnn.results",
    "Classify": "edgecnn.tasks",
    "Detect": "edgecnn.tasks",
    "Detections": "edgecnn.results",
    "EdgeCnnError": "edgecnn.errors",
    "Frame": "edgecnn.runners.live.camera",
    "FrameSpec": "edgecnn.frame",
    "InstanceSegment": "edgecnn.tasks",
    "Instances": "edgecnn.results",
    "LineCounter": "edgecnn.runners.live.counting",
    "LiveCounters": "edgecnn.runners.live.loop",
    "LiveLoop": "edgecnn.runners.live.background",
    "Reconnect": "edgecnn.runners.live.reconnect",
    "Runner": "edgecnn.runners.base",
    "Segment": "edgecnn.tasks",
    "SegmentationMap": "edgecnn.results",
    "Tracker": "edgecnn.runners.live.track",
    "TrainedModel": "edgecnn.sources",
    "ZoneCounter": "edgecnn.runners.live.counting",
    "bench": "edgecnn._verbs.bench",
    "bench_on": "edgecnn._verbs.on_boards",
    "compare_layers": "edgecnn._verbs.inspect",
    "compress": "edgecnn._verbs.compress",
    "convert": "edgecnn._verbs.convert",
    "demo": "edgecnn._verbs.demo",
    "devices": "edgecnn._verbs.devices",
    "devices_on": "edgecnn._verbs.on_boards",
    "evaluate": "edgecnn._verbs.evaluate",
    "evaluate_on": "edgecnn._verbs.on_boards",
    "evaluate_versus": "edgecnn._verbs.versus",
    "inspect": "edgecnn._verbs.inspect",
    "live": "edgecnn.runners.live.loop",
    "live_async": "edgecnn.runners.live.asynchronous",
    "load_model": "edgecnn.sources",
    "open_camera": "edgecnn.runners.live.camera",
    "open_runner": "edgecnn.runners.base",
    "prune": "edgecnn._verbs.prune",
    "quantize": "edgecnn._verbs.quantize",
    "run": "edgecnn._verbs.run",
    "start_live": "edgecnn.runners.live.background",
    "train": "edgecnn._verbs.train",
}

__all__ = [
    "Bundle",
    "CaptureSpec",
    "Classification",
    "Classify",
    "Detect",
    "Detections",
    "EdgeCnnError",
    "Frame",
    "FrameSpec",
    "InstanceSegment",
    "Instances",
    "LineCounter",
    "LiveCounters",
    "LiveLoop",
    "Reconnect",
    "Runner",
    "Segment",
    "SegmentationMap",
    "Tracker",
    "TrainedModel",
    "ZoneCounter",
    "__version__",
    "bench",
    "bench_on",
    "compare_layers",
    "compress",
    "convert",
    "demo",
    "devices",
    "devices_on",
    "evaluate",
    "evaluate_on",
    "evaluate_versus",
    "inspect",
    "live",
    "live_async",
    "load_model",
    "open_camera",
    "open_runner",
    "prune",
    "quantize",
    "run",
    "start_live",
    "train",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
