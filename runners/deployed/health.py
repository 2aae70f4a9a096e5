"""Whether a bundle works on this board: it opens, answers as where it came from, and is fast enough."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import QUANTIZED
from edgecnn.errors import ParityError, SpecError, SpeedError
from edgecnn.frame import FrameFitter
from edgecnn.photographs import photographs
from edgecnn.results import UInt8Array
from edgecnn.runners.runner import Runner

# Processors round differently, in half precision too; int8 sums may saturate in other places.
_MOST_ERROR: Final = 0.03  # of floats: largest difference, of the largest value
_LEAST_SNR_DB: Final = 12.0  # of int8's floats
_LEAST_EQUAL: Final = 0.98  # of whole numbers, such as classes of pixels
_TIMED: Final = 21
_LARGEST_BYTES: Final = 64 << 20

Answers = Mapping[str, NDArray[Any]]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial of a bundle found.

    Attributes:
        runs: format, precision, device and runtime, in words.
        latency_ms: median time of one inference, while the board does what else it does.
        agreement: by the photograph and the output, how well it answers: "error 0.001", "22 dB", "99.9 % equal".
    """

    runs: str
    latency_ms: float
    agreement: dict[str, str]


def reference_answers(runner: Runner) -> bytes:
    """The answers of an open runner for the photographs that ship with edgecnn, as an .npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **_answers(runner))
    return file.getvalue()


def check_health(runner: Runner, reference: bytes, *, most_latency_ms: float | None) -> Health:
    """Compare its answers with those of where it came from, and time it.

    Raises:
        ParityError: it answers differently.
        SpeedError: it is slower than allowed.
        SpecError: the reference is not one.
    """
    wanted, found = _read(reference), _answers(runner)
    if wanted.keys() != found.keys():
        raise SpecError(f"the reference has answers {sorted(wanted)}, the bundle {sorted(found)}")
    quantized = runner.precision in QUANTIZED
    agreement = {name: _agreement(name, found[name], wanted[name], quantized=quantized) for name in wanted}
    latency_ms = _latency_ms(runner)
    if most_latency_ms is not None and latency_ms > most_latency_ms:
        raise SpeedError(f"one inference takes {latency_ms:.1f} ms on this board, more than {most_latency_ms:g} ms")
    opened = runner.backend.opened
    runs = f"{runner.format} {runner.precision} on {opened.device_name} ({opened.runtime})"
    return Health(runs=runs, latency_ms=round(latency_ms, 2), agreement=agreement)


def _answers(runner: Runner) -> dict[str, NDArray[Any]]:
    """Of each photograph, each output: "cat/scores"."""
    found = {}
    for name, picture in photographs().items():
        for output, values in runner.backend.infer(_frames(runner, picture)).items():
            found[f"{name}/{output}"] = np.array(values)
    return found


def _frames(runner: Runner, picture: UInt8Array) -> UInt8Array:
    frame, _ = FrameFitter(runner.frame)(picture)
    return np.repeat(frame, runner.batch, axis=0)


def _latency_ms(runner: Runner) -> float:
    frames = _frames(runner, next(iter(photographs().values())))
    samples = []
    for _ in range(_TIMED):
        start = time.perf_counter_ns()
        runner.backend.infer(frames)
        samples.append(time.perf_counter_ns() - start)
    return float(np.median(samples[1:])) / 1e6


def _agreement(name: str, found: NDArray[Any], wanted: NDArray[Any], *, quantized: bool) -> str:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise ParityError(f"{name} is {found.dtype} {list(found.shape)}, expected {wanted.dtype} {list(wanted.shape)}")
    if found.dtype.kind != "f":
        equal = float(np.mean(found == wanted))
        if equal < _LEAST_EQUAL:
            raise ParityError(f"{name}: {equal:.1%} equal to where it came from, expected {_LEAST_EQUAL:.0%}")
        return f"{equal:.2%} equal"
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    if not np.isfinite(one).all():
        raise ParityError(f"{name} is not finite on this board")
    if quantized:
        noise = float(np.mean((one - other) ** 2))
        snr_db = 99.0 if noise == 0 else 10 * float(np.log10(max(float(np.mean(other**2)), 1e-30) / noise))
        if snr_db < _LEAST_SNR_DB:
            raise ParityError(f"{name}: {snr_db:.1f} dB to where it came from, expected {_LEAST_SNR_DB:g} dB")
        return f"{min(snr_db, 99.0):.1f} dB"
    error = float(np.max(np.abs(one - other))) / max(float(np.max(np.abs(other))), 1e-12)
    if error > _MOST_ERROR:
        raise ParityError(f"{name}: differs by {error:.2g} from where it came from, expected {_MOST_ERROR:g}")
    return f"error {error:.1e}"


def _read(reference: bytes) -> dict[str, NDArray[Any]]:
    if len(reference) > _LARGEST_BYTES:
        raise SpecError("the reference is too large")
    try:
        with np.load(io.BytesIO(reference), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, KeyError, EOFError) as wrong:
        raise SpecError(f"the reference cannot be read: {wrong}") from wrong
