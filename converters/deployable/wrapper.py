"""Wraps a network for conversion: uint8 frame in, the task's tensors out.

Every format is converted from this module, so all share one tested contract and no runner normalises.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgecnn.bundle import TensorSpec
from edgecnn.converters.deployable.decoders import head_decoder
from edgecnn.converters.deployable.rewrites.batch_norm import fuse_batch_norm
from edgecnn.converters.deployable.rewrites.fold import Folding, fold_normalisation
from edgecnn.converters.deployable.rewrites.shuffle import read_shuffles_in_slices
from edgecnn.converters.deployable.rewrites.stem import stride_stem
from edgecnn.errors import SourceError, SpecError
from edgecnn.formats import TORCH
from edgecnn.frame import FrameSpec
from edgecnn.measure.reference import TorchBackend, torch_device
from edgecnn.results import UInt8Array
from edgecnn.runners.runner import Runner
from edgecnn.sources.model import Decode, TrainedModel
from edgecnn.sources.normalise import normalise
from edgecnn.tasks import Task
from edgecnn.tasks.answer_form import CLASSES, describe_forms, extent_of, has_form


class Deployable(nn.Module):
    """A network with cast, colour order, normalisation and decoding around it.

    Attributes:
        frame_spec: the frame that it takes.
        task: the task, with as many labels as the network has classes.
        parameter_count: parameters of the network as it was trained, buffers not counted.
        in_graph: the steps around the network that it includes, for the manifest.
    """

    _shift: Tensor
    _factor: Tensor

    def __init__(self, model: TrainedModel, *, rewrite: bool = True) -> None:
        """Wrap a copy of the network; the original is not changed.

        Args:
            model: the network.
            rewrite: make of it what runs fastest; without, its layers stay as they are, and nothing has to be tried.

        Raises:
            SourceError: the network does not answer as its task requires.
            SpecError: the network cannot take this frame size.
        """
        super().__init__()
        self.frame_spec = model.frame
        network = _evaluating(copy.deepcopy(model.module))
        decode = head_decoder(model.decode) if isinstance(model.decode, str) else model.decode
        probe = torch.rand(1, 3, model.frame.height_px, model.frame.width_px)
        raw = _ask(network, probe, model)
        self._decode, self._decoding = _decoding(decode, raw, model)
        answer = _checked_answer(_decoded(self._decode, raw, model), model)
        self.task = _with_labels(model.task, answer)
        self.parameter_count = sum(parameter.numel() for parameter in network.parameters())
        folding = _rewritten(network, model.frame) if rewrite else Folding(network, scale=False, colour=False)
        self.network = folding.network
        self._flip = not folding.colour and model.frame.colour == "rgb"
        shift, factor = _affine(model.frame, folding)
        self.register_buffer("_shift", shift, persistent=False)
        self.register_buffer("_factor", factor, persistent=False)
        self._folding = folding
        self.eval()
        self.requires_grad_(False)

    @property
    def in_graph(self) -> tuple[str, ...]:
        """Steps inside the graph other than the network's own layers."""
        steps = ["cast uint8 to float"]
        folded = " (folded into the first convolution)"
        if self.frame_spec.colour == "rgb":
            steps.append("BGR to RGB" + (folded if self._folding.colour else ""))
        steps.append("scale and std" + (folded if self._folding.scale else ""))
        steps.append("mean")
        steps.append(self._decoding)
        if self.task.decides_in_graph:
            steps.append("best class of each pixel")
        return tuple(steps)

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """The task's output tensors.

        Args:
            frame: uint8 [batch, height, width, 3] BGR.
        """
        return self._decided(self.unsaturated(frame))

    def _decided(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.task.decides_in_graph:
            return best_class(outputs[0]), *outputs[1:]
        return outputs

    def unsaturated(self, frame: Tensor) -> tuple[Tensor, ...]:
        """As `forward`, but before the best class is chosen."""
        return self.from_planes(frame.permute(0, 3, 1, 2).to(self._shift.dtype))

    def from_planes(self, planes: Tensor) -> tuple[Tensor, ...]:
        """As `unsaturated`, for a frame that is already float [batch, 3, height, width] BGR, 0..255."""
        x = planes.flip(1) if self._flip else planes
        x = x - self._shift
        if not self._folding.scale:
            x = x * self._factor
        return self._decode(self.network(x))

    def example(self, batch: int = 1) -> Tensor:
        """A frame to trace with, uint8 [batch, height, width, 3]."""
        spec = self.frame_spec
        return torch.randint(0, 256, (batch, spec.height_px, spec.width_px, 3), dtype=torch.uint8)

    def answer(self, frame: UInt8Array) -> dict[str, Any]:
        """The output tensors of one batch of frames, as numpy arrays by name."""
        with torch.inference_mode():
            return self._named(self(self._tensor(frame)))

    def both_answers(self, frame: UInt8Array) -> tuple[dict[str, Any], list[Any]]:
        """As `answer`, and what `unsaturated` gives: the network is run once."""
        with torch.inference_mode():
            unsaturated = self.unsaturated(self._tensor(frame))
            return self._named(self._decided(unsaturated)), [tensor.cpu().numpy() for tensor in unsaturated]

    def _tensor(self, frame: UInt8Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(frame)).to(self._shift.device)

    def _named(self, outputs: tuple[Tensor, ...]) -> dict[str, Any]:
        return {name: tensor.cpu().numpy() for name, tensor in zip(self.task.outputs, outputs, strict=True)}


def signature(deployable: Deployable, *, batch: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of every artifact."""
    example = deployable.example(batch)
    with torch.inference_mode():
        outputs = deployable(example)
    spec = TensorSpec(name="frame", dtype="uint8", shape=tuple(example.shape))
    named = zip(deployable.task.outputs, outputs, strict=True)
    return (spec,), tuple(
        TensorSpec(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))
        for name, tensor in named
    )


def count_macs(deployable: Deployable) -> int:
    """Multiply-adds of one frame, convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        deployable(deployable.example())
    return int(counter.get_total_flops() // 2)


def best_class(logits: Tensor) -> Tensor:
    """Index of the largest value along classes of [batch, classes, height, width], as uint8 [batch, height, width].

    Ties go to the lower index, as in argmax. Along the last axis the runtimes were as fast as along the
    second (ONNX Runtime) or up to three times faster (LiteRT).
    """
    return logits.permute(0, 2, 3, 1).argmax(dim=-1).to(torch.uint8)


def is_untrained(module: nn.Module) -> bool:
    """Whether the network has batch normalisations and none of them has seen data."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return bool(norms) and all(
        norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool((norm.running_var == 1).all())
        for norm in norms
    )


def set_batch_norm_statistics(module: nn.Module, frame: FrameSpec, frames: Sequence[UInt8Array]) -> None:
    """Set batch-norm statistics of a random network from real frames, in place; without them its outputs hardly vary.

    Args:
        module: float NCHW in.
        frames: uint8 [1, height, width, 3] BGR, fitted.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    _evaluating(module)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    with torch.no_grad():
        module(torch.cat([normalise(torch.from_numpy(f), frame) for f in frames]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def _rewritten(network: nn.Module, spec: FrameSpec) -> Folding:
    for rewrite in (fuse_batch_norm, stride_stem, read_shuffles_in_slices):
        network = rewrite(network, spec)
    return fold_normalisation(network, spec)


def _evaluating(network: nn.Module) -> nn.Module:
    try:
        return network.eval()
    except NotImplementedError:  # an exported program has no modes: they were fixed at export
        return network


def _ask(network: nn.Module, x: Tensor, model: TrainedModel) -> Any:
    size = f"{model.frame.width_px}x{model.frame.height_px}"
    try:
        with torch.inference_mode():
            return network(x)
    except Exception as failed:
        raise SpecError(
            f"{model.name} cannot take a frame of {size} px: {type(failed).__name__}: "
            f"{str(failed).splitlines()[0] if str(failed) else 'no message'}; try another --size, such as a multiple "
            f"of 32"
        ) from failed


def _affine(spec: FrameSpec, folding: Folding) -> tuple[Tensor, Tensor]:
    """x = (pixel - shift) * factor, per channel in the graph's channel order at that point."""
    shift = torch.tensor(spec.mean, dtype=torch.float64) / spec.scale
    factor = spec.scale / torch.tensor(spec.std, dtype=torch.float64)
    if folding.colour and spec.colour == "rgb":
        shift, factor = shift.flip(0), factor.flip(0)
    return shift.float().reshape(1, 3, 1, 1), factor.float().reshape(1, 3, 1, 1)


def _decoding(decode: Decode | None, raw: Any, model: TrainedModel) -> tuple[Decode, str]:
    """The function that turns the raw answer into the task's tensors, and its name."""
    if decode is not None:
        return decode, getattr(decode, "__name__", type(decode).__name__).removeprefix("_").replace("_", " ")
    task = model.task
    if isinstance(raw, dict):
        names = [form.name for form in task.answer]
        whole = all(name in raw for name in names)
        if not whole and "out" not in raw:
            raise SourceError(
                f"{model.name} answers a dict with {', '.join(map(repr, raw))}; a network for task {task.name} must "
                f"answer {describe_forms(task.answer)}: give decode=… or --head NAME"
            )
        wanted = names if whole else ["out"]
        return (lambda answer: tuple(answer[name] for name in wanted)), "none"
    parts = tuple(raw) if isinstance(raw, (tuple, list)) else (raw,)
    if task.default_head and all(isinstance(part, Tensor) for part in parts) and task.needs_head(_arrays(parts)):
        head = head_decoder(task.default_head)
        return (lambda answer: head(answer if isinstance(answer, Tensor) else answer[0])), task.default_head
    return (lambda answer: tuple(answer) if isinstance(answer, (tuple, list)) else (answer,)), "none"


def _decoded(decode: Decode, raw: Any, model: TrainedModel) -> tuple[Tensor, ...]:
    try:
        return decode(raw)
    except Exception as failed:
        line = str(failed).splitlines()[0] if str(failed) else "no message"
        raise SourceError(
            f"the raw answer of {model.name} cannot be decoded: {type(failed).__name__}: {line}. Check that --head "
            "NAME or decode=… fits this network"
        ) from failed


def _arrays(tensors: Sequence[Tensor]) -> list[Any]:
    return [tensor.detach().cpu().numpy() for tensor in tensors]


def _checked_answer(answer: Any, model: TrainedModel) -> tuple[Tensor, ...]:
    """The decoded answer, if it has the form that the task requires.

    Raises:
        SourceError: with the expected and the found form.
    """
    tensors = answer if isinstance(answer, tuple) else (answer,)
    wanted = model.task.answer
    if not all(isinstance(part, Tensor) for part in tensors) or not has_form(_arrays(tensors), wanted):
        found = ", ".join(_form(part) for part in tensors)
        raise SourceError(
            f"{model.name} must answer {describe_forms(wanted)}; it answers {found}. For raw maps, give --head NAME or "
            "TrainedModel(decode=…)"
        )
    return tensors


def _form(part: Any) -> str:
    if not isinstance(part, Tensor):
        return type(part).__name__
    if part.numel() == 0:
        return f"{list(part.shape)} (empty)"
    return f"{list(part.shape)} in [{float(part.min()):.3g}, {float(part.max()):.3g}]"


def _with_labels(task: Task, answer: tuple[Tensor, ...]) -> Task:
    classes = extent_of(CLASSES, task.answer, [tensor.shape for tensor in answer])
    if classes is None or len(task.labels) == classes:
        return task
    if not task.labels:
        return task.with_labels([f"class {i}" for i in range(classes)])
    raise SpecError(
        f"the network has {classes} classes, but {len(task.labels)} labels were given "
        f"({', '.join(task.labels[:3])}, …): give one name for each class, in the network's order"
    )


def open_reference(model: TrainedModel, *, threads: int | None = None, device: str = "cpu") -> Runner:
    """The torch network as it is, as a Runner, with the same fitting and post-processing as for every artifact.

    Raises:
        UnknownNameError, DeviceError: no such device, or torch cannot use it here.
    """
    place = torch_device(device)
    deployable = Deployable(model, rewrite=False).to(place)
    backend = TorchBackend(deployable.answer, threads=threads, device=place)
    return Runner(backend, frame=deployable.frame_spec, task=deployable.task, format=TORCH)
