"""Measure how fast a bundle's artifacts are on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from edgecnn._devices import RUNTIMES, DeviceName, parse_device
from edgecnn._photographs import photographs
from edgecnn.bundle import Bundle, record_evidence
from edgecnn.datasets import iterate_frames
from edgecnn.errors import BundleError, DeviceError, MissingDependencyError, SpecError, StorageError, UnknownNameError
from edgecnn.evidence import LatencyEvidence
from edgecnn.measure._timing import PROFILES, Job, Profile, time_jobs
from edgecnn.measure.latency import BenchFailure, BenchReport, BenchResult
from edgecnn.measure.machine import Machine, describe_machine
from edgecnn.registry import BACKENDS
from edgecnn.results import UInt8Array
from edgecnn.runners.base import artifacts_for, formats_for, held
from edgecnn.targets import threads_here

PICTURE_SIZE_PX = (640, 480)
DEFAULT_TIMEOUT_S = 300.0
_DISTINCT_PICTURES = 8
_MOST_PICTURES = 16
_LAYERS_RECORDED = 10


def bench(
    bundle: str | Path | Bundle,
    *,
    device: str = "cpu",
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    threads: int | Sequence[int] | None = None,
    data: str | Path | None = None,
    picture_size_px: tuple[int, int] = PICTURE_SIZE_PX,
    profile: str = "quick",
    iterations: int | None = None,
    duration_s: float | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    record: bool = True,
    layers: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    on_spawn: Callable[[Job, int], None] | None = None,
) -> BenchReport:
    """Time a bundle's artifacts: one process each, in turns, one picture at a time.

    A picture lies in memory and a Result comes out: fit + infer + finish. An artifact whose process refuses, dies
    or hangs becomes a failure of the report; the others are measured all the same.

    Args:
        bundle: a NAME.edge folder.
        device: as for `open_runner`; what an accelerator answers is first compared with the processor's answers, and
            beyond the precision's limit the artifact fails.
        format: only this; without it, every artifact whose runtime is installed.
        precision: only this; "bf16" runs OpenVINO's fp32 file in bf16. Without it, each artifact in its own.
        threads: of one inference, or several to compare; without it, the cores that this process may use.
        data: pictures to look at, as they are; without it the photographs that come with edgecnn.
        picture_size_px: width and height to which those photographs are brought.
        profile: "quick" (at least 64 samples and 5 s) or "standard" (1024 and 60 s), each artifact.
        iterations: exactly so many samples of each artifact, instead of the profile's rule.
        duration_s: at least so long for each artifact, instead of the profile's rule; with `iterations`, both.
        timeout_s: how long a process may say nothing beyond what its work takes.
        record: write the figures into the bundle's manifest.
        layers: also tell how long each of the runtime's operators takes, from its own profile.
        progress: called with (steps done, steps in all, what is being done).
        on_spawn: called with each job and the id of its process.

    Raises:
        BundleError: damaged, or holds nothing of what was asked for.
        MissingDependencyError: none of its runtimes is installed, or not the one asked for.
        SpecError: an unknown profile, threads below 1, no samples.
        DataError: `data` cannot be read.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    rule = _profile(profile, iterations, duration_s)
    counts = _thread_counts(threads)
    jobs, notes = _plan(opened, device=device, format=format, precision=precision, threads=counts)
    pictures, pictures_name = _pictures(data, picture_size_px)
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


def _profile(name: str, iterations: int | None, duration_s: float | None) -> Profile:
    if name not in PROFILES:
        raise UnknownNameError("profile", name, PROFILES)
    profile = PROFILES[name]
    if iterations is None and duration_s is None:
        return profile
    if iterations is not None and iterations < 1:
        raise SpecError(f"iterations must be at least 1, got {iterations}")
    if duration_s is not None and duration_s <= 0:
        raise SpecError(f"duration must be positive, got {duration_s:g} s")
    samples, seconds = iterations or 1, duration_s or 0.0
    return dataclasses.replace(
        profile,
        name=f"{iterations} iterations" if duration_s is None else f"{seconds:g} s",
        samples=samples,
        seconds=seconds,
        # Iterations were asked for by number: they are all taken, however long each is.
        cap_seconds=max(profile.cap_seconds, 2 * seconds) if iterations is None else 24 * 3600.0,
        rounds=profile.rounds if iterations is None else min(profile.rounds, samples),
    )


def _thread_counts(threads: int | Sequence[int] | None) -> list[int]:
    counts = [threads_here()] if threads is None else [threads] if isinstance(threads, int) else list(threads)
    for count in counts:
        if count < 1:
            raise SpecError(f"threads must be at least 1, got {count}")
    return list(dict.fromkeys(counts))


