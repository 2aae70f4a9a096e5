"""The reader of TFLite files: right on good ones, and on bad ones a refusal, in bounded time."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from edgecnn.bundle.shipped import ASSETS
from edgecnn.runners.litert.file import MalformedFile, read, read_file

FILES = sorted(ASSETS.glob("*.edge/*.tflite"))
PROBE = (ASSETS / "probe.edge").glob("*.tflite").__next__()
NUMBERS = (0, 1, 2, 3, 5, 7, -1, -2, 16, 255, 65535, 65536, 2**31 - 1, -(2**31), 2**20)


def mutated(content: bytes, seed: int) -> bytes:
    rng, changed = random.Random(seed), bytearray(content)
    for _ in range(rng.choice([1, 2, 3])):
        place = rng.randrange(len(changed) // 4) * 4
        number = rng.choice([*NUMBERS, rng.randrange(2**31)])
        changed[place : place + 4] = number.to_bytes(4, "little", signed=True)
    return bytes(changed)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.stem)
def test_it_reads_what_the_schemas_own_reader_reads(path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs the extra [tflite]")
    operators, tensors = read_file(path)
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    assert len(operators) == graph.OperatorsLength()
    assert len(tensors) == graph.TensorsLength()
    for index, operator in enumerate(operators):
        found = graph.Operators(index)
        code = model.OperatorCodes(found.OpcodeIndex())
        assert operator.kind == names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        assert list(operator.inputs) == found.InputsAsNumpy().tolist()
        assert list(operator.outputs) == found.OutputsAsNumpy().tolist()
        if operator.kind in {"CONV_2D", "DEPTHWISE_CONV_2D"}:
            options = (schema.Conv2DOptions if operator.kind == "CONV_2D" else schema.DepthwiseConv2DOptions)()
            options.Init(found.BuiltinOptions().Bytes, found.BuiltinOptions().Pos)
            assert operator.strides == (options.StrideH(), options.StrideW())
            assert operator.dilations == (options.DilationHFactor(), options.DilationWFactor())
            assert operator.same_padding == (options.Padding() == schema.Padding.SAME)
    for index, tensor in enumerate(tensors):
        found = graph.Tensors(index)
        assert tensor.name == found.Name().decode()
        assert tensor.buffer == found.Buffer()
        raw = model.Buffers(found.Buffer())
        assert (tensor.data is None) == (raw.DataLength() == 0 and raw.Offset() <= 1)
        if tensor.data is not None and raw.DataLength():
            assert tensor.data.tobytes() == raw.DataAsNumpy().tobytes()


def test_a_network_of_others_is_read(shared: Path) -> None:
    operators, tensors = read_file(shared / "models" / "deeplabv3-mnv2" / "deeplabv3_mnv2_pascal_quant.tflite")
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "ARG_MAX", "RESIZE_BILINEAR"} <= {operator.kind for operator in operators}
    assert {tensor.dtype for tensor in tensors if tensor.data is not None} == {"uint8", "int32"}


def test_constants_of_a_bytearray_can_be_changed_in_place() -> None:
    content = bytearray(PROBE.read_bytes())
    _, tensors = read(content)
    chosen = next(tensor for tensor in tensors if tensor.data is not None and tensor.dtype == "float32")
    assert chosen.data is not None
    chosen.data[...] = 7
    _, again = read(bytes(content))
    assert any(tensor.data is not None and np.all(tensor.data == 7) for tensor in again if tensor.dtype == "float32")


def test_changed_files_are_read_or_refused_and_nothing_else() -> None:
    content, refused = PROBE.read_bytes(), 0
    for seed in range(600):
        begun = time.monotonic()
        try:
            read(mutated(content, seed))
        except MalformedFile:
            refused += 1
        assert time.monotonic() - begun < 5
    assert 50 < refused < 550


def test_truncated_files_are_refused() -> None:
    content = PROBE.read_bytes()
    for length in [*range(64), *range(64, len(content), 211)]:
        try:
            read(content[:length])
        except MalformedFile:
            continue
        pytest.fail(f"the first {length} of {len(content)} bytes were read")


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\0" * 4096, b"\x10\0\0\0TFL3" + b"\xff" * 64])
def test_anything_but_a_tflite_file_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedFile):
        read(content)


def test_tables_that_are_all_the_same_one_cost_no_more_than_the_file_may() -> None:
    """A list of 100,000 tensors, each the same table with a list of 100,000 axes."""
    count = 100_000
    content = bytearray(struct.pack("<I4s", 8 + 16, b"TFL3"))
    content += struct.pack("<HHHHHHHH", 14, 20, 0, 4, 8, 0, 12, 0)  # the model's fields, and padding
    place = len(content)
    assert place == 24
    lists = place + 20
    # model: operator codes, graphs, buffers all point at one list, whose entries all point back at the model
    content += struct.pack("<iIIII", place - 8, lists - place - 4, lists - place - 8, lists - place - 12, 0)
    content += struct.pack("<I", count)
    for index in range(count):
        content += struct.pack("<I", (place - (lists + 4 + 4 * index)) & 0xFFFFFFFF)
    begun = time.monotonic()
    with pytest.raises(MalformedFile):
        read(content)
    assert time.monotonic() - begun < 10


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match=r"absent\.tflite cannot be read"):
        read_file(tmp_path / "absent.tflite")
