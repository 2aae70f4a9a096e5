"""The table of formats: every fact of one in one place, and half-equipped ones."""

from __future__ import annotations

import ast
import dataclasses
import re
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from edgecnn.bundle import PRECISIONS
from edgecnn.errors import DeviceError, MissingDependencyError, SpecError, UnknownNameError
from edgecnn.formats import (
    FORMATS,
    REFERENCE,
    Executor,
    Format,
    Runtime,
    compiler_of,
    format_of_runtime,
    no_runtime,
    rank,
    runtime_named,
    runtimes,
)
from tests.builders.repository import REPOSITORY

OWN = [FORMATS.get(name) for name in FORMATS.built_in()]

# Rooms of one format or runtime: there, and nowhere else, its name may stand.
ROOMS = (
    "edgecnn/formats/",
    *(f"converters/{row.name}" for row in OWN),
    *(f"converters/int8/{row.name}/" for row in OWN if row.int8_writer is not None),
    *(f"runners/{row.runtime.name}/" for row in OWN),
)


def named(*, parts: str) -> list[str]:
    return [row.name for row in OWN if getattr(row, parts) is not None]


def test_the_order_is_the_order_of_preference() -> None:
    assert FORMATS.built_in()[:3] == ["openvino", "onnx", "tflite"]
    assert sorted(["tflite", "nobody knows it", "onnx"], key=rank) == ["onnx", "tflite", "nobody knows it"]


@pytest.mark.parametrize("row", OWN, ids=lambda row: row.name)
def test_a_record_is_whole(row: Format) -> None:
    assert row.title and row.runtime.title and row.runtime.packages and row.runtime.modules
    assert all(suffix.startswith(".") for suffix in row.suffixes)
    assert set(row.precisions) <= set(PRECISIONS)
    assert list(row.precisions) == sorted(row.precisions, key=list(PRECISIONS).index)
    assert all(set(others) <= set(row.precisions) for others in row.also_runs.values())
    assert any(way.kind == "cpu" for way in row.runtime.executors)
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    parts = [part for part in (row.backend, row.layer_timer, row.converter, row.int8_writer) if part is not None]
    wanted = {part.extra for part in (*parts, *row.compilers.values())} | {way.extra for way in row.runtime.executors}
    assert wanted | {row.runtime.extra} <= set(extras)
    assert row.runtime.packages[0] in {re.split(r"[<>=\[;]", text)[0] for text in extras[row.runtime.extra]}


@pytest.mark.torch
@pytest.mark.parametrize("name", named(parts="converter"))
def test_a_converter_writes_precisions_of_the_record(name: str) -> None:
    row = FORMATS.get(name)
    try:
        assert set(row.load_converter().precisions) <= set(row.precisions)
    except MissingDependencyError as missing:
        pytest.skip(str(missing))


@pytest.mark.torch
@pytest.mark.parametrize("name", named(parts="int8_writer"))
def test_an_int8_writer_writes_precisions_of_the_record(name: str) -> None:
    row = FORMATS.get(name)
    try:
        assert {"int8", *row.load_int8_writer().whole_precisions} <= set(row.precisions)
    except MissingDependencyError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", named(parts="backend"))
def test_an_absent_runtime_is_named_with_its_extra(name: str, without: Callable[..., None]) -> None:
    row = FORMATS.get(name)
    without(*row.runtime.modules)
    assert not row.runs_here
    with pytest.raises(MissingDependencyError, match=rf"pip install 'edgecnn\[{row.runtime.extra}\]'"):
        row.load_backend()
    with pytest.raises(MissingDependencyError, match=rf"pip install 'edgecnn\[{row.runtime.extra}\]'"):
        raise no_runtime("this bundle", [name])


