"""What `import edgecnn` gives, and what it leaves alone."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

import edgecnn

# What a device can do without until it is needed, and what must never load by itself.
HEAVY = (
    "torch", "torchvision", "litert_torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime",
    "cv2", "numpy", "msgspec", "click", "rich",
)  # fmt: skip


def _modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    # -P: the working folder isn't on the path, as for an installed package
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_edgecnn_loads_neither_torch_nor_a_runtime_nor_numpy() -> None:
    loaded = _modules_after("import edgecnn")
    assert "edgecnn" in loaded
    assert not loaded & set(HEAVY)


def test_opening_runners_needs_no_torch() -> None:
    loaded = _modules_after("import edgecnn; edgecnn.open_runner; edgecnn.run; edgecnn.bench; edgecnn.live")
    assert "cv2" in loaded
    assert not loaded & {"torch", "torchvision", "litert_torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert"}


@pytest.mark.runtime
def test_a_runner_does_not_load_what_reports_its_use() -> None:
    if not any(d.name == "openvino-telemetry" for d in distributions()):
        pytest.skip("openvino brought no reporter")
    open_it = "import edgecnn; edgecnn.open_runner('default-detector', format='openvino')"
    loaded = _modules_after(open_it)
    assert "openvino.tools.ovc.telemetry_stub" in loaded  # what stands for it where it is absent
    assert "openvino_telemetry.main" not in loaded


@pytest.mark.runtime
def test_onnxruntime_leaves_no_device_id(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    program = "import edgecnn; edgecnn.open_runner('default-detector', format='onnx')"
    outside = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    subprocess.run([sys.executable, "-c", program], check=True, env={**outside, "HOME": str(tmp_path)})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_command_line_is_built_without_torch_or_a_runtime_or_opencv() -> None:
    loaded = _modules_after("import edgecnn.cli._main")
    assert "click" in loaded
    assert not loaded & (set(HEAVY) - {"click", "msgspec"})


def test_every_name_in_all_can_be_got() -> None:
    assert [name for name in edgecnn.__all__ if not hasattr(edgecnn, name)] == []


def test_every_name_that_is_found_on_first_use_is_in_all() -> None:
    assert set(edgecnn._HOMES) | {"__version__"} == set(edgecnn.__all__)
    assert edgecnn.__all__ == sorted(edgecnn.__all__)


def test_an_unknown_name_is_an_attribute_error_that_says_so() -> None:
    with pytest.raises(AttributeError, match="open_runer"):
        edgecnn.open_runer  # noqa: B018


def test_no_submodule_has_the_name_of_a_public_function() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(edgecnn.__path__)}
    assert {"runners", "converters"} <= submodules  # the links are followed
    assert not submodules & set(edgecnn.__all__)
