"""Measure how fast a bundle's artifacts are on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from edgecnn import options
from edgecnn.bundle import Bundle
from edgecnn.measure.jobs import Job, plan_jobs
from edgecnn.measure.latency import BenchFailure, BenchReport, BenchResult
from edgecnn.measure.latency_evidence import record_latency
from edgecnn.measure.machine import describe_machine
from edgecnn.measure.profiles import chosen_profile
from edgecnn.measure.timed_pictures import PICTURE_SIZE_PX, pictures_to_time_on
from edgecnn.measure.timing import DEFAULT_TIMEOUT_S, time_jobs
from edgecnn.options import Option, kinds
from edgecnn.runners.trusted import private_bundle

_MEASURED = "Measurement"


def bench(
    bundle: options.BundleName,
    *,
    device: options.Device = "cpu",
    format: Annotated[options.Format, Option(help="Only {formats}.", default="all whose runtime is installed")] = None,  # noqa: A002
    precision: Annotated[
        options.Precision,
        Option(
            help="Only fp32, fp16 or int8; bf16 runs fp32 of {bf16_formats} in bf16.", default="each artifact's own"
        ),
    ] = None,
    threads: Annotated[
        int | Sequence[int] | None,
        Option(
            help="Threads per inference; several to compare: 1,2,4.",
            kind=kinds.WHOLES,
            default="the cores that this process may use",
            group=options.RUNTIME,
        ),
    ] = None,
    data: Annotated[
        str | Path | None,
        Option(
            help="Pictures to measure with: an image, a folder, a video.",
            default="photographs that ship with edgecnn",
            group=_MEASURED,
        ),
    ] = None,
    picture_size_px: Annotated[
        tuple[int, int],
        Option(
            name="picture-size",
            help="Size to which the photographs that ship are resized.",
            kind=kinds.PICTURE_SIZE,
            group=_MEASURED,
        ),
    ] = PICTURE_SIZE_PX,
    profile: Annotated[
        str,
        Option(
            help="quick (64 samples, 5 s) or standard (1024 samples, 60 s) for each artifact.",
            metavar="PROFILE",
            group=_MEASURED,
        ),
    ] = "quick",
    iterations: Annotated[int | None, Option(group=_MEASURED)] = None,
    duration_s: Annotated[
        float | None,
        Option(name="duration", help="Instead: at least this many seconds for each artifact.", group=_MEASURED),
    ] = None,
    trusted_keys: options.TrustedKeys = None,
    timeout_s: Annotated[
        float,
        Option(name="timeout", help="Seconds without output after which a process is ended.", group=_MEASURED),
    ] = DEFAULT_TIMEOUT_S,
    layers: Annotated[
        bool,
        Option(help="Also report the time of each layer, from the runtime's own profile.", group=_MEASURED),
    ] = False,
    record: Annotated[bool, Option(negative=True, group=options.OUTPUT)] = True,
    progress: Callable[[int, int, str], None] | None = None,
    on_spawn: Callable[[Job, int], None] | None = None,
) -> BenchReport:
    """Measure the latency of a bundle's artifacts: each in its own process, in turns, one picture at a time.

    The time is from a picture in memory to a Result: fit + infer + finish. An artifact whose process refuses, crashes
    or hangs becomes a failure in the report; the others are still measured.

    Args:
        bundle: a NAME.edge folder.
        device: as for `open_runner`; an accelerator's answers are first compared with the processor's, and an artifact
            beyond the precision's limit fails.
        format: only this format; default: every artifact whose runtime is installed.
        precision: only this precision; "bf16" runs an fp32 OpenVINO file in bf16. Default: each artifact's own.
        threads: threads per inference, or several numbers to compare; default: the cores that this process may use.
        data: pictures to measure with, in their own size; default: the photographs that ship with edgecnn.
        picture_size_px: width and height to which those photographs are resized.
        profile: "quick" (at least 64 samples and 5 s) or "standard" (1024 and 60 s), for each artifact.
        iterations: exact number of samples for each artifact, instead of the profile's rule.
        duration_s: minimum duration for each artifact, instead of the profile's rule; with `iterations`, both.
        trusted_keys: as for `open_runner`; then a private copy is measured, and a signed bundle gets no figures.
        timeout_s: how long a process may be silent beyond the time that its work needs.
        record: write the figures into the bundle's manifest.
        layers: also report the time of each of the runtime's operators, from its own profile.
        progress: called with (steps done, steps in all, what is being done).
        on_spawn: called with each job and its process id.

    Raises:
        BundleError: damaged, or has no such artifact.
        SignatureError: not signed by a trusted key, changed, expired, or older than what ran here before.
        MissingDependencyError: none of its runtimes is installed, or not the requested one.
        SpecError: an unknown profile, threads below 1, no samples.
        DataError: `data` cannot be read.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    rule = chosen_profile(profile, iterations, duration_s)
    with contextlib.nullcontext(opened) if trusted_keys is None else private_bundle(opened, trusted_keys) as timed:
        jobs, notes = plan_jobs(timed, device=device, format=format, precision=precision, threads=threads)
        pictures, pictures_name = pictures_to_time_on(data, picture_size_px)
        machine = describe_machine()
        outcomes = time_jobs(
            jobs,
            machine=machine,
            pictures=pictures,
            pictures_name=pictures_name,
            profile=rule,
            timeout_s=timeout_s,
            layers=layers,
            progress=progress,
            on_spawn=on_spawn,
        )
    results = tuple(outcome for outcome in outcomes if isinstance(outcome, BenchResult))
    if record and results:
        notes += record_latency(opened.folder, results, machine)
    return BenchReport(
        bundle=opened.manifest.name,
        machine=machine,
        results=results,
        failures=tuple(outcome for outcome in outcomes if isinstance(outcome, BenchFailure)),
        notes=tuple(notes),
    )
