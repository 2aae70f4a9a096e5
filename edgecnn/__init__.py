"""edgecnn: from a trained PyTorch CNN to a real-time program on an edge device.

Importing it loads neither torch nor a runtime: names are found on first use.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgecnn._version import __version__

# Runtimes that report their use over the network unless that is turned off: OpenVINO through this package, which now
# seems to be missing; ONNX Runtime itself, with a device id that it writes into the user's cache.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from edgecnn._verbs.bench import bench
    from edgecnn._verbs.compare import compare
    from edgecnn._verbs.compress import compress
    from edgecnn._verbs.convert import convert
    from edgecnn._verbs.data import check_data
    from edgecnn._verbs.demo import demo
    from edgecnn._verbs.deploy import deploy
    from edgecnn._verbs.devices import devices
    from edgecnn._verbs.evaluate import evaluate
    from edgecnn._verbs.fleet import fleet
    from edgecnn._verbs.inspect import compare_layers, inspect
    from edgecnn._verbs.on_boards import bench_on, devices_on, evaluate_on
    from edgecnn._verbs.prune import prune
    from edgecnn._verbs.quantize import quantize
    from edgecnn._verbs.run import run
    from edgecnn._verbs.run_site import run_site
    from edgecnn._verbs.sign import sign
    from edgecnn._verbs.train import train
    from edgecnn._verbs.verify import verify
    from edgecnn._verbs.versus import evaluate_versus
    from edgecnn.bundle import Bundle
    from edgecnn.errors import EdgeCnnError
    from edgecnn.frame import FrameSpec
    from edgecnn.results import Classification, Detections, Instances, SegmentationMap
    from edgecnn.runners.live.cameras.camera import Frame, open_camera
    from edgecnn.runners.live.cameras.capture_spec import CaptureSpec
    from edgecnn.runners.live.cameras.reconnect import Reconnect
    from edgecnn.runners.live.loop.asynchronous import live_async
    from edgecnn.runners.live.loop.background import LiveLoop, start_live
    from edgecnn.runners.live.loop.counters import LiveCounters
    from edgecnn.runners.live.loop.newest import live
    from edgecnn.runners.live.tracking.counting import LineCounter, ZoneCounter
    from edgecnn.runners.live.tracking.tracker import Tracker
    from edgecnn.runners.runner import Runner, open_runner
    from edgecnn.sources.load import load_model
    from edgecnn.sources.model import TrainedModel
    from edgecnn.tasks import Classify, Detect, InstanceSegment, Segment

_HOMES = {
    "Bundle": "edgecnn.bundle",
    "CaptureSpec": "edgecnn.runners.live.cameras.capture_spec",
    "Classification": "edgecnn.results",
    "Classify": "edgecnn.tasks",
    "Detect": "edgecnn.tasks",
    "Detections": "edgecnn.results",
    "EdgeCnnError": "edgecnn.errors",
    "Frame": "edgecnn.runners.live.cameras.camera",
    "FrameSpec": "edgecnn.frame",
    "InstanceSegment": "edgecnn.tasks",
    "Instances": "edgecnn.results",
    "LineCounter": "edgecnn.runners.live.tracking.counting",
    "LiveCounters": "edgecnn.runners.live.loop.counters",
    "LiveLoop": "edgecnn.runners.live.loop.background",
    "Reconnect": "edgecnn.runners.live.cameras.reconnect",
    "Runner": "edgecnn.runners.runner",
    "Segment": "edgecnn.tasks",
    "SegmentationMap": "edgecnn.results",
    "Tracker": "edgecnn.runners.live.tracking.tracker",
    "TrainedModel": "edgecnn.sources",
    "ZoneCounter": "edgecnn.runners.live.tracking.counting",
    "bench": "edgecnn._verbs.bench",
    "bench_on": "edgecnn._verbs.on_boards",
    "check_data": "edgecnn._verbs.data",
    "compare": "edgecnn._verbs.compare",
    "compare_layers": "edgecnn._verbs.inspect",
    "compress": "edgecnn._verbs.compress",
    "convert": "edgecnn._verbs.convert",
    "demo": "edgecnn._verbs.demo",
    "deploy": "edgecnn._verbs.deploy",
    "devices": "edgecnn._verbs.devices",
    "devices_on": "edgecnn._verbs.on_boards",
    "evaluate": "edgecnn._verbs.evaluate",
    "evaluate_on": "edgecnn._verbs.on_boards",
    "evaluate_versus": "edgecnn._verbs.versus",
    "fleet": "edgecnn._verbs.fleet",
    "inspect": "edgecnn._verbs.inspect",
    "live": "edgecnn.runners.live.loop.newest",
    "live_async": "edgecnn.runners.live.loop.asynchronous",
    "load_model": "edgecnn.sources",
    "open_camera": "edgecnn.runners.live.cameras.camera",
    "open_runner": "edgecnn.runners.runner",
    "prune": "edgecnn._verbs.prune",
    "quantize": "edgecnn._verbs.quantize",
    "run": "edgecnn._verbs.run",
    "run_site": "edgecnn._verbs.run_site",
    "sign": "edgecnn._verbs.sign",
    "start_live": "edgecnn.runners.live.loop.background",
    "train": "edgecnn._verbs.train",
    "verify": "edgecnn._verbs.verify",
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
    "check_data",
    "compare",
    "compare_layers",
    "compress",
    "convert",
    "demo",
    "deploy",
    "devices",
    "devices_on",
    "evaluate",
    "evaluate_on",
    "evaluate_versus",
    "fleet",
    "inspect",
    "live",
    "live_async",
    "load_model",
    "open_camera",
    "open_runner",
    "prune",
    "quantize",
    "run",
    "run_site",
    "sign",
    "start_live",
    "train",
    "verify",
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
