"""How to build a network again, bare: what a saved model holds where others pickle code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from edgecnn.evidence import Record

if TYPE_CHECKING:
    from edgecnn.sources import TrainedModel


class Blueprint(Record, frozen=True, kw_only=True):
    """Words that build a network.

    Attributes:
        model: as the user named it: "yolox-nano", "torchvision:resnet18", "package.module:factory".
        labels: class names; their count decides how wide the last layers are.
        size: (height, width) of the frame in px.
        task, decode: of the user's own factory, as the user said; "" where it says so itself.
        head: what was grown on a classifier's body ("ssdlite", "lraspp"); "" for none.
        activations: what stands for those that quantize badly ("relu", "relu6"); "" for the network's own.
    """

    model: str
    labels: tuple[str, ...]
    size: tuple[int, int]
    task: str = ""
    decode: str = ""
    head: str = ""
    activations: str = ""

    def build(self) -> TrainedModel:
        """The network with random weights, the same every time.

        Raises:
            EdgeCnnError: as `load_model` does.
        """
        from edgecnn.sources import load_model
        from edgecnn.sources.activations import replace_activations
        from edgecnn.sources.heads import grow_head

        if self.head:
            built = grow_head(load_model(self.model), self.head, labels=self.labels, size=self.size)
        else:
            said = {"task": self.task or None, "head": self.decode or None}
            built = load_model(self.model, labels=self.labels, size=self.size, **said)
        if self.activations:
            built = replace_activations(built, self.activations)
        return replace(built, blueprint=self, warnings=())

    def with_labels(self, labels: tuple[str, ...]) -> Blueprint:
        """The same network for other classes."""
        return msgspec.structs.replace(self, labels=labels)
