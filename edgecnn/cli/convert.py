"""`edgecnn convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn import options
from edgecnn.cli import _int8 as int8
from edgecnn.cli import _output, _placement
from edgecnn.cli._verb import Verb

if TYPE_CHECKING:
    from edgecnn.bundle import Artifact, Refusal
    from edgecnn.converters.quantize_bundle import Conversion


VERB = "edgecnn._verbs.convert:convert"


def command(verb: Verb, *, plot: options.DamagePlot = None, json: options.Json = False) -> int:
    """Convert a trained network to a bundle, and prove that every artifact's answers agree with the network's."""
    if plot is not None:
        int8.check_plot(plot)
    with _output.progress_bar("loading") as progress:
        conversion = verb(progress=progress)
    for warning in conversion.warnings:
        _output.print_note(warning)
    if plot is not None and conversion.bundle is not None:
        int8.write_plot(conversion.bundle.manifest, plot)
    if json:
        _output.print_json(as_document(conversion))
    else:
        print_conversion(conversion, Path(verb["out"]))
    return 1 if conversion.refused else 0


def as_document(conversion: Conversion) -> dict[str, Any]:
    """What `convert --json` prints."""
    bundle = conversion.bundle
    artifacts = bundle.manifest.artifacts if bundle is not None else ()
    return {
        "bundle": str(bundle.folder) if bundle is not None else None,
        "artifacts": [_artifact_document(a, str(bundle.folder / a.path)) for a in artifacts if bundle is not None],
        "refused": [
            {
                "format": refusal.format,
                "precision": refusal.precision,
                "target": refusal.target,
                "error": refusal.error,
                "reason": refusal.reason,
                "parity": refusal.parity,
            }
            for refusal in conversion.refused
        ],
        "warnings": list(conversion.warnings),
    }


def _artifact_document(artifact: Artifact, path: str) -> dict[str, Any]:
    quantization = artifact.evidence.quantization
    int8_figures = {}
    if quantization is not None:
        accuracy = artifact.evidence.accuracy
        int8_figures = {
            "int8_mac_share": quantization.int8_mac_share,
            "drop": accuracy[-1].drop if accuracy else None,
            "snr_db": quantization.snr_db,
            "latency": quantization.latency,
            "slower_than_float": quantization.slower_than_float,
            "float_layers": quantization.float_layers,
            "recipe": quantization.recipe,
            "search": quantization.search,
            "warnings": quantization.warnings,
        }
    return {
        "format": artifact.format,
        "precision": artifact.precision,
        "target": artifact.target,
        "path": path,
        "sha256": artifact.sha256,
        "bytes": artifact.bytes,
        "files": list(artifact.files),
        "tool": artifact.tool,
        "transposes": artifact.transposes,
        "parity": artifact.evidence.parity,
        "accuracy": list(artifact.evidence.accuracy),
        "placement": artifact.evidence.placement,
        **int8_figures,
    }


def print_conversion(conversion: Conversion, out: Path) -> None:
    """The final tables, and what was refused."""
    if conversion.bundle is not None:
        rows = [_row(artifact) for artifact in conversion.bundle.manifest.artifacts]
        columns = ("format", "precision", "MB", "difference", "limit", "results agree", "metric")
        _output.print_table(f"{out}: {_verdict(conversion)}", columns, rows, numeric=columns[2:6])
        int8.print_int8(conversion.bundle.manifest)
        _placement.print_placement(conversion.bundle.manifest)
    for refusal in conversion.refused:
        _output.print_error(_refusal_line(refusal))
    if conversion.bundle is None:
        _output.print_error(f"nothing passed: {out} was not written")


def _verdict(conversion: Conversion) -> str:
    """What is said of the artifacts in the table."""
    refused = len(conversion.refused)
    return "verified" if not refused else f"verified; {refused} {'was' if refused == 1 else 'were'} refused"


def _row(artifact: Artifact) -> tuple[object, ...]:
    from edgecnn.bundle import QUANTIZED

    parity = artifact.evidence.parity
    accuracy = artifact.evidence.accuracy if artifact.precision not in QUANTIZED else ()  # int8 has its own table
    return (
        artifact.format,
        artifact.precision + (f"\n{artifact.target}" if artifact.target else ""),
        f"{artifact.bytes / 1e6:.1f}",
        f"{parity.max_rel_err:.1e}" if parity else "",
        f"{parity.limit:.0e}" if parity and parity.limit is not None else "",
        f"{parity.agreement:.4f}" if parity and parity.agreement is not None else "",
        " ".join(f"{a.metric} {a.value:.4f} (torch {a.reference_value:.4f})" for a in accuracy),
    )


def _refusal_line(refusal: Refusal) -> str:
    name = f"{refusal.format} {refusal.precision}" + (f" for {refusal.target}" if refusal.target else "")
    return f"refused: {name}: {refusal.error}: {refusal.reason}"
