"""Records annotated frames: a video for a video or a camera, a file or a folder for pictures."""

from __future__ import annotations

from pathlib import Path

from edgecnn.runners.live.recording.rotation import Rotation
from edgecnn.runners.live.recording.writer import SUFFIXES
from edgecnn.runners.live.sinks import Sink
from edgecnn.runners.live.sinks.kind import Setting
from edgecnn.runners.live.sinks.picture_files import PictureSink
from edgecnn.runners.live.sinks.switched import SwitchedSink
from edgecnn.runners.live.sinks.video import UNKNOWN_FPS, VideoSink


def open_record(path: str | Path, setting: Setting) -> Sink:
    """The sink for this source."""
    path, camera = Path(path), setting.camera
    if camera.stills and path.suffix.lower() not in SUFFIXES:
        return PictureSink(path)
    if camera.fps is None and path.suffix.lower() == ".avi":  # other containers store a time for each frame
        setting.report(f"the source declares no frame rate: {path.name} gets {UNKNOWN_FPS:g} frames per second")
    rotation = Rotation.parse(setting.words.get("rotate"), setting.words.get("keep"))
    controls = setting.controls

    def make() -> Sink:
        return VideoSink(path, fps=camera.fps or UNKNOWN_FPS, live=camera.live, rotation=rotation)

    if controls is None or not setting.words.get("home_assistant"):
        return make()
    return SwitchedSink(make, lambda: controls.recording)
