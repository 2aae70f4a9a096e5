"""What `convert`, `quantize` and `inspect` print about int8 artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.cli import _output

if TYPE_CHECKING:
    from edgecnn.bundle import Artifact, Manifest
    from edgecnn.bundle.evidence import QuantizationEvidence

_WORST_SHOWN = 12


def print_int8(manifest: Manifest) -> None:
    """Print the evidence of the int8 artifacts, for people."""
    made = [artifact for artifact in manifest.artifacts if artifact.evidence.quantization is not None]
    if not made:
        return
    columns = ("artifact", "metric", "drop", "in int8", "ms", "float ms", "faster")
    _output.print_table("int8 and float", columns, [_row(a) for a in made], numeric=columns[3:6])
    for artifact in made:
        evidence = artifact.evidence.quantization
        if evidence is None:
            continue
        name = artifact.label
        _output.print_line(f"{name}: {_how(evidence)}")
        if evidence.damage:
            shown = evidence.damage[:_WORST_SHOWN]
            rows = [(d.name, f"{d.damage:.2g}", "float" if d.kept_float else "int8") for d in shown]
            title = f"{name}: the {len(shown)} layers with the most damage alone, of {len(evidence.damage)}"
            _output.print_table(title, ("layer", "damage", "kept"), rows, numeric=("damage",))
        for warning in evidence.warnings:
            _output.print_note(f"{name}: {warning}")
        if evidence.slower_than_float:
            _output.print_note(
                f"{name} is slower than float here: do not use it on this machine; device 'auto' never selects it"
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
    parts = [evidence.recipe, f"{len(evidence.float_layers)} layers in float"]
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
    """Check that the plot can be written, before the long work.

    Raises:
        MissingDependencyError, SpecError: it cannot.
    """
    from edgecnn.report.figures import check_plotting

    check_plotting(path)


def write_plot(manifest: Manifest, path: Path) -> None:
    """Write a PNG of each layer's damage, in the network's order, and which layers stayed float."""
    from edgecnn.report.layers import plot_damage

    plot_damage(manifest, path)
