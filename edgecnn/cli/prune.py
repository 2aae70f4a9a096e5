"""`edgecnn prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgecnn.cli import _model_options as flags
from edgecnn.cli import _output
from edgecnn.cli.train import train_settings
from edgecnn.errors import SpecError

if TYPE_CHECKING:
    from edgecnn._verbs.prune import Pruning

_TUNING = {"rich_help_panel": "Training in between"}


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A network, or a NAME.model folder.")],
    out: Annotated[Path, typer.Option(help="A NAME.model folder to write.", show_default=False)],
    macs: Annotated[
        float | None, typer.Option(help="Share of the multiply-adds that may be left; default 0.5.", show_default=False)
    ] = None,
    parameters: Annotated[
        float | None, typer.Option(help="Share of the parameters that may be left, instead.", show_default=False)
    ] = None,
    latency: Annotated[
        float | None, typer.Option(help="Share of the latency, measured on this machine, instead.", show_default=False)
    ] = None,
    of: Annotated[
        str | None,
        typer.Option(metavar="FORMAT[:PRECISION]", help="Whose latency; default openvino:fp32.", show_default=False),
    ] = None,
    importance: Annotated[
        str, typer.Option(help="magnitude, batch-norm or taylor (wants --data): which channels go first.")
    ] = "magnitude",
    round_to: Annotated[
        str,
        typer.Option(
            metavar="N|TARGET", help="Channels of narrowed layers are a multiple of it, or of what this target wants."
        ),
    ] = "8",
    keep: Annotated[str | None, typer.Option(help="Layers, or parts, that stay: as in head,stem.")] = None,
    steps: Annotated[int, typer.Option(help="So many, with training after each.", **_TUNING)] = 1,
    data: Annotated[
        Path | None, typer.Option(help="Labelled pictures with the network's classes.", show_default=False, **_TUNING)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of DATA to learn from; default: train, else all.", **_TUNING)
    ] = None,
    validate_on: Annotated[
        Path | None,
        typer.Option(help="Other labelled pictures to measure on; default: DATA's val, or a tenth.", **_TUNING),
    ] = None,
    ignore_label: Annotated[
        str | None, typer.Option(help="A class of DATA whose pixels don't count in the metric.", **_TUNING)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the pictures after each step; default 50.", **_TUNING)
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="A TOML file that says how to train, as for `train`.", **_TUNING)
    ] = None,
    distill: Annotated[
        bool, typer.Option("--distill/--no-distill", help="Learn from the unpruned network, too.", **_TUNING)
    ] = True,
    weights: flags.Weights = None,
    size: flags.Size = None,
    task: flags.TaskName = None,
    head: flags.Head = None,
    labels: flags.Labels = None,
    replace_activations: flags.ReplaceActivations = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Make a network narrower: the channels that matter least go. Train it in between, or afterwards."""
    from edgecnn._verbs.prune import prune

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
    told = None
    if epochs is not None or settings is not None:
        told = train_settings(settings, {} if epochs is None else {"epochs": epochs})
    with _output.progress_bar("following channels") as progress:
        pruning = prune(
            model,
            out=out,
            **_goal(macs=macs, parameters=parameters, latency=latency),
            of=of,
            importance=importance,
            round_to=int(round_to) if round_to.lstrip("-").isdigit() else round_to,
            keep=() if keep is None else tuple(flags.split_words("--keep", keep)),
            steps=steps,
            data=data,
            split=split,
            validate_on=validate_on,
            ignore_label=ignore_label,
            settings=told,
            distill=distill,
            progress=progress,
            **options,
        )
    if as_json:
        _output.print_json(as_document(pruning))
    else:
        print_pruning(pruning)
    return 0


def _goal(**shares: float | None) -> dict[str, Any]:
    """Target and share of the flag that was given; half of the multiply-adds without one.

    Raises:
        SpecError: several were.
    """
    given = {name: share for name, share in shares.items() if share is not None}
    if len(given) > 1:
        words = " and ".join(f"--{name}" for name in given)
        raise SpecError(f"{words} are {len(given)} targets: give one")
    target, share = next(iter(given.items()), ("macs", 0.5))
    return {"target": target, "share": share}


def as_document(pruning: Pruning) -> dict[str, object]:
    """What --json prints."""
    return {
        "model": str(pruning.folder),
        "macs": {"before": pruning.macs[0], "after": pruning.macs[1]},
        "parameters": {"before": pruning.parameters[0], "after": pruning.parameters[1]},
        "latency": pruning.latency,
        "metric": pruning.metric or None,
        "unpruned": pruning.unpruned,
        "steps": [msgspec.to_builtins(step) for step in pruning.steps],
        "warnings": list(pruning.warnings),
    }


def print_pruning(pruning: Pruning) -> None:
    """The closing tables."""
    rows = [
        (name, f"{before / 1e6:.2f} M", f"{after / 1e6:.2f} M", f"{after / before:.0%}")
        for name, (before, after) in (("multiply-adds", pruning.macs), ("parameters", pruning.parameters))
    ]
    latency = pruning.latency
    if latency is not None:
        before, after = f"{latency['before_ms']:.2f} ms", f"{latency['after_ms']:.2f} ms"
        rows.append((f"latency, {latency['of']}", before, after, f"{1 / latency['ratio']:.0%}"))
    _output.print_table(str(pruning.folder), ["", "before", "after", "left"], rows, numeric=["before", "after", "left"])
    if latency is not None:
        _print_latency(latency)
    if pruning.steps:
        _print_steps(pruning)
    for warning in pruning.warnings:
        _output.people.print(f"note: {warning}")
    if not pruning.steps:
        _output.people.print(f"train it before it is used: edgecnn train {pruning.folder} --data DATA --out NAME.model")


def _print_latency(latency: dict[str, Any]) -> None:
    rows = []
    for step in latency["steps"]:
        figures = ("", "", "", step["reason"])
        if "ratio" in step:
            times = f"{step['ratio']:.2f} [{step['low']:.2f}, {step['high']:.2f}]"
            figures = (f"{step['before_ms']:.2f}", f"{step['after_ms']:.2f}", times, "yes" if step["kept"] else "no")
        rows.append((f"{step['macs_share']:.0%}", *figures))
    columns = ["multiply-adds", "ms before", "ms after", "times faster", "kept"]
    _output.print_table("tried, each beside the last one that was kept", columns, rows, numeric=columns[:4])
    _output.stdout.print(
        f"{latency['ratio']:.2f} times as fast as the unpruned network [{latency['low']:.2f}, {latency['high']:.2f}], "
        f"in turns on {latency['device_name']}, threads: {latency['threads']}",
        soft_wrap=True,
    )


def _print_steps(pruning: Pruning) -> None:
    metric = pruning.metric
    macs, parameters = pruning.macs[0], pruning.parameters[0]
    rows = [("unpruned", f"{macs / 1e6:.2f} M", f"{parameters / 1e6:.2f} M", "", _number(pruning.unpruned))]
    for step in pruning.steps:
        figures = (f"{step.macs / 1e6:.2f} M", f"{step.parameters / 1e6:.2f} M")
        rows.append((f"{step.number}: {step.share:.0%}", *figures, _number(step.before), _number(step.value)))
    columns = ["step", "multiply-adds", "parameters", f"{metric} before training", "after"]
    _output.print_table("steps", columns, rows, numeric=columns[1:])
    for step in pruning.steps:
        if step.skipped:
            _output.people.print(f"note: step {step.number} was left out: {step.skipped}")
    drawn = pruning.folder / "pruning.png"
    _output.stdout.print(f"curve: {drawn}, figures: {drawn.with_suffix('.csv')}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
