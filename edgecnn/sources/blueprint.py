"""Describes how to build a network again; saved models hold this instead of pickled code."""

from __future__ import annotations

import msgspec

from edgecnn.bundle.evidence import Record


class Blueprint(Record, frozen=True, kw_only=True):
    """Arguments that build a network.

    Attributes:
        model: as the user named it: "yolox-nano", "torchvision:resnet18", "package.module:factory".
        labels: class names; their number decides the width of the last layers.
        size: (height, width) of the frame in px.
        task, decode: for the user's own factory, as given by the user; "" where the factory gives them.
        head: the head added to a classifier ("ssdlite", "lraspp"); "" for none.
        activations: replacement of activations that quantize badly ("relu", "relu6"); "" for the network's own.
    """

    model: str
    labels: tuple[str, ...]
    size: tuple[int, int]
    task: str = ""
    decode: str = ""
    head: str = ""
    activations: str = ""

    def with_labels(self, labels: tuple[str, ...]) -> Blueprint:
        """The same network for other classes."""
        return msgspec.structs.replace(self, labels=labels)
