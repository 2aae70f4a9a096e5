"""What GStreamer's loader of Python plug-ins reads; the element is in `edgecnn.runners.gstreamer.element`."""

from gi.repository import Gst

from edgecnn.runners.gstreamer import ELEMENT
from edgecnn.runners.gstreamer.element import Inference

__gstelementfactory__ = (ELEMENT, Gst.Rank.NONE, Inference)
