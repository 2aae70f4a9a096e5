"""The verbs that a flow calls, passed in by its caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecnn.converters.quantize_bundle import Conversion
    from edgecnn.flow.evaluation import Evaluation
    from edgecnn.pruning.pruning import Pruning
    from edgecnn.training.training import Training


@dataclass(frozen=True, kw_only=True)
class Verbs:
    """Public functions of these names; a stage is one call of one of them."""

    train: Callable[..., Training]
    prune: Callable[..., Pruning]
    convert: Callable[..., Conversion]
    quantize: Callable[..., Conversion]
    evaluate: Callable[..., Evaluation]