def test_a_format_without_a_part_says_so() -> None:
    runtime = Runtime(name="paper", title="Paper", packages=("paper",), modules=(), executors=())
    bare = Format(name="bare", title="Bare", suffixes=(".bare",), runtime=runtime, precisions=("fp32",))
    assert not (bare.runs_here or bare.converts_here or bare.quantizes_here)
    for load, message in (
        (bare.load_backend, "cannot be run: it has no back end"),
        (bare.load_converter, "cannot be written"),
        (bare.load_int8_writer, "cannot be quantized or read layer by layer"),
        (bare.load_layer_timer, "cannot be timed layer by layer"),
    ):
        with pytest.raises(SpecError, match=f"format 'bare' {message}"):
            load()


def test_executors_belong_to_their_runtime() -> None:
    row = Executor(runtime="paper", word="cpu", kind="cpu", provider="Pencil")
    with pytest.raises(SpecError, match=r"runtime 'stone': its executors \['cpu'\] belong to another runtime"):
        Runtime(name="stone", title="Stone", packages=(), modules=(), executors=(row,))


def test_a_runtimes_name_selects_its_format() -> None:
    for row in OWN:
        assert format_of_runtime(row.runtime.name) is row
        assert runtime_named(row.runtime.name) is row.runtime
    assert format_of_runtime(REFERENCE.name) is None
    assert runtime_named(REFERENCE.name) is REFERENCE
    assert runtime_named("paper") is None
    names = [runtime.name for runtime in runtimes()]
    assert len(set(names)) == len(names)


def test_a_plug_in_with_a_runtimes_name_that_is_taken_is_refused() -> None:
    for name in (OWN[0].runtime.name, REFERENCE.name):
        twin = dataclasses.replace(
            OWN[0], name="twin", runtime=dataclasses.replace(OWN[0].runtime, name=name, executors=())
        )
        assert f"its runtime's name, {name!r}, already belongs to" in FORMATS.refuse(twin)
    other = dataclasses.replace(OWN[0].runtime, name="paper", executors=())
    assert FORMATS.refuse(dataclasses.replace(OWN[0], name="other", runtime=other)) == ""


def test_a_compiler_is_found_by_format_and_name() -> None:
    assert compiler_of("onnx", "qualcomm-htp").import_path.startswith("edgecnn.converters.")
    with pytest.raises(UnknownNameError, match="no compiler of onnx files is called 'qualcom-htp'; did you mean"):
        compiler_of("onnx", "qualcom-htp")


@pytest.mark.runtime
def test_a_runtime_that_is_installed_and_broken_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    row = FORMATS.get("onnx")
    if not row.runs_here:
        pytest.skip("needs the extra [onnx]")
    broken = ImportError("libstdc++.so.6: version not found", name="onnxruntime.capi")

    def fail(name: str) -> object:
        raise broken

    monkeypatch.setattr("edgecnn.registry.import_module", fail)
    with pytest.raises(DeviceError, match=r"format 'onnx' cannot be used: onnxruntime.capi is installed and cannot be"):
        row.load_backend()


def sources() -> Iterator[Path]:
    for top in ("edgecnn", "converters", "runners"):
        for path in sorted((REPOSITORY / top).rglob("*.py")):
            if not path.is_relative_to(REPOSITORY / "edgecnn/converters") and not path.is_relative_to(
                REPOSITORY / "edgecnn/runners"
            ):
                yield path


def test_no_module_outside_its_rooms_names_a_format_or_a_runtime() -> None:
    words = {word for row in OWN for word in (row.name, row.runtime.name)}
    found = {}
    for path in sources():
        place = path.relative_to(REPOSITORY).as_posix()
        if place.startswith(ROOMS):
            continue
        constants = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        named_here = {value for value in constants if isinstance(value, str) and value in words}
        if named_here:
            found[place] = named_here
    assert not found, "ask the table `edgecnn.formats` instead"


def test_the_rooms_of_the_grep_are_there() -> None:
    assert all(
        any((REPOSITORY / room).parent.glob(f"{Path(room).name}*")) for room in ROOMS if not room.endswith("/int8/")
    )
    for row in OWN:
        if row.backend is not None and row.runs_here:
            assert import_module(row.backend.import_path.partition(":")[0])
