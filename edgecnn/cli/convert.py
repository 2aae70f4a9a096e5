"""`edgecnn convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgecnn.cli import _int8_options as int8
from edgecnn.cli import _model_options as flags
from edgecnn.cli import _output, _placement

if TYPE_CHECKING:
    from edgecnn.bundle import Artifact, Refusal
    from edgecnn.converters.quantize_bundle import Conversion


def command(
    model: Annotated[
        str,
        typer.Argument(help="torchvision:NAME, a name of the zoo, package.module:factory, NAME.model, or a .pt2."),
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write, NAME.edge.", show_default=False)],
    to: Annotated[str | None, typer.Option(help="onnx,openvino,tflite; default: all installed.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32,fp16,int8,…: any, with commas between; default fp32, or the target's.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="A device to build for, as in raspberry-pi-5 or qualcomm-htp:v73.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Frames per inference.")] = 1,
    data: Annotated[
        Path | None,
        typer.Option(help="Pictures to compare on; labelled ones also gate the accuracy.", show_default=False),
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest drop of the metric; 0.01 is one point, the default.")
    ] = None,
    ignore_label: Annotated[str | None, typer.Option(help="A class of the data whose pixels don't count.")] = None,
    allow_drop: Annotated[
        bool, typer.Option("--allow-drop", help="Write artifacts that lose more, and record it.")
    ] = False,
    weights: flags.Weights = None,
    size: flags.Size = None,
    task: flags.TaskName = None,
    head: flags.Head = None,
    labels: flags.Labels = None,
    fit: flags.FitName = None,
    mean: flags.Mean = None,
    std: flags.Std = None,
    scale: flags.Scale = None,
    color: flags.Color = None,
    replace_activations: flags.ReplaceActivations = None,
    calibration: int8.Calibration = None,
    calibration_count: int8.CalibrationCount = None,
    seed: int8.Seed = 0,
    evaluate_on: int8.EvaluateOn = None,
    budget_minutes: int8.BudgetMinutes = None,
    plot: int8.Plot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Convert a trained network to a bundle, and prove that every artifact answers as the network does."""
    from edgecnn._verbs.convert import convert

    options = flags.model_options(
        weights=weights,
        size=size,
        task=task,
        head=head,
        labels=labels,
        fit=fit,
        mean=mean,
        std=std,
        scale=scale,
        color=color,
        replace_activations=replace_activations,
    )
    if plot is not None:
        int8.check_plot(plot)
    with _output.progress_bar("loading") as progress:
        conversion = convert(
            model,
            out=out,
            to=None if to is None else flags.split_words("--to", to),
            precision=None if precision is None else flags.split_words("--precision", precision),
            target=target,
            batch=batch,
            data=data,
            max_drop=max_drop,
            ignore_label=ignore_label,
            allow_drop=allow_drop,
            calibration=calibration,
            calibration_count=calibration_count,
            seed=seed,
            evaluate_on=evaluate_on,
            budget_minutes=budget_minutes,
            progress=progress,
            **options,
        )
    for warning in conversion.warnings:
        _output.people.print(f"note: {warning}", style="yellow", markup=False, soft_wrap=True)
    if plot is not None and conversion.bundle is not None:
        int8.write_plot(conversion.bundle.manifest, plot)
    if as_json:
        _output.print_json(as_document(conversion))
    else:
        print_conversion(conversion, out)
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
    """The closing tables, and what was refused."""
    if conversion.bundle is not None:
        rows = [_row(artifact) for artifact in conversion.bundle.manifest.artifacts]
        columns = ("format", "precision", "MB", "difference", "limit", "results agree", "metric")
        _output.print_table(f"{out}: verified", columns, rows, numeric=columns[2:6])
        int8.print_int8(conversion.bundle.manifest)
        _placement.print_placement(conversion.bundle.manifest)
    for refusal in conversion.refused:
        _output.people.print(_refusal_line(refusal), style="red", markup=False, soft_wrap=True)
    if conversion.bundle is None:
        _output.people.print(f"nothing passed: {out} was not written", style="red", markup=False)


def _row(artifact: Artifact) -> tuple[object, ...]:
    from edgecnn.bundle import QUANTIZED

    parity = artifact.evidence.parity
    accuracy = artifact.evidence.accuracy if artifact.precision not in QUANTIZED else ()  # a table of their own
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
