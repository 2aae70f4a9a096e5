"""The tables of back ends and converters."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecnn.errors import EdgeCnnError, MissingDependencyError, UnknownNameError
from edgecnn.registry import BACKENDS, CONVERTERS, Registry


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_part_is_imported_when_it_is_asked_for_and_not_before(modules: Path) -> None:
    (modules / "part_that_is_there.py").write_text("class Part: pass\n")
    table: Registry[type] = Registry("format")
    table.add("mine", "part_that_is_there:Part", extra="mine")
    assert table.names() == table.installed() == ["mine"]
    assert "part_that_is_there" not in sys.modules
    assert table.get("mine").__name__ == "Part"


def test_a_missing_package_is_named_with_the_extra_that_brings_it(modules: Path) -> None:
    (modules / "part_that_needs.py").write_text("import a_package_that_is_not_there\n")
    table: Registry[type] = Registry("format")
    table.add("mine", "part_that_needs:Part", extra="mine", needs=("a_package_that_is_not_there",))
    assert table.names() == ["mine"]
    assert table.installed() == []
    with pytest.raises(MissingDependencyError) as missing:
        table.get("mine")
    assert str(missing.value) == (
        "format 'mine' needs the package 'a_package_that_is_not_there', which is not installed: "
        "pip install 'edgecnn[mine]'"
    )
    assert missing.value.extra == "mine"
    assert missing.value.exit_code == 2


def test_a_module_of_ours_that_is_missing_is_no_missing_package() -> None:
    table: Registry[type] = Registry("format")
    table.add("mine", "edgecnn.no_such_module:Part", extra="mine")
    with pytest.raises(ModuleNotFoundError):
        table.get("mine")


def test_one_of_several_packages_is_enough() -> None:
    table: Registry[type] = Registry("format")
    table.add("either", "x:Y", extra="e", needs=("a_package_that_is_not_there", "json"))
    table.add("neither", "x:Y", extra="e", needs=("a_package_that_is_not_there", "absent.part"))
    assert table.installed() == ["either"]


def test_an_unknown_name_is_refused_with_what_is_near() -> None:
    with pytest.raises(UnknownNameError, match="no format is called 'openvno'; did you mean openvino") as refused:
        BACKENDS.get("openvno")
    assert refused.value.exit_code == 2
    assert refused.value.known == sorted(BACKENDS.names())
    with pytest.raises(UnknownNameError, match="no format is called 'zzz'; known: onnx, openvino, tflite"):
        CONVERTERS.extra("zzz")


def test_a_name_that_is_taken_is_a_mistake() -> None:
    table: Registry[type] = Registry("format")
    table.add("mine", "a:B", extra="e")
    with pytest.raises(ValueError, match="format 'mine' is already a:B"):
        table.add("mine", "c:D", extra="e")


def test_every_format_that_is_written_is_also_run_by_a_back_end() -> None:
    assert set(CONVERTERS.names()) <= set(BACKENDS.names())
    assert BACKENDS.names() == ["openvino", "onnx", "tflite"], "the order of preference"


@pytest.mark.parametrize("name", BACKENDS.names())
def test_an_absent_runtime_is_named_with_its_extra(name: str, without: Callable[..., None]) -> None:
    packages = {"openvino": ["openvino"], "onnx": ["onnxruntime"], "tflite": ["ai_edge_litert", "tflite_runtime"]}
    without(*packages[name])
    with pytest.raises(MissingDependencyError, match=rf"pip install 'edgecnn\[{name}\]'"):
        BACKENDS.get(name)


def test_every_error_has_an_exit_code_of_the_design() -> None:
    found = [EdgeCnnError]
    for error in found:
        found += error.__subclasses__()
    assert {error.exit_code for error in found} == {1, 2, 3}
    assert {e.__name__ for e in found if e.exit_code == 1} == {
        "GateError",
        "ConversionError",
        "ParityError",
        "BlindError",
        "AccuracyError",
        "TrainingError",
    }
    assert {e.__name__ for e in found if e.exit_code == 3} == {"DeviceError", "BoardError", "StorageError"}
