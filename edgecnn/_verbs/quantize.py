"""Add int8 artifacts to a bundle."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgecnn import options
from edgecnn.bundle import QUANTIZED, Bundle
from edgecnn.bundle.shipped import is_shipped
from edgecnn.errors import BundleError, SpecError, UnknownNameError
from edgecnn.flow.int8_settings import DEFAULT_MAX_DROP, int8_settings
from edgecnn.flow.labelled_pictures import labelled_or_none
from edgecnn.formats import FORMATS, quantizable
from edgecnn.options import Option, kinds
from edgecnn.report.sbom import renew_sbom, stated_licenses
from edgecnn.runners.trusted import private_bundle

if TYPE_CHECKING:
    from edgecnn.converters.quantize_bundle import Conversion


def quantize(
    bundle: options.BundleName,
    *,
    out: Annotated[
        str | Path | None, Option(help="Another bundle to write.", default="BUNDLE itself", group=options.MADE)
    ] = None,
    to: Annotated[
        str | Sequence[str] | None,
        Option(
            help="Formats, any of {int8_formats}, with commas between.",
            kind=kinds.WORDS,
            default="all that BUNDLE has in fp32",
            group=options.MADE,
        ),
    ] = None,
    precision: Annotated[
        str,
        Option(
            help="{int8_precisions}; the last two for {whole_int8_formats}.", metavar="PRECISION", group=options.MADE
        ),
    ] = "int8",
    calibration: options.Calibration = None,
    calibration_count: options.CalibrationCount = None,
    seed: options.CalibrationSeed = 0,
    data: Annotated[
        str | Path | None,
        Option(help="Labelled pictures for the search for layers to keep in float.", group=options.LABELS),
    ] = None,
    split: Annotated[
        str | None,
        Option(
            help="The split of --data to search on, and to calibrate on without --calibration.",
            group=options.LABELS,
        ),
    ] = None,
    max_drop: options.MaxDrop = None,
    evaluate_on: options.EvaluateOn = None,
    ignore_label: options.IgnoreLabel = None,
    allow_drop: options.AllowDrop = False,
    keep_slower: options.KeepSlower = False,
    budget_minutes: options.BudgetMinutes = None,
    trusted_keys: options.TrustedKeys = None,
    overwrite: options.Overwrite = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Conversion:
    """Make an int8 artifact from each fp32 artifact of a bundle, and keep those with the same accuracy.

    With labelled `data`, layers stay in float if the task's metric would drop too far (see
    `edgecnn.converters.int8.search.search`). After a stop, it continues when it is called again with the same
    arguments.

    Args:
        bundle: a NAME.edge folder with fp32 artifacts.
        out: the bundle to write; default: the int8 artifacts are added to `bundle`.
        to: formats, or one; default: all with an fp32 artifact in the bundle.
        precision: one of `edgecnn.bundle.QUANTIZED` that the formats support (`edgecnn.formats`).
        calibration: pictures to measure activation ranges on; default: `data`, or its `split`.
        calibration_count: at most this many; default: 128.
        seed: calibration seed, which chooses the pictures.
        data: labelled pictures to search on.
        split: split of `data`; as for `edgecnn.datasets.open_dataset`.
        max_drop: how far the metric may be below the float artifact's, in its own unit; default: 0.01 (a point).
        evaluate_on: held-out labelled pictures, not used for calibration or search; they give the final drop.
        ignore_label: a class of the data whose pixels do not count.
        allow_drop: also write artifacts with a larger drop, and say so in their evidence.
        keep_slower: also write int8 artifacts that are no faster here than float: for another machine, or as they are
            smaller.
        budget_minutes: time for the search, for each format; default: 30.
        trusted_keys: as for `open_runner`: only a bundle that one of them signed is quantized; what is written is
            no longer signed.
        overwrite: replace a bundle at `out`, even if int8 artifacts or evidence are lost.
        progress: called with (steps done, steps in total, current step).

    Raises:
        SpecError, UnknownNameError: an impossible request, or one that would lose content of `out`.
        BundleError: damaged, or without a needed artifact.
        SignatureError: not signed by a trusted key, changed, expired, or older than what ran here before.
        DataError: pictures cannot be read, have no labels, or would be evaluated on although they were used.
        StorageError: disk full, or `out` not writable.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if out is None and is_shipped(opened.folder):
        raise SpecError(f"{opened.folder} ships with edgecnn and cannot be changed: give --out NAME.edge")
    manifest = opened.manifest
    if precision not in QUANTIZED:
        raise UnknownNameError("precision to quantize to", precision, QUANTIZED)
    formats = _formats(opened, to)
    if split is not None and data is None:
        raise SpecError("--split selects a part of labelled pictures: give --data")
    if data is None and evaluate_on is None and max_drop is not None:
        raise SpecError("--max-drop needs labelled pictures to measure the drop on: give --data")
    from edgecnn.converters.quantize_bundle import quantize_bundle

    written = opened.folder if out is None else Path(out)
    settings = int8_settings(
        manifest.frame,
        manifest.task,
        out=written,
        calibration=calibration if calibration is not None or split is not None else data,
        count=calibration_count,
        seed=seed,
        search_on=labelled_or_none(data, manifest.task, ignore_label, wanted=data is not None, split=split),
        evaluate_on=evaluate_on,
        ignore_label=ignore_label,
        max_drop=DEFAULT_MAX_DROP if max_drop is None else max_drop,
        allow_drop=allow_drop,
        keep_slower=keep_slower,
        budget_minutes=budget_minutes,
    )
    stated = stated_licenses(written)
    with contextlib.nullcontext(opened) if trusted_keys is None else private_bundle(opened, trusted_keys) as source:
        conversion = quantize_bundle(
            source,
            out=written,
            in_place=out is None or written.resolve() == opened.folder.resolve(),
            formats=formats,
            precision=precision,
            settings=settings,
            overwrite=overwrite,
            progress=progress,
        )
    renewed, remarks = renew_sbom(conversion.bundle, stated)
    return dataclasses.replace(conversion, bundle=renewed, warnings=(*conversion.warnings, *remarks))


def _formats(bundle: Bundle, to: str | Sequence[str] | None) -> list[str]:
    """The formats to quantize: the given ones, or all that can be."""
    held = [artifact.format for artifact in bundle.manifest.artifacts if artifact.precision == "fp32"]
    asked = [name for name in quantizable() if name in held] if to is None else kinds.one_or_more(to)
    formats = list(dict.fromkeys(asked))
    for name in formats:
        FORMATS.get(name)
    if not formats:
        raise BundleError(f"{bundle.folder} has no fp32 artifact of a format that can be quantized here")
    return formats
