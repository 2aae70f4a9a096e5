"""What an artifact answers on a device: `python gpu_answers.py BUNDLE FORMAT PRECISION DEVICE FRAMES.npy OUT.npz`.

Run in an environment of its own, where the device is; writes the arrays, and prints what was opened as JSON.
"""

import sys
from typing import Any

import msgspec
import numpy as np

from edgecnn.runners.runner import open_runner


def main() -> None:
    bundle, format_name, precision, device, frames, out = sys.argv[1:]
    answers: dict[str, Any] = {}
    with open_runner(bundle, device=device, format=format_name, precision=precision, threads=2) as runner:
        opened = runner.backend.opened
        for index, frame in enumerate(np.load(frames)):
            for name, values in runner.backend.infer(frame).items():
                answers[f"{index} {name}"] = values.copy()
    np.savez(out, **answers)
    sys.stdout.write(msgspec.json.encode(opened).decode())


if __name__ == "__main__":
    main()
