"""The child process that compiles for Qualcomm's NPU (see `edgecnn.child`).

It compiles, opens the result, and runs it once. QNN's compiler crashes on graphs with operators that it handles
wrongly; then only this process ends.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgecnn.child import serve
from edgecnn.runners.onnxruntime import qnn


def compile_and_run(model: str, context: str, architecture: str, threads: int) -> dict[str, Any]:
    """Write the context of `model`; returns where its nodes run, and how long it took.

    Raises:
        DeviceError, MissingDependencyError: see `edgecnn.runners.onnxruntime.qnn.open_session`.
    """
    start = time.perf_counter()
    options = _options(threads)
    for name, value in (
        ("ep.context_enable", "1"),
        ("ep.context_file_path", context),
        ("ep.context_embed_mode", "1"),  # one file, whatever it is called
    ):
        options.add_session_config_entry(name, value)
    where = qnn.assigned(qnn.open_session(Path(model), options, provider_options={"htp_arch": architecture}))
    compile_s = time.perf_counter() - start
    if Path(context).exists():
        session = qnn.open_session(Path(context), _options(threads))
        frame = session.get_inputs()[0]
        session.run(None, {frame.name: np.zeros(frame.shape, np.uint8)})
    return {"elsewhere": dict(where.elsewhere), "conversions": where.conversions, "compile_s": compile_s}


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return options


def main() -> None:
    """Serve requests to compile."""
    serve({"compile": compile_and_run})


if __name__ == "__main__":
    main()
