"""`edgecnn prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli import _model_options as flags
from edgecnn.cli import _output
from edgecnn.errors import SpecError

if TYPE_CHECKING:
    from edgecnn._verbs.prune import Pruning


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A network, or a NAME.model folder.")],
    out: Annotated[Path, typer.Option(help="A NAME.model folder to write.", show_default=False)],
    macs: Annotated[
        float | None, typer.Option(help="Share of the multiply-adds that may be left; default 0.5.", show_default=False)
    ] = None,
    parameters: Annotated[
        float | None, typer.Option(help="Share of the parameters that may be left, instead.", show_default=False)
    ] = None,
    importance: Annotated[str, typer.Option(help="magnitude or batch-norm: which channels go first.")] = "magnitude",
    round_to: Annotated[int, typer.Option(help="Channels of narrowed layers are a multiple of it.")] = 8,
    keep: Annotated[str | None, typer.Option(help="Layers, or parts, that stay: as in head,stem.")] = None,
    weights: flags.Weights = None,
    size: flags.Size = None,
    task: flags.TaskName = None,
    head: flags.Head = None,
    labels: flags.Labels = None,
    replace_activations: flags.ReplaceActivations = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Make a network narrower: the channels that matter least go. Train it afterwards."""
    from edgecnn._verbs.prune import prune

    if macs is not None and parameters is not None:
        raise SpecError("--macs and --parameters are two targets: give one")
    options = flags.model_options(
        weights=weights,
        size=size,
        task=task,
        head=head,
        labels=labels,
        fit=None,
        mean=None,
        std=None,
        scale=None,
        color=None,
        replace_activations=replace_activations,
    )
    with _output.progress_bar("following channels"):
        pruning = prune(
            model,
            out=out,
            share=parameters if parameters is not None else 0.5 if macs is None else macs,
            target="macs" if parameters is None else "parameters",
            importance=importance,
            round_to=round_to,
            keep=() if keep is None else tuple(flags.split_words("--keep", keep)),
            **options,
        )
    if as_json:
        _output.print_json(as_document(pruning))
    else:
        print_pruning(pruning)
    return 0


def as_document(pruning: Pruning) -> dict[str, object]:
    """What --json prints."""
    return {
        "model": str(pruning.folder),
        "macs": {"before": pruning.macs[0], "after": pruning.macs[1]},
        "parameters": {"before": pruning.parameters[0], "after": pruning.parameters[1]},
        "warnings": list(pruning.warnings),
    }


def print_pruning(pruning: Pruning) -> None:
    """The closing table."""
    rows = [
        (name, f"{before / 1e6:.2f} M", f"{after / 1e6:.2f} M", f"{after / before:.0%}")
        for name, (before, after) in (("multiply-adds", pruning.macs), ("parameters", pruning.parameters))
    ]
    _output.print_table(str(pruning.folder), ["", "before", "after", "left"], rows, numeric=["before", "after", "left"])
    for warning in pruning.warnings:
        _output.people.print(f"note: {warning}")
    _output.people.print(f"train it before it is used: edgecnn train {pruning.folder} --data DATA --out NAME.model")