def _plan(
    bundle: Bundle,
    *,
    device: str,
    format: str | None,  # noqa: A002
    precision: str | None,
    threads: Sequence[int],
) -> tuple[list[Job], list[str]]:
    """What is to be timed, and what is left out and why."""
    name = parse_device(device)
    if format is not None:
        BACKENDS.extra(format)  # an unknown name is refused here, with what is near
    if name.runtime:
        meant = RUNTIMES[name.runtime]
        if format not in (None, meant):
            raise SpecError(f"device {device!r} belongs to {meant}, but the format asked for is {format!r}")
        format = meant  # noqa: A001
    fitting = artifacts_for(bundle.manifest, name, precision=precision)
    candidates = [artifact for artifact in fitting if format in (None, artifact.format)]
    installed = BACKENDS.installed()
    absent = list(dict.fromkeys(a.format for a in candidates if a.format not in installed))
    if absent and (format is not None or not any(a.format in installed for a in candidates)):
        raise MissingDependencyError(f"{absent[0]} artifacts", absent[0], extra=BACKENDS.extra(absent[0]))
    there = list(dict.fromkeys(a.format for a in candidates if a.format in installed))
    running = there if format is not None else _formats_with(name, there)
    jobs = [
        Job(
            bundle=bundle.folder,
            artifact=artifact,
            precision=precision or artifact.precision,
            device=device,
            threads=count,
        )
        for artifact in candidates
        if artifact.format in running
        and (
            precision in (None, artifact.precision)
            or precision in BACKENDS.get(artifact.format).precisions(artifact.precision)
        )
        for count in threads
    ]
    if not jobs:
        wanted = " ".join(word for word in (format, precision) if word) or "artifact"
        raise BundleError(f"{bundle.folder} holds no {wanted} for device {device!r}; it holds: {held(bundle.manifest)}")
    notes = [
        f"{name} is left out, its runtime is not installed: pip install 'edgecnn[{BACKENDS.extra(name)}]'"
        for name in absent
    ]
    notes += [
        f"{left_out} is left out, its runtime has no {device} here" for left_out in there if left_out not in running
    ]
    return jobs, notes


def _formats_with(device: DeviceName, formats: list[str]) -> list[str]:
    """The formats whose runtime has such a device; all where none has, so that each says what it lacks."""
    try:
        return formats_for(device, formats)
    except DeviceError:
        return formats


def _pictures(data: str | Path | None, size_px: tuple[int, int]) -> tuple[list[UInt8Array], str]:
    """At least eight different pictures, and what they are: no two calls in a row see the same."""
    if data is None:
        return default_pictures(size_px), f"photographs, {size_px[0]}x{size_px[1]}"
    pictures = iterate_frames(data, _MOST_PICTURES)
    sizes = {f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures}
    return _at_least_eight(pictures), f"{Path(data).name}, {sizes.pop() if len(sizes) == 1 else 'different sizes'}"


def default_pictures(size_px: tuple[int, int]) -> list[UInt8Array]:
    """Eight pictures of this width and height, from the photographs that come with edgecnn."""
    if min(size_px) < 1:
        raise SpecError(f"the pictures' size must be positive, got {size_px[0]}x{size_px[1]} px")
    return _at_least_eight([cover(picture, size_px) for picture in photographs().values()])


def _at_least_eight(given: list[UInt8Array]) -> list[UInt8Array]:
    pictures = list(given)
    for index in range(_DISTINCT_PICTURES - len(given)):
        # Mirrored, and from the second time round also moved, so that all are different.
        moved = np.roll(given[index % len(given)][:, ::-1], 16 * (index // len(given)), axis=1)
        pictures.append(np.ascontiguousarray(moved))
    return pictures


def cover(picture: UInt8Array, size_px: tuple[int, int]) -> UInt8Array:
    """The middle of a picture, of width and height `size_px`, as large as fits."""
    width, height = size_px
    scale = max(width / picture.shape[1], height / picture.shape[0])
    resized = cv2.resize(
        picture,
        (max(round(picture.shape[1] * scale), width), max(round(picture.shape[0] * scale), height)),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    top, left = (resized.shape[0] - height) // 2, (resized.shape[1] - width) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width]).astype(np.uint8, copy=False)


def record_latency(folder: Path, results: Sequence[BenchResult], machine: Machine) -> list[str]:
    """Put the figures into a bundle's manifest, wherever they were measured; what that didn't allow, as notes."""
    bundle = Bundle.open(folder)  # as it is now: a minute ago is long
    evidence = {}
    for artifact in bundle.manifest.artifacts:
        new = [result for result in results if result.sha256 == artifact.sha256]
        if not new:
            continue
        replaced = {_measured_as(result.figures(), machine) for result in new}
        kept = [
            old
            for old in artifact.evidence.latency
            if _measured_as(old.figures, msgspec.convert(old.machine, Machine)) not in replaced
        ]
        added = [LatencyEvidence(figures=_recorded(result), machine=msgspec.to_builtins(machine)) for result in new]
        evidence[artifact.key] = msgspec.structs.replace(artifact.evidence, latency=(*kept, *added))
    try:
        record_evidence(bundle, evidence)
    except StorageError as failed:
        return [f"the figures were not written into the bundle: {failed}"]
    return []


def _recorded(result: BenchResult) -> dict[str, Any]:
    """The figures that a manifest keeps: of layers, the slowest."""
    return msgspec.structs.replace(result, layers=result.layers[:_LAYERS_RECORDED]).figures()


def _measured_as(figures: dict[str, object], machine: Machine) -> tuple[object, ...]:
    """What makes two measurements of an artifact ones of the same thing: the later replaces the earlier."""
    return (*(figures.get(name) for name in ("device", "precision", "threads")), *machine.identity)
