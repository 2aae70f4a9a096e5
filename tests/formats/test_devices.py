"""The words for devices, and what is made of what runtimes say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecnn.bundle.evidence import Opened
from edgecnn.errors import DeviceError, SpecError, UnknownNameError
from edgecnn.formats import FORMATS, runtimes
from edgecnn.formats.devices import KINDS, all_executors, device_words, parse_device
from edgecnn.runners.backend import choose_executor
from edgecnn.runners.proof import check_execution
from edgecnn.runners.vulkan import vulkan_devices

GPU = Opened(
    runtime="onnxruntime 1.27.0",
    provider="WebGpuExecutionProvider",
    device_name="a GPU",
    precision="fp32",
    threads=1,
    operators=10,
    operators_on_device=8,
    operators_elsewhere={"CPUExecutionProvider": 2},
)
ONNX_RUNTIME = FORMATS.get("onnx").runtime
FILE = Path("network.onnx")


def with_changes(**changes: object) -> Opened:
    import msgspec

    return msgspec.structs.replace(GPU, **changes)


@pytest.mark.parametrize("word", device_words())
def test_every_word_of_the_table_can_be_asked_for(word: str) -> None:
    name = parse_device(word)
    rows = [row for runtime in runtimes() for row in name.executors(runtime)]
    assert rows
    assert {row.runtime for row in rows} == ({name.runtime} if name.runtime else _with_kind(word))


def _with_kind(word: str) -> set[str]:
    kind = "cpu" if word == "auto" else word
    return {row.runtime for row in all_executors() if row.kind == kind and not row.by_name_only}


@pytest.mark.parametrize(
    ("written", "device", "index"),
    [
        ("openvino:GPU.1", "gpu", 1),
        ("openvino:gpu", "gpu", None),
        ("onnxruntime:CUDAExecutionProvider", "cuda", None),
        ("onnxruntime:cuda.0", "cuda", 0),
        ("LITERT:GPU", "gpu", None),
        ("onnxruntime:npu", "npu", None),
    ],
)
def test_numbers_and_a_runtimes_own_names_are_understood(written: str, device: str, index: int | None) -> None:
    name = parse_device(written)
    assert (name.text, name.device, name.index) == (written, device, index)


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("gpuu", "gpu"),
        ("onnxruntime:cudda", "onnxruntime:cuda"),
        ("openvno:gpu", "openvino:gpu"),
        ("openvino:GPU.x", "openvino:gpu"),
        ("openvino:HETERO:GPU,CPU", "openvino"),
        ("onnxruntime:ROCMExecutionProvider", "onnxruntime"),
        ("litert:", "litert:"),
        ("cuda", ""),
        ("", ""),
    ],
)
def test_an_unknown_device_is_refused_with_what_is_near(written: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match="no device is called") as refused:
        parse_device(written)
    assert near in str(refused.value).partition(";")[2]


def test_a_kind_never_chooses_what_takes_minutes_to_open() -> None:
    chosen = [row.word for row in parse_device("gpu").executors(ONNX_RUNTIME)]
    assert chosen[0] == "cuda"
    assert "tensorrt" not in chosen
    assert [row.word for row in parse_device("onnxruntime:tensorrt").executors(ONNX_RUNTIME)] == ["tensorrt"]


def test_auto_means_the_cpu_until_something_was_measured() -> None:
    assert [row.kind for runtime in runtimes() for row in parse_device("auto").executors(runtime)] == ["cpu"] * len(
        runtimes()
    )


def test_rows_have_kinds_and_say_what_they_need() -> None:
    assert {row.kind for row in all_executors()} == set(KINDS)
    assert all(row.needs for row in all_executors() if row.kind != "cpu")


def test_the_first_way_that_is_there_is_chosen() -> None:
    row = choose_executor(
        parse_device("gpu"),
        ONNX_RUNTIME,
        available=["WebGpuExecutionProvider", "CPUExecutionProvider"],
    )
    assert row.word == "webgpu"


def test_a_device_that_is_not_there_is_refused_with_what_it_needs() -> None:
    with pytest.raises(
        DeviceError, match=r"available here: CPU\. openvino:gpu needs an Intel GPU .* \(pip install"
    ) as refused:
        choose_executor(parse_device("gpu"), FORMATS.get("openvino").runtime, available=["CPU"])
    assert refused.value.exit_code == 3


def test_a_few_operators_off_the_device_are_in_the_evidence() -> None:
    assert check_execution(GPU, FILE) is GPU
    assert "8 of 10 operators, 2 on CPUExecutionProvider" in GPU.summary


def test_a_graph_that_would_mostly_run_elsewhere_is_refused() -> None:
    opened = with_changes(operators_on_device=4, operators_elsewhere={"CPUExecutionProvider": 6})
    with pytest.raises(DeviceError, match=r"runs only 4 of the 10 operators of network.onnx.*6 on CPUExecutionProv"):
        check_execution(opened, FILE)


@pytest.mark.parametrize(
    ("precision", "arithmetic"),
    [
        ("fp32", {"fp16": 3}),
        ("fp32", {"fp32": 2, "bf16": 1}),
        ("bf16", {"fp32": 3}),
    ],
)
def test_another_precision_than_was_asked_for_is_refused(precision: str, arithmetic: dict[str, int]) -> None:
    with pytest.raises(DeviceError, match=f"was to run in {precision}, but .*computes in another precision"):
        check_execution(with_changes(precision=precision, arithmetic=arithmetic), FILE)


@pytest.mark.parametrize(
    ("precision", "arithmetic"),
    [
        ("fp32", {"fp32": 3}),
        ("fp32", {}),
        ("fp16", {"fp32": 3}),
        ("fp16", {"fp16": 3}),
        ("bf16", {"bf16": 3, "fp32": 1}),
        ("int8", {"int8": 3, "fp32": 9}),
        ("int8", {"fp32": 9}),  # where nothing but float was worth it
        ("int8-dynamic", {"int8": 3}),
    ],
)
def test_the_precision_that_was_asked_for_passes(precision: str, arithmetic: dict[str, int]) -> None:
    opened = with_changes(precision=precision, arithmetic=arithmetic)
    assert check_execution(opened, FILE) is opened


def test_a_simulated_device_says_so() -> None:
    assert "simulated" not in GPU.summary
    assert with_changes(simulated=True).summary.endswith("simulated")


def test_a_machine_without_vulkan_has_no_vulkan_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "none.json"))
    assert vulkan_devices() == []


def test_a_network_runs_on_devices_of_torch_only() -> None:
    from edgecnn import evaluate

    for device in ("npu", "openvino:GPU"):
        with pytest.raises(SpecError, match="torch network runs on torch's devices"):
            evaluate("torchvision:resnet18", "nowhere", device=device)


@pytest.mark.torch
def test_torch_without_a_gpu_says_what_it_needs() -> None:
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")
    from edgecnn.measure.reference import torch_device

    assert torch_device("cpu").type == torch_device("auto").type == "cpu"
    if torch.cuda.is_available():
        assert torch_device("gpu").type == "cuda"
        return
    with pytest.raises(
        DeviceError, match=r"'gpu' is not available in torch; available here: torch:cpu\. torch:cuda needs"
    ):
        torch_device("gpu")


@pytest.mark.runtime
def test_where_openvino_finds_not_even_a_processor_its_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    from edgecnn.runners.openvino import backend

    class Core:
        """OpenVINO's on a board whose cores it may not use; it then lists nothing (seen with 2026.4)."""

        available_devices: tuple[str, ...] = ()

        def get_property(self, device: str, name: str) -> str:
            raise RuntimeError(
                "Exception from src/inference/src/dev/core_impl.cpp:847:\nPlease, check your environment\n"
                "CPU affinity check failed. No CPU is eligible to run inference.\n\n"
            )

    monkeypatch.setattr(backend, "CORE", Core())
    reason = r"available here: none\. CPU affinity check failed.* openvino:cpu needs only its package \(pip install"
    with pytest.raises(DeviceError, match=reason):
        backend.compile_file(Path("network.xml"), device=parse_device("cpu"), precision="fp32", threads=1)
