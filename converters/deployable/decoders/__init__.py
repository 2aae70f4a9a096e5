"""Decoding of raw network heads inside the graph, one file per family."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from edgecnn.errors import UnknownNameError

if TYPE_CHECKING:
    from edgecnn.sources.model import Decode

# --head NAME → the function that decodes this head
HEADS = {
    "nanodet": "edgecnn.converters.deployable.decoders.nanodet:decode_nanodet",
    "softmax": "edgecnn.converters.deployable.decoders.softmax:decode_softmax",
    "ssd": "edgecnn.converters.deployable.decoders.ssd:decode_ssd",
    "yolox": "edgecnn.converters.deployable.decoders.yolox:decode_yolox",
}


def head_decoder(name: str) -> Decode:
    """The function called `name` that turns a network's raw answer into its task's output tensors.

    Raises:
        UnknownNameError: there is no decoder of this name.
    """
    if name not in HEADS:
        raise UnknownNameError("head", name, HEADS)
    module, _, attribute = HEADS[name].partition(":")
    return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
