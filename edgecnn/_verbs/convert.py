"""Convert a trained network to a verified bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgecnn import options
from edgecnn.datasets import iterate_frames
from edgecnn.errors import SpecError
from edgecnn.flow.conversion_gates import gates
from edgecnn.options import Option, kinds
from edgecnn.photographs import photographs
from edgecnn.report.sbom import StatedLicenses, check_sbom, renew_sbom, stated_licenses
from edgecnn.targets import load_target
from edgecnn.targets.artifacts_to_make import artifacts_to_make, target_notes

if TYPE_CHECKING:
    from typing import Unpack

    from edgecnn.converters.quantize_bundle import Conversion

_PARITY_PICTURES = 8


def convert(
    model: options.Network,
    *,
    out: options.NewBundle,
    to: options.Converters = None,
    precision: Annotated[
        str | Sequence[str] | None,
        Option(
            help="Any of {precisions}, with commas between.",
            kind=kinds.WORDS,
            default="fp32, or the target's",
            group=options.MADE,
        ),
    ] = None,
    target: Annotated[
        str | None,
        Option(
            help="A board or chip to build for, such as raspberry-pi-5 or qualcomm-htp:v73; sets the defaults.",
            metavar="TARGET",
            group=options.MADE,
        ),
    ] = None,
    batch: Annotated[int, Option(group=options.MADE)] = 1,
    data: Annotated[
        str | Path | None,
        Option(help="Pictures to compare on; labelled ones also check the accuracy.", group=options.LABELS),
    ] = None,
    max_drop: options.MaxDrop = None,
    ignore_label: options.IgnoreLabel = None,
    allow_drop: options.AllowDrop = False,
    keep_slower: options.KeepSlower = False,
    calibration: options.Calibration = None,
    calibration_count: options.CalibrationCount = None,
    seed: options.CalibrationSeed = 0,
    evaluate_on: options.EvaluateOn = None,
    budget_minutes: options.BudgetMinutes = None,
    overwrite: options.Overwrite = False,
    sbom: options.Sbom = False,
    weights_license: options.WeightsLicense = None,
    data_license: options.DataLicense = None,
    progress: Callable[[int, int, str], None] | None = None,
    **model_options: Unpack[options.NetworkOptions],
) -> Conversion:
    """Convert a trained network, run every artifact, and write those whose answers agree with the torch network's.

    Args:
        model: as for `load_model`.
        out: the bundle's folder, NAME.edge; an existing bundle there is replaced.
        to: names of `edgecnn.formats`, such as "onnx"; default: the target's, otherwise all whose converter is
            installed.
        precision: names of `edgecnn.bundle.PRECISIONS`; default: the target's, otherwise fp32.
        target: a board or chip to build for, a name of `edgecnn.targets` such as "qualcomm-htp:v73"; it sets default
            formats and precisions, and some files are compiled for it.
        batch: frames per inference; the graph's shape is fixed.
        data: pictures to compare on; if they are labelled, also to measure the task's metric on, and for int8 to search
            on.
        max_drop: how far an artifact's metric may be below the torch network's (int8: the float artifact's), in the
            metric's unit (0.01 is one point); default: 0.01.
        ignore_label: a class of the data whose pixels do not count.
        allow_drop: also write artifacts with a larger drop, and say so in their evidence.
        keep_slower: also write int8 artifacts that are no faster here than float: for another machine, or as they are
            smaller.
        calibration: pictures to measure int8's activation ranges on; default: `data`.
        calibration_count: at most this many; default: 128.
        seed: calibration seed, which chooses the pictures.
        evaluate_on: held-out labelled pictures, not used for int8's calibration and search; they give the final drop.
        budget_minutes: time for the search for layers to keep in float, for each format; default: 30.
        overwrite: replace a bundle at `out`, even if int8 artifacts or evidence are lost.
        sbom: put a bill of materials (CycloneDX 1.6, JSON) into the bundle.
        weights_license, data_license: for the SBOM: SPDX identifiers or expressions, or other text.
        progress: called with (steps done, steps in total, current step).
        model_options: the fields of `edgecnn.sources.ModelOptions`.

    Raises:
        SpecError, UnknownNameError: an impossible request, or one that would lose content of `out`.
        SourceError, WeightsError: the network cannot be loaded.
        BlindError, ParityError: the network or its pre-processing fails before any conversion.
        DataError: the data cannot be read, or `max_drop` was given and it has no labels.
        StorageError: disk full, or `out` not writable.
    """
    from edgecnn.sources.load import load_model

    built_for = None if target is None else load_target(target)
    has_pictures = calibration is not None or data is not None
    formats, precisions, notes = artifacts_to_make(to, precision, built_for, has_pictures=has_pictures)
    if batch < 1:
        raise SpecError(f"batch must be at least 1, got {batch}")
    if sbom or weights_license or data_license:
        check_sbom(wanted=sbom)
    trained = load_model(model, **model_options)
    notes += [] if built_for is None else target_notes(built_for, trained.frame, trained.task)
    from edgecnn.converters.build import build_bundle

    accuracy, int8 = gates(
        trained,
        precisions,
        out=Path(out),
        data=data,
        max_drop=max_drop,
        ignore_label=ignore_label,
        allow_drop=allow_drop,
        keep_slower=keep_slower or target is not None,  # a target is another machine: what is slow here says little
        calibration=calibration,
        calibration_count=calibration_count,
        seed=seed,
        evaluate_on=evaluate_on,
        budget_minutes=budget_minutes,
    )
    stated = StatedLicenses(weights_license, data_license) if sbom else stated_licenses(Path(out))
    conversion = build_bundle(
        trained,
        out=Path(out),
        formats=formats,
        precisions=precisions,
        pictures=list(photographs().values()) if data is None else iterate_frames(data, _PARITY_PICTURES),
        batch=batch,
        accuracy=accuracy,
        int8=int8,
        target=built_for,
        overwrite=overwrite,
        progress=progress,
    )
    renewed, remarks = renew_sbom(conversion.bundle, stated)
    return dataclasses.replace(conversion, bundle=renewed, warnings=(*conversion.warnings, *remarks, *notes))
