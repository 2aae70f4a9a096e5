"""Checks that an opened file runs on the requested device and in the requested precision."""

from __future__ import annotations

from pathlib import Path

from edgecnn.bundle import Artifact
from edgecnn.bundle.evidence import Opened
from edgecnn.errors import DeviceError

_MOST = 0.5  # share of a graph's operators


def check_execution(opened: Opened, path: Path) -> Opened:
    """Returns what was opened if it runs as requested.

    Most of the graph's operators must be on the device, and its convolutions and matrix products must compute in the
    requested precision, as far as the runtime reports it; "fp16" leaves it to the device (docs/decisions/0002).

    Raises:
        DeviceError: it is not.
    """
    if opened.operators and (opened.operators_on_device or 0) < _MOST * opened.operators:
        elsewhere = ", ".join(f"{count} on {where}" for where, count in opened.operators_elsewhere.items())
        raise DeviceError(
            f"{opened.provider} runs only {opened.operators_on_device} of the {opened.operators} operators of "
            f"{path.name}; the others would run elsewhere ({elsewhere}): use that device instead"
        )
    computes = opened.arithmetic
    wrong = {
        "fp32": bool(computes) and set(computes) != {"fp32"},
        "bf16": bool(computes) and "bf16" not in computes,
    }
    if wrong.get(opened.precision, False):
        raise _other_precision(opened, path.name)
    return opened


def check_int8(opened: Opened, artifact: Artifact) -> None:
    """Check that an artifact with int8 layers runs some of them in int8; its evidence says how many.

    Raises:
        DeviceError: none runs in int8.
    """
    made = artifact.evidence.quantization
    if made is not None and made.int8_mac_share > 0 and opened.arithmetic and "int8" not in opened.arithmetic:
        raise _other_precision(opened, artifact.path)


def _other_precision(opened: Opened, file: str) -> DeviceError:
    found = ", ".join(f"{count} in {name}" for name, count in opened.arithmetic.items())
    return DeviceError(
        f"{file} was to run in {opened.precision}, but on {opened.device_name} {opened.provider} computes "
        f"in another precision (convolutions and matrix products: {found})"
    )
