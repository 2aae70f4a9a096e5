"""Remove the least important channels of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgecnn import options
from edgecnn.options import Option, kinds
from edgecnn.pruning.narrowing import Cost
from edgecnn.pruning.pruning import Pruning, prune_network

if TYPE_CHECKING:
    from typing import Unpack

    from edgecnn.training.settings import TrainSettings

__all__ = ["Pruning", "prune"]

Progress = Callable[[int, int, str], None]
_TUNING = "Training after each step"


def prune(
    model: options.Network,
    *,
    out: options.NewModel,
    share: float = 0.5,
    cost: Cost = "macs",
    of: Annotated[
        str | None,
        Option(
            help="The artifact whose latency is measured.",
            metavar="FORMAT[:PRECISION]",
            default="fp32 of the first format that can be written and run here",
            group=options.PRUNED,
        ),
    ] = None,
    importance: Annotated[
        str,
        Option(
            help="What decides which channels go first: magnitude, batch-norm, or taylor (needs --data).",
            metavar="NAME",
            group=options.PRUNED,
        ),
    ] = "magnitude",
    round_to: Annotated[
        int | str,
        Option(
            help="Channel counts of narrowed layers are multiples of this, or of this target's number.",
            kind=kinds.COUNT_OR_NAME,
            metavar="N|TARGET",
            group=options.PRUNED,
        ),
    ] = 8,
    keep: Annotated[
        str | Sequence[str],
        Option(help="Layers, or parts, that keep their width: head,stem.", kind=kinds.WORDS, group=options.PRUNED),
    ] = (),
    steps: Annotated[int, Option(help="Number of steps, with training after each.", group=_TUNING)] = 1,
    data: Annotated[
        str | Path | None, Option(help="Labelled pictures with the network's classes.", group=_TUNING)
    ] = None,
    split: Annotated[options.LearnFrom, Option(group=_TUNING)] = None,
    validate_on: Annotated[
        options.ValidateOn, Option(help="Held-out labelled pictures to measure on.", group=_TUNING)
    ] = None,
    ignore_label: Annotated[options.IgnoreLabel, Option(group=_TUNING)] = None,
    settings: TrainSettings | None = None,
    distill: Annotated[bool, Option(help="Learn from the unpruned network, too.", negative=True, group=_TUNING)] = True,
    progress: Progress | None = None,
    **model_options: Unpack[options.NetworkOptions],
) -> Pruning:
    """Make a network narrower, and save it as NAME.model.

    Whole channels are removed, in all layers that they affect, so that every runtime gets faster. The network's answers
    get worse until it is trained again: here, with `settings` or several `steps`, or by `train` with the saved folder.
    After a stop, a pruning with training continues when it is called again with the same arguments.

    Args:
        model: as for `load_model`.
        out: a folder NAME.model to write.
        share: share of the multiply-adds, parameters, or latency to keep; 0 to 1 (exclusive).
        cost: what `share` is a share of; "latency" is measured on this machine, in turns with the unpruned network.
        of: whose latency: "FORMAT", "FORMAT:fp32" or "FORMAT:fp16"; default: fp32 of the first format, in the order of
            `edgecnn.formats`, that can be written and run here.
        importance: "magnitude" (of a channel's weights), "batch-norm" (its scale) or "taylor" (first-order estimate of
            the training loss without the channel, on some of the pictures).
        round_to: channel counts of narrowed layers are multiples of this; SIMD units process 8 or 16 at once. Or the
            name of a target (`edgecnn.targets`), which has its own number.
        keep: layers, or parts of the network, or one, that keep their width.
        steps: number of steps, with training after each; each step keeps the same share of what the step before left.
        data: labelled pictures with the network's classes, for "taylor" and for training. The statistics of batch norms
            are then adapted so that their outputs on these pictures stay as before, which saves much of the accuracy.
        split, validate_on, ignore_label: as for `train`.
        settings: how to train after each step; None: no training with one step, otherwise the defaults of `train`.
        distill: the unpruned network is the teacher.
        progress: called with (steps done, steps in total, current step).
        model_options: as for `load_model`.

    Raises:
        SpecError, UnknownNameError: an impossible request.
        SourceError: a network whose channels cannot be traced.
        DataError, TrainingError: as for `train`.
        ConversionError, DeviceError: its latency cannot be measured.
        StorageError: disk full, or not writable.
        MissingDependencyError: a package of the extra [train] is not installed.
    """
    return prune_network(
        model,
        out=out,
        share=share,
        cost=cost,
        of=of,
        importance=importance,
        round_to=round_to,
        keep=kinds.one_or_more(keep),
        steps=steps,
        data=data,
        split=split,
        validate_on=validate_on,
        ignore_label=ignore_label,
        settings=settings,
        distill=distill,
        progress=progress,
        model_options={**model_options},
    )
