"""The child process that tests one device: `python -m edgecnn.measure._trial_child FORMAT DEVICE`.

The request "try" returns the devices that the runtime sees, and the answer of the shipped network on DEVICE, if it
ships in that format. A runtime that crashes ends only this process.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecnn.bundle import Bundle
from edgecnn.bundle.shipped import ASSETS
from edgecnn.child import serve
from edgecnn.errors import Fault
from edgecnn.formats import FORMATS
from edgecnn.photographs import photographs
from edgecnn.runners.runner import open_runner

EXPECTED = ASSETS / "probe.json"
BUNDLE = ASSETS / "probe.edge"


def try_device(format_name: str, device: str) -> dict[str, Any]:
    """Open the shipped network on the device and compare its answer with torch's.

    Raises:
        DeviceError, MissingDependencyError: see `open_runner`.
    """
    expected = json.loads(Path(EXPECTED).read_text(encoding="utf-8"))
    start = time.perf_counter()
    with open_runner(BUNDLE, device=device, format=format_name, threads=1) as runner:
        answer: Any = runner(photographs()[expected["photograph"]])  # a classification: the shipped network is ours
        opened = runner.backend.opened
    scores = dict(zip(answer.class_ids.tolist(), answer.scores.tolist(), strict=True))
    difference = max(abs(scores[index] - score) for index, score in enumerate(expected["scores"]))
    return {
        "opened": msgspec.to_builtins(opened),
        "difference": float(np.nan_to_num(difference, nan=1.0)),
        "seconds": round(time.perf_counter() - start, 2),
    }


def try_it(format: str, device: str) -> dict[str, Any]:  # noqa: A002 - the field's word
    """The devices that the runtime sees, and the result of testing one: an answer, or a fault."""
    report: dict[str, Any] = {}
    try:
        report["found"] = [msgspec.to_builtins(found) for found in FORMATS.get(format).load_backend().devices()]
        if any(artifact.format == format for artifact in Bundle.open(BUNDLE).manifest.artifacts):
            report |= try_device(format, device)
    except Exception as error:  # the devices found are useful in spite of this error
        report["fault"] = Fault.of(error).document()
    return report


def main() -> None:
    """Serve requests to test."""
    serve({"try": lambda: try_it(*sys.argv[1:])})


if __name__ == "__main__":
    main()
