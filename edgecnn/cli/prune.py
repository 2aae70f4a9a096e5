"""`edgecnn prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edgecnn import options
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb
from edgecnn.cli.train import train_settings
from edgecnn.errors import SpecError
from edgecnn.options import Option

if TYPE_CHECKING:
    from edgecnn.pruning.pruning import Pruning

VERB = "edgecnn._verbs.prune:prune"
_TUNING = "Training after each step"


def command(
    verb: Verb,
    *,
    macs: Annotated[
        float | None,
        Option(
            help="Share of the multiply-adds to keep.",
            default="0.5",
            group=options.PRUNED,
            instead_of=("parameters", "latency"),
        ),
    ] = None,
    parameters: Annotated[
        float | None,
        Option(help="Instead: share of the parameters to keep.", group=options.PRUNED, instead_of=("latency",)),
    ] = None,
    latency: Annotated[
        float | None, Option(help="Instead: share of the latency, measured on this machine.", group=options.PRUNED)
    ] = None,
    epochs: Annotated[
        int | None, Option(help="Passes over the pictures after each step.", default="50", group=_TUNING)
    ] = None,
    settings: Annotated[
        Path | None,
        Option(help="A TOML file with training settings, as for edgecnn train.", metavar="FILE.toml", group=_TUNING),
    ] = None,
    json: options.Json = False,
) -> int:
    """Make a network narrower by removing its least important channels. Train it after each step, or afterwards."""
    how = None
    if epochs is not None or settings is not None:
        how = train_settings(settings, {} if epochs is None else {"epochs": epochs})
    goal = _goal(macs=macs, parameters=parameters, latency=latency)
    with _output.progress_bar("following channels") as progress:
        pruning = verb(**goal, settings=how, progress=progress)
    if json:
        _output.print_json(as_document(pruning))
    else:
        print_pruning(pruning)
    return 0


def _goal(**shares: float | None) -> dict[str, Any]:
    """Cost and share of the given option; half of the multiply-adds without one.

    Raises:
        SpecError: several were.
    """
    given = {name: share for name, share in shares.items() if share is not None}
    if len(given) > 1:
        words = " and ".join(f"--{name}" for name in given)
        raise SpecError(f"{words} are {len(given)} costs: give only one")
    cost, share = next(iter(given.items()), ("macs", 0.5))
    return {"cost": cost, "share": share}


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
    """The final tables."""
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
        _output.print_note(warning)
    if not pruning.steps:
        _output.print_remark(f"train it before you use it: edgecnn train {pruning.folder} --data DATA --out NAME.model")


def _print_latency(latency: dict[str, Any]) -> None:
    rows = []
    for step in latency["steps"]:
        figures = ("", "", "", step["reason"])
        if "ratio" in step:
            times = f"{step['ratio']:.2f} [{step['low']:.2f}, {step['high']:.2f}]"
            figures = (f"{step['before_ms']:.2f}", f"{step['after_ms']:.2f}", times, "yes" if step["kept"] else "no")
        rows.append((f"{step['macs_share']:.0%}", *figures))
    columns = ["multiply-adds", "ms before", "ms after", "times faster", "kept"]
    _output.print_table("tried, each compared with the last accepted one", columns, rows, numeric=columns[:4])
    _output.print_line(
        f"{latency['ratio']:.2f} times as fast as the unpruned network [{latency['low']:.2f}, {latency['high']:.2f}], "
        f"in turns on {latency['device_name']}, threads: {latency['threads']}",
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
            _output.print_note(f"step {step.number} was skipped: {step.skipped}")
    drawn = pruning.folder / "pruning.png"
    _output.print_line(f"curve: {drawn}, figures: {drawn.with_suffix('.csv')}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
