"""The flags that say how int8 is made and held to, shared by `convert` and `quantize`; and what both print of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli import _output

if TYPE_CHECKING:
    from edgecnn.bundle import Artifact, Manifest
    from edgecnn.evidence import QuantizationEvidence

_PANEL = "How int8 is made"

Calibration = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        help="Pictures to read activation ranges off; default: those of --data.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
CalibrationCount = Annotated[
    int | None,
    typer.Option("--calibration-count", help="So many at most; default 128.", rich_help_panel=_PANEL),
]
Seed = Annotated[int, typer.Option("--seed", help="Of the choice of calibration pictures.", rich_help_panel=_PANEL)]
EvaluateOn = Annotated[
    Path | None,
    typer.Option(
        "--evaluate-on",
        help="Labelled pictures that took no part: the last word on the drop.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
BudgetMinutes = Annotated[
    float | None,
    typer.Option("--budget-minutes", help="Of the search, each format; default 30.", rich_help_panel=_PANEL),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="A PNG: each layer's damage, what was kept float.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
_WORST_SHOWN = 12


def print_int8(manifest: Manifest) -> None:
    """What was found out about the int8 artifacts, for people."""
    made = [artifact for artifact in manifest.artifacts if artifact.evidence.quantization is not None]
    if not made:
        return
    columns = ("artifact", "metric", "drop", "in int8", "ms", "float ms", "faster")
    _output.print_table("int8 beside float", columns, [_row(a) for a in made], numeric=columns[3:6])
    for artifact in made:
        evidence = artifact.evidence.quantization
        if evidence is None:
            continue
        name = artifact.label
        _output.stdout.print(f"{name}: {_how(evidence)}", markup=False, soft_wrap=True)
        if evidence.damage:
            shown = evidence.damage[:_WORST_SHOWN]
            rows = [(d.name, f"{d.damage:.2g}", "float" if d.kept_float else "int8") for d in shown]
            title = f"{name}: the {len(shown)} layers that do most damage alone, of {len(evidence.damage)}"
            _output.print_table(title, ("layer", "damage", "kept"), rows, numeric=("damage",))
        for warning in evidence.warnings:
            _output.people.print(f"note: {name}: {warning}", style="yellow", markup=False, soft_wrap=True)
        if evidence.slower_than_float:
            _output.people.print(
                f"note: {name} is slower than float here: no reason to use it on this machine; "
                "device 'auto' never picks it",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )


def _row(artifact: Artifact) -> tuple[object, ...]:
    evidence = artifact.evidence.quantization
    assert evidence is not None
    accuracy, latency = artifact.evidence.accuracy, evidence.latency
    return (
        artifact.label,
        f"{accuracy[-1].metric} {accuracy[-1].value:.4f}" if accuracy else _snr(evidence.snr_db),
        f"{accuracy[-1].drop:+.4f}" if accuracy and accuracy[-1].drop is not None else "not measured",
        f"{evidence.int8_mac_share:.0%}",
        f"{latency.latency_ms:.2f}" if latency else "",
        f"{latency.float_latency_ms:.2f}" if latency else "",
        f"{latency.ratio:.2f}x\n[{latency.low:.2f}, {latency.high:.2f}]" if latency else "",
    )


def _how(evidence: QuantizationEvidence) -> str:
    """How an artifact was made, in one line."""
    parts = [evidence.recipe, f"{len(evidence.float_layers)} layers float"]
    if evidence.search is not None:
        found = evidence.search
        parts.append(
            f"searched on {found.data}: {found.metric} {found.value:.4f}, float {found.float_value:.4f}, "
            f"{found.trials} measured in {found.minutes:.1f} min"
        )
    return "; ".join(parts)


def _snr(snr_db: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} dB" for name, value in snr_db.items())


def check_plot(path: Path) -> None:
    """Whether the plot can be written, asked before the long work.

    Raises:
        MissingDependencyError, SpecError: it cannot.
    """
    from edgecnn.measure._figures import check_plotting

    check_plotting(path)


def write_plot(manifest: Manifest, path: Path) -> None:
    """Each layer's damage, in the network's order, and which layers were kept float: a PNG."""
    from edgecnn.measure.layer_report import plot_damage

    plot_damage(manifest, path)
