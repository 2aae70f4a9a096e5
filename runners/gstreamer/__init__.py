"""The GStreamer element `edgecnninfer`: results on the buffers of other people's pipelines.

`python -m edgecnn.runners.gstreamer` prints the folder for GST_PLUGIN_PATH; a Python program calls `register()`.
"""

from __future__ import annotations

from pathlib import Path

from edgecnn.runners.gstreamer.attached import ELEMENT

__all__ = ["ELEMENT", "plugin_folder", "register"]


def plugin_folder() -> Path:
    """The folder for GST_PLUGIN_PATH: GStreamer's loader of Python plug-ins looks into its `python`."""
    return Path(__file__).parent / "plugin"


def register() -> None:
    """Make the element known to GStreamer in this process; a second call does nothing.

    Raises:
        MissingDependencyError: PyGObject or GStreamer is not installed.
    """
    from edgecnn.runners.live.cameras.gstreamer import gstreamer

    gst = gstreamer()
    if gst.ElementFactory.find(ELEMENT) is None:
        from edgecnn.runners.gstreamer.element import Inference

        gst.Element.register(None, ELEMENT, gst.Rank.NONE, Inference)
