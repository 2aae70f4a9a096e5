"""`edgecnn quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecnn.cli import _int8_options as int8
from edgecnn.cli import _model_options as flags
from edgecnn.cli import _output
from edgecnn.cli.convert import as_document, print_conversion


def command(
    bundle: Annotated[Path, typer.Argument(help="A NAME.edge folder with fp32 artifacts.")],
    out: Annotated[
        Path | None, typer.Option(help="Another bundle to write; default: into BUNDLE itself.", show_default=False)
    ] = None,
    to: Annotated[str | None, typer.Option(help="onnx,openvino,tflite; default: all that BUNDLE has.")] = None,
    precision: Annotated[str, typer.Option(help="int8; TFLite also int8-dynamic, int8-a16.")] = "int8",
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled pictures to search on for the layers to keep float.", show_default=False),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Of DATA to search on, and to calibrate on where nothing else is said.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Largest drop of the metric below float; 0.01 is one point, the default.")
    ] = None,
    ignore_label: Annotated[str | None, typer.Option(help="A class of the data whose pixels don't count.")] = None,
    allow_drop: Annotated[
        bool, typer.Option("--allow-drop", help="Write artifacts that lose more, and record it.")
    ] = False,
    calibration: int8.Calibration = None,
    calibration_count: int8.CalibrationCount = None,
    seed: int8.Seed = 0,
    evaluate_on: int8.EvaluateOn = None,
    budget_minutes: int8.BudgetMinutes = None,
    plot: int8.Plot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Add int8 artifacts to a bundle: as right as float within a bound, or refused."""
    from edgecnn._verbs.quantize import quantize

    if plot is not None:
        int8.check_plot(plot)
    with _output.progress_bar("reading pictures") as progress:
        conversion = quantize(
            bundle,
            out=out,
            to=None if to is None else flags.split_words("--to", to),
            precision=precision,
            calibration=calibration,
            calibration_count=calibration_count,
            seed=seed,
            data=data,
            split=split,
            max_drop=max_drop,
            evaluate_on=evaluate_on,
            ignore_label=ignore_label,
            allow_drop=allow_drop,
            budget_minutes=budget_minutes,
            progress=progress,
        )
    if plot is not None and conversion.bundle is not None:
        int8.write_plot(conversion.bundle.manifest, plot)
    if as_json:
        _output.print_json(as_document(conversion))
    else:
        print_conversion(conversion, out or bundle)
    return 1 if conversion.refused else 0
