"""What a writer of int8 artifacts owes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from edgecnn.bundle import LayerRecord
from edgecnn.compression.plan import Plan, RangeMethod
from edgecnn.converters.base import Converted
from edgecnn.results import UInt8Array

Progress = Callable[[int, int], None]


def with_learned(usual: Sequence[RangeMethod], layers: Sequence[LayerRecord]) -> Sequence[RangeMethod]:
    """A format's range methods, with "learned" where the network was trained for int8."""
    return ("learned", *usual) if any(layer.learned for layer in layers) else usual


class Int8Writer(Protocol):
    """Writes int8 files from one float32 file, according to plans.

    Attributes:
        layers: names of the torch network's layers that it found in the file and that can be int8 there, in the
            order of execution. A layer that runs more than once (shared weights) stands once.
        range_methods: those of plan.RangeMethod that it offers, the usual one first.
        corrects_weights: whether it can; see `Plan`.
        whole_precisions: other precisions that it writes, for the whole network ("int8-dynamic", …).
    """

    layers: Sequence[str]
    range_methods: Sequence[RangeMethod]
    corrects_weights: bool
    whole_precisions: Sequence[str]

    def __init__(self, float_file: Path, layers: Sequence[LayerRecord], *, threads: int) -> None:
        """Read the file and find the layers in it.

        Args:
            float_file: fp32 artifact of this format.
            layers: of the torch network, with their weights' fingerprints.
            threads: for calibration runs.
        """
        ...

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Collect activation statistics, once, for all plans.

        Args:
            frames: uint8 [1, height, width, 3] BGR each, as they go into the artifact.
        """
        ...

    def write(self, plan: Plan, folder: Path) -> Converted:
        """Write `model.SUFFIX` (and what lies beside it) into `folder`, as fast as can be: a search calls this often.

        Raises:
            ConversionError: the tool failed; a range is not finite, or a scale is zero.
        """
        ...

    def write_whole(self, precision: str, folder: Path) -> Converted:
        """Write the network in one of `whole_precisions`; it has been calibrated.

        Raises:
            ConversionError: the tool failed.
        """
        ...

    def int8_layers(self, file: Path) -> frozenset[str]:
        """Layers that the runtime really computes in int8 when it opens this file (which `write` wrote).

        Asked of the runtime (its optimised graph), not read off the plan.
        """
        ...

    def layer_outputs(self, file: Path, frame: UInt8Array) -> Mapping[str, NDArray[Any]]:
        """Each layer's output for one frame, float32, dequantized, before any activation that is not part of it.

        Args:
            file: the float file, or one that `write` wrote from it, or its fp16 twin.

        Returns:
            Layer name → array, axes as the format has them; layers that cannot be read in this file are left out.
        """
        ...
