"""The process that tries one device: `python -m edgecnn.measure._trial_child FORMAT DEVICE`.

It prints one JSON line: which devices the runtime sees, and what the network that ships for this answered on DEVICE.
A runtime that ends its process ends only this one.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecnn._photographs import photographs
from edgecnn._shipped import ASSETS
from edgecnn.errors import EdgeCnnError
from edgecnn.registry import BACKENDS
from edgecnn.results import Classification
from edgecnn.runners.base import open_runner

EXPECTED = ASSETS / "probe.json"
BUNDLE = ASSETS / "probe.edge"


def try_device(format_name: str, device: str) -> dict[str, Any]:
    """Open the shipped network there and compare its answer with torch's.

    Raises:
        DeviceError, MissingDependencyError: see `open_runner`.
    """
    expected = json.loads(Path(EXPECTED).read_text(encoding="utf-8"))
    start = time.perf_counter()
    with open_runner(BUNDLE, device=device, format=format_name, threads=1) as runner:
        answer = runner(photographs()[expected["photograph"]])
        opened = runner.backend.opened
    assert isinstance(answer, Classification)
    scores = dict(zip(answer.class_ids.tolist(), answer.scores.tolist(), strict=True))
    difference = max(abs(scores[index] - score) for index, score in enumerate(expected["scores"]))
    return {
        "opened": msgspec.to_builtins(opened),
        "difference": float(np.nan_to_num(difference, nan=1.0)),
        "seconds": round(time.perf_counter() - start, 2),
    }


def main() -> None:
    """Try, and print."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a runtime prints must not come between
    format_name, device = sys.argv[1:]
    said: dict[str, Any] = {}
    try:
        said["found"] = [msgspec.to_builtins(found) for found in BACKENDS.get(format_name).devices()]
        said |= try_device(format_name, device)
    except EdgeCnnError as error:
        said["reason"] = str(error)
    except Exception as error:
        said["reason"] = f"{type(error).__name__}: {error}"
    answers.write(json.dumps(said) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
