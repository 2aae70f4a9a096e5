"""`python -m edgecnn` is the `edgecnn` command."""

import os
import sys

if not getattr(sys.flags, "safe_path", False) and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]  # the working folder, where a file `onnx.py` would hide the package

from edgecnn.cli._main import entry_point

entry_point()
