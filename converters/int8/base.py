"""The interface of a writer of int8 artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from edgecnn.bundle import LayerRecord
from edgecnn.converters.base import Converted
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.results import UInt8Array

Progress = Callable[[int, int], None]


def with_learned(usual: Sequence[RangeMethod], layers: Sequence[LayerRecord]) -> Sequence[RangeMethod]:
    """A format's range methods; "learned" comes first where the network was trained for int8."""
    return ("learned", *usual) if any(layer.learned for layer in layers) else usual


class Int8Writer(Protocol):
    """Writes int8 files from one float32 file, according to plans.

    Attributes:
        layers: names of the torch network's layers that were found in the file and that can be int8 there, in the
            order of execution. A layer that runs more than once (shared weights) appears once.
        range_methods: the values of plan.RangeMethod that it offers, the usual one first.
        corrects_weights: True if it can correct rounded weights; see `Plan`.
        equalisable: names of the layers that it can equalise, after `calibrate`; see
            `edgecnn.converters.int8.search.equalisation`.
        whole_precisions: other precisions that it writes, for the whole network ("int8-dynamic", …).
    """

    layers: Sequence[str]
    range_methods: Sequence[RangeMethod]
    corrects_weights: bool
    whole_precisions: Sequence[str]

    @property
    def equalisable(self) -> Sequence[str]:
        """See the class."""
        ...

    def __init__(self, float_file: Path, layers: Sequence[LayerRecord], *, threads: int) -> None:
        """Read the file and find the layers in it.

        Args:
            float_file: fp32 artifact of this format.
            layers: the torch network's layers, with their weights' fingerprints.
            threads: threads of a calibration run.
        """
        ...

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Collect activation statistics once, for all plans.

        Args:
            frames: uint8 [1, height, width, 3] BGR each, as the artifact takes them.
        """
        ...

    def write(self, plan: Plan, folder: Path) -> Converted:
        """Write `model.SUFFIX` (and its companion files) into `folder`; must be quick: a search calls it often.

        Raises:
            ConversionError: the tool failed; a range is not finite, or a scale is zero.
        """
        ...

    def write_whole(self, precision: str, folder: Path) -> Converted:
        """Write the network in one of `whole_precisions`, after `calibrate`.

        Raises:
            ConversionError: the tool failed.
        """
        ...

    def int8_layers(self, file: Path) -> frozenset[str]:
        """Layers that the runtime really computes in int8 when it opens this file (which `write` wrote).

        The answer comes from the runtime (its optimised graph), not from the plan.
        """
        ...

    def layer_outputs(self, file: Path, frame: UInt8Array) -> Mapping[str, NDArray[Any]]:
        """Each layer's output for one frame, float32, dequantized, before any activation that is not part of it.

        Args:
            file: the float file, a file that `write` wrote from it, or its fp16 version.

        Returns:
            Layer name → array, axes in the format's order; layers that cannot be read in this file are left out.
        """
        ...
