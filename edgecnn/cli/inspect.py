"""`edgecnn inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgecnn import options
from edgecnn.cli import _output, _placement
from edgecnn.cli._verb import Verb
from edgecnn.errors import SpecError
from edgecnn.options import Option, kinds

if TYPE_CHECKING:
    from edgecnn.bundle import Artifact, Manifest, TensorSpec
    from edgecnn.bundle.evidence import LatencyEvidence
    from edgecnn.measure.layer_noise import LayerComparison, LayerNoise

_LAYER_BY_LAYER = "Layer by layer"
_FLOAT_LAYERS_NAMED = 5
_COLUMNS = ("layer", "SNR dB", "change", "enters", "alone", "")


VERB = "edgecnn._verbs.inspect:inspect"


def command(
    verb: Verb,
    *,
    layers: Annotated[
        tuple[str, str] | None,
        Option(
            help="Compare two artifacts layer by layer, each FORMAT:PRECISION; A is the reference.",
            metavar="A B",
            kind=kinds.TEXT,
            pair=True,
            group=_LAYER_BY_LAYER,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        Option(
            help="Pictures to compare on, at most 8.",
            default="photographs that ship with edgecnn",
            group=_LAYER_BY_LAYER,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        Option(help="Draw the noise of the layers: FILE.png.", metavar="FILE.png", group=_LAYER_BY_LAYER),
    ] = None,
    json: Annotated[
        options.Json, Option(help="Print the whole manifest as JSON; with --layers, the comparison.")
    ] = False,
) -> int:
    """Show a bundle: its inputs, its outputs, and the evidence of each artifact. Hashes are checked."""
    bundle = verb["bundle"]
    if layers is not None:
        _compare(bundle, layers, data=data, plot=plot, as_json=json)
        return 0
    if data is not None or plot is not None:
        raise SpecError("--data and --plot need --layers A B, such as --layers tflite:fp32 tflite:int8")
    manifest = verb()
    from edgecnn.bundle.shipped import shipped_bundle
    from edgecnn.bundle.signature import described_claim

    if json:
        _output.print_json(manifest)
        return 0
    facts = [*_contract(manifest), ("signed", described_claim(shipped_bundle(bundle) or Path(bundle)))]
    _output.print_table(f"{bundle}: {manifest.name}", ("", ""), facts, keys=1)
    columns = ("artifact", "MB", "difference", "limit", "results agree", "metric", "p50 ms")
    rows = [_row(artifact) for artifact in manifest.artifacts]
    _output.print_table("artifacts", columns, rows, numeric=columns[1:])
    _print_int8(manifest)
    _placement.print_placement(manifest)
    for refusal in manifest.refused:
        _output.print_line(f"refused: {refusal.format} {refusal.precision}: {refusal.reason}", "red")
    return 0


def _contract(manifest: Manifest) -> list[tuple[str, str]]:
    frame, source, task = manifest.frame, manifest.source, manifest.task
    weights = "random weights" if source.random else source.weights
    labels = task.labels
    some = ", ".join(labels[:6]) + (f", … ({len(labels)} classes)" if len(labels) > 6 else "")
    fit = f"{frame.fit} into {frame.width_px}x{frame.height_px} px, {frame.interpolation}"
    fit += ", antialiased" if frame.antialias else ""
    rows = [
        ("network", ", ".join(filter(None, (source.model, weights)))),
        ("task", f"{task.name}: {some}"),
        ("fit", fit),
        ("inputs", _tensors(manifest.inputs)),
        ("outputs", _tensors(manifest.outputs)),
        ("in the graph", ", ".join(manifest.in_graph)),
        ("size", f"{manifest.parameters / 1e6:.2f} M parameters, {manifest.macs / 1e6:.0f} M multiply-adds a frame"),
        ("written", f"{manifest.created_utc} by edgecnn {manifest.edgecnn}, schema {manifest.schema}"),
    ]
    preprocess = manifest.preprocess
    if preprocess is not None and preprocess.compared:
        found = f"within {preprocess.max_levels} grey levels of {preprocess.reference} ({preprocess.frames} pictures)"
        rows.append(("pre-processing", found))
    elif preprocess is not None:
        rows.append(("pre-processing", f"not compared: {preprocess.reason}"))
    return rows


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)


def _row(artifact: Artifact) -> tuple[object, ...]:
    evidence = artifact.evidence
    parity = evidence.parity
    agreement = parity.agreement if parity is not None else None
    return (
        artifact.label,
        f"{artifact.bytes / 1e6:.1f}",
        "" if parity is None else f"{parity.max_rel_err:.1e}",
        "" if parity is None or parity.limit is None else f"{parity.limit:.0e}",
        "" if agreement is None else f"{agreement:.4f}",
        " ".join(f"{a.metric} {a.value:.4f}" for a in evidence.accuracy),
        "\n".join(_latency(latency) for latency in evidence.latency),
    )


def _latency(latency: LatencyEvidence) -> str:
    p50_ms = latency.figures.get("p50_ms")
    return "–" if p50_ms is None else f"{p50_ms:.2f}"


def _print_int8(manifest: Manifest) -> None:
    """How the int8 artifacts were made and their figures, as `quantize` prints them; and which layers are float."""
    from edgecnn.cli._int8 import print_int8

    print_int8(manifest)
    for artifact in manifest.artifacts:
        evidence = artifact.evidence.quantization
        if evidence is not None and evidence.float_layers:
            kept, name = evidence.float_layers, artifact.label
            named = ", ".join(kept[:_FLOAT_LAYERS_NAMED]) + (", …" if len(kept) > _FLOAT_LAYERS_NAMED else "")
            _output.print_line(f"{name}: {len(kept)} of {len(manifest.layers)} layers are float: {named}")


def _compare(bundle: Path, names: tuple[str, str], *, data: Path | None, plot: Path | None, as_json: bool) -> None:
    from edgecnn._verbs.inspect import compare_layers
    from edgecnn.report.figures import check_plotting

    if plot is not None:
        check_plotting(plot)
    with _output.progress_bar("opening") as progress:
        comparison = compare_layers(bundle, *names, data=data, progress=progress)
    if plot is not None:
        from edgecnn.report.layers import plot_layer_comparison

        plot_layer_comparison(comparison, plot)
    if as_json:
        _output.print_json(comparison)
    else:
        _print_comparison(comparison)


def _print_comparison(comparison: LayerComparison) -> None:
    """A row for each layer, then a summary."""
    rows = [_layer_row(layer) for layer in comparison.layers]
    searched = any(layer.damage is not None for layer in comparison.layers)
    shown = [column for column in _COLUMNS if searched or column != "alone"]
    pictures = "picture" if comparison.frames == 1 else "pictures"
    _output.print_table(
        f"{comparison.bundle}: {comparison.compared} against {comparison.reference}, "
        f"{comparison.frames} {pictures} ({comparison.data})",
        shown,
        [[row[column] for column in shown] for row in rows],
        numeric=shown[1:],
    )
    outputs = ", ".join(f"{name} {value:.1f} dB" for name, value in comparison.outputs.items())
    _output.print_line(f"outputs: {outputs}")
    every = len(comparison.layers) + len(comparison.unread)
    for reason in dict.fromkeys(layer.reason for layer in comparison.unread):
        names = [layer.name for layer in comparison.unread if layer.reason == reason]
        _output.print_line(f"{len(names)} of {every} layers were not compared, {reason}: {', '.join(names)}")
    _output.print_line(comparison.conclusion)


def _layer_row(layer: LayerNoise) -> dict[str, object]:
    change = None if layer.change_db is None else round(layer.change_db, 1) + 0.0  # no "-0.0"
    return {
        "layer": layer.name + (" (float)" if layer.int8 is False else ""),
        "SNR dB": f"{layer.snr_db:.1f}",
        "change": "" if change is None else f"{change:+.1f}",
        "enters": f"{layer.drop_db:.1f}" if layer.drop_db else "",
        "alone": "" if layer.damage is None else f"{layer.damage:.2g}",
        "": "" if layer.rank is None else f"◀{layer.rank}",
    }
