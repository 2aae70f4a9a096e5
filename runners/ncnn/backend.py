"""ncnn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import TensorSpec
from edgecnn.bundle.evidence import Opened
from edgecnn.errors import DeviceError
from edgecnn.formats.devices import DeviceName
from edgecnn.formats.ncnn import RUNTIME
from edgecnn.processor import processor_name
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Arrays, FoundDevice, absent_device, choose_executor
from edgecnn.runners.ncnn.param import read_layers
from edgecnn.runners.proof import check_execution

FRAME, LOGITS, CLASSES = "frame", "logits", "classes"
_CPU, _GPU = "CPU", "Vulkan"


class NcnnBackend:
    """A .param and a .bin file, on the CPU or a GPU.

    ncnn has no uint8 tensors and no batches: frames become float planes here, one at a time, in ncnn's own code. The
    best class of a segmenter's pixels, which other formats compute in the graph, is computed here.
    """

    opened: Opened

    @classmethod
    def devices(cls) -> Sequence[FoundDevice]:
        """The CPU, and the GPUs that Vulkan lists."""
        gpus = [ncnn.get_gpu_info(index).device_name() for index in range(ncnn.get_gpu_count())]
        return [
            FoundDevice(word=f"{RUNTIME.name}:cpu", kind="cpu", provider=_CPU, device_name=processor_name()),
            *(
                FoundDevice(
                    word=f"{RUNTIME.name}:gpu.{index}", kind="gpu", provider=f"{_GPU}.{index}", device_name=name
                )
                for index, name in enumerate(gpus)
            ),
        ]

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        self._net, provider, device_name = open_net(path, device=device, threads=threads)
        layers = read_layers(path)
        made = {blob for layer in layers for blob in layer.writes}
        self._outputs = [(spec, LOGITS if spec.name == CLASSES else spec.name) for spec in outputs]
        if absent := [blob for _, blob in self._outputs if blob not in made]:
            raise DeviceError(f"{path.name} has no blob called {absent[0]!r}, which the manifest names as an output")
        operators = sum(layer.works for layer in layers)
        self.opened = check_execution(
            Opened(
                runtime=f"ncnn {ncnn.__version__}",
                provider=provider,
                device_name=device_name,
                precision=precision,
                threads=threads,
                operators=operators,
                operators_on_device=operators,
                simulated=provider == _GPU and _is_software(device_name),
            ),
            path,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR; one after the other."""
        rows = [self._row(picture) for picture in frame]
        if len(rows) == 1:
            return rows[0]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def close(self) -> None:
        """Release the network."""
        self.__dict__.pop("_net", None)

    def _row(self, picture: UInt8Array) -> dict[str, NDArray[Any]]:
        planes = planes_of(picture)
        with self._net.create_extractor() as extractor:
            extractor.input(FRAME, planes)
            answer = {}
            for spec, blob in self._outputs:
                code, values = extractor.extract(blob)
                if code != 0:
                    raise DeviceError(f"ncnn failed on a frame of shape {list(picture.shape)}: code {code} at {blob!r}")
                answer[spec.name] = _shaped(np.array(values), spec)
        return answer


def planes_of(picture: UInt8Array) -> Any:
    """A uint8 [height, width, 3] BGR picture as float planes 0..255, in ncnn's own memory."""
    height, width, _ = picture.shape
    return ncnn.Mat.from_pixels(picture, ncnn.Mat.PixelType.PIXEL_BGR, width, height)


def open_net(path: Path, *, device: DeviceName, threads: int, keep_blobs: bool = False) -> tuple[Any, str, str]:
    """An open network, the provider, and the name of the device.

    Args:
        keep_blobs: keep every computed blob while an extractor lives.

    Raises:
        DeviceError: the device does not exist, or ncnn fails on the file.
    """
    gpus = 0 if _is_processor(device) else ncnn.get_gpu_count()  # looking for GPUs takes time
    row = choose_executor(device, RUNTIME, available=[_CPU, *([_GPU] if gpus else [])])
    index = device.index or 0
    if row.provider == _GPU and index >= gpus:
        raise absent_device(device, runtime=RUNTIME.name, available=[f"{_GPU}.{i}" for i in range(gpus)])
    net = ncnn.Net()
    option = net.opt
    option.num_threads = threads
    option.lightmode = not keep_blobs
    # By default ncnn passes values between layers in half precision, which changes a detector's scores by a tenth.
    option.use_fp16_packed = option.use_fp16_storage = option.use_fp16_arithmetic = False
    option.use_bf16_storage = option.use_bf16_packed = False
    name = processor_name()
    if row.provider == _GPU:
        option.use_vulkan_compute = True
        net.set_vulkan_device(index)
        name = ncnn.get_gpu_info(index).device_name()
    weights = path.with_suffix(".bin")
    if net.load_param(str(path)) != 0 or net.load_model(str(weights)) != 0:
        unknown = sorted({layer.kind for layer in read_layers(path) if "." in layer.kind or layer.kind.islower()})
        why = f"it has no operator {', '.join(unknown)}" if unknown else "the file is damaged, or of a newer version"
        raise DeviceError(f"ncnn {ncnn.__version__} cannot open {path.name}: {why}")
    return net, row.provider, name


def _is_processor(device: DeviceName) -> bool:
    return all(row.kind == "cpu" for row in device.executors(RUNTIME))


def _is_software(device_name: str) -> bool:
    return any(word in device_name.lower() for word in ("swiftshader", "llvmpipe"))


def _shaped(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """An output of ncnn, which has no batch dimension, as one row of the manifest's tensor."""
    if spec.name == CLASSES:
        classes: NDArray[Any] = values.argmax(axis=0).astype(np.uint8)[None]
        return classes
    shape = (1, *spec.shape[1:])
    if values.size != int(np.prod(shape)):
        raise DeviceError(f"ncnn gives {spec.name!r} the shape {list(values.shape)}, the manifest says {list(shape)}")
    return values.reshape(shape)
