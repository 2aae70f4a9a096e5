"""Decoding of raw network heads inside the graph, one file per family."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from edgecnn.errors import UnknownNameError

if TYPE_CHECKING:
    from edgecnn.sources import Decode

# --head NAME → what it decodes with
HEADS = {
    "softmax": "edgecnn.converters.heads.softmax:decode_softmax",
    "ssd": "edgecnn.converters.heads.ssd:decode_ssd",
    "yolox": "edgecnn.converters.heads.yolox:decode_yolox",
}


def head_decoder(name: str) -> Decode:
    """The decoding called `name`: a network's raw answer → its task's output tensors.

    Raises:
        UnknownNameError: there is none of this name.
    """
    if name not in HEADS:
        raise UnknownNameError("head", name, HEADS)
    module, _, attribute = HEADS[name].partition(":")
    return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
