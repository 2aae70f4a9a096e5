"""The process that compiles for Qualcomm's NPU: `python -m` it with FILE CONTEXT ARCH THREADS.

It compiles, opens what it wrote, runs it once, and prints one JSON line. QNN's compiler ends its process at graphs that
it has a mistake for; so it ends only this one.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgecnn.errors import EdgeCnnError
from edgecnn.runners import onnxruntime_qnn as qnn


def compile_and_run(model: Path, context: Path, architecture: str, threads: int) -> dict[str, Any]:
    """Write the context of `model`; gives where its nodes are, and how long it took.

    Raises:
        DeviceError, MissingDependencyError: see `edgecnn.runners.onnxruntime_qnn.open_session`.
    """
    start = time.perf_counter()
    options = _options(threads)
    for name, value in (
        ("ep.context_enable", "1"),
        ("ep.context_file_path", str(context)),
        ("ep.context_embed_mode", "1"),  # one file, whatever it is called
    ):
        options.add_session_config_entry(name, value)
    where = qnn.assigned(qnn.open_session(model, options, told={"htp_arch": architecture}))
    compile_s = time.perf_counter() - start
    if context.exists():
        session = qnn.open_session(context, _options(threads))
        frame = session.get_inputs()[0]
        session.run(None, {frame.name: np.zeros(frame.shape, np.uint8)})
    return {"elsewhere": dict(where.elsewhere), "conversions": where.conversions, "compile_s": compile_s}


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return options


def main() -> None:
    """Compile, and print."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the compiler prints must not come between
    model, context, architecture, threads = sys.argv[1:]
    try:
        said = compile_and_run(Path(model), Path(context), architecture, int(threads))
    except EdgeCnnError as error:
        said = {"refused": str(error)}
    answers.write(json.dumps(said) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
