"""The one place where a network meets the outside world: a uint8 frame in, the task's tensors out.

All three formats are converted from this module, so they share one tested contract and no runner normalises.
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
from edgecnn.converters.batch_norm import fuse_batch_norm
from edgecnn.converters.fold import Folding, fold_normalisation
from edgecnn.converters.heads import head_decoder
from edgecnn.converters.heads.softmax import decode_softmax
from edgecnn.converters.stem import stride_stem
from edgecnn.errors import SourceError, SpecError
from edgecnn.frame import FrameSpec
from edgecnn.measure.reference import TorchBackend, torch_device
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Runner
from edgecnn.sources import Decode, TrainedModel
from edgecnn.sources.normalise import normalise
from edgecnn.tasks import Segment, Task


class Deployable(nn.Module):
    """A network with cast, colour order, normalisation and decoding around it.

    Attributes:
        frame_spec: its input.
        task: its answer, with as many labels as the network has classes.
        parameter_count: parameters of the network as it was trained, buffers not counted.
        in_graph: what it does besides the network itself, for the manifest.
    """

    _shift: Tensor
    _factor: Tensor

    def __init__(self, model: TrainedModel) -> None:
        """Wrap a copy of the network; the original is not changed.

        Raises:
            SourceError: it does not answer as its task wants.
            SpecError: it cannot take this size.
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
        network = stride_stem(fuse_batch_norm(network, model.frame), model.frame)
        folding = fold_normalisation(network, model.frame)
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
        """What is done inside the graph besides the network's own layers."""
        steps = ["cast uint8 to float"]
        folded = " (folded into the first convolution)"
        if self.frame_spec.colour == "rgb":
            steps.append("BGR to RGB" + (folded if self._folding.colour else ""))
        steps.append("scale and std" + (folded if self._folding.scale else ""))
        steps.append("mean")
        steps.append(self._decoding)
        if isinstance(self.task, Segment) and self.task.decided_in == "graph":
            steps.append("best class of each pixel")
        return tuple(steps)

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """The task's output tensors.

        Args:
            frame: uint8 [batch, height, width, 3] BGR.
        """
        outputs = self.unsaturated(frame)
        if isinstance(self.task, Segment) and self.task.decided_in == "graph":
            return (best_class(outputs[0]),)
        return outputs

    def unsaturated(self, frame: Tensor) -> tuple[Tensor, ...]:
        """As forward, but a segmenter's logits instead of its classes."""
        x = frame.permute(0, 3, 1, 2).to(self._shift.dtype)
        if self._flip:
            x = x.flip(1)
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
            outputs = self(torch.from_numpy(np.ascontiguousarray(frame)).to(self._shift.device))
        return {name: t.cpu().numpy() for name, t in zip(self.task.outputs, outputs, strict=True)}


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
    """Index of the largest of [batch, classes, height, width] along classes, as uint8 [batch, height, width].

    Ties go to the lower index, as argmax has it. Along the last axis the runtimes were as fast as along the
    second (ONNX Runtime) or up to three times faster (LiteRT).
    """
    return logits.permute(0, 2, 3, 1).argmax(dim=-1).to(torch.uint8)


def is_untrained(module: nn.Module) -> bool:
    """Whether the network has batch normalisations and none of them has ever seen data."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return bool(norms) and all(
        norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool((norm.running_var == 1).all())
        for norm in norms
    )


def set_batch_norm_statistics(module: nn.Module, frame: FrameSpec, frames: Sequence[UInt8Array]) -> None:
    """Give a random network statistics from real frames, in place: without them its outputs are all but constant.

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


def _evaluating(network: nn.Module) -> nn.Module:
    try:
        return network.eval()
    except NotImplementedError:  # an exported program has no modes: it was exported in one
        return network


def _ask(network: nn.Module, x: Tensor, model: TrainedModel) -> Any:
    size = f"{model.frame.width_px}x{model.frame.height_px}"
    try:
        with torch.inference_mode():
            return network(x)
    except Exception as failed:
        raise SpecError(
            f"{model.name} cannot take a frame of {size} px: {type(failed).__name__}: "
            f"{str(failed).splitlines()[0] if str(failed) else 'no message'}; try another --size (a multiple of 32?)"
        ) from failed


def _affine(spec: FrameSpec, folding: Folding) -> tuple[Tensor, Tensor]:
    """x = (pixel - shift) * factor, per channel in the order the graph has them at that point."""
    shift = torch.tensor(spec.mean, dtype=torch.float64) / spec.scale
    factor = spec.scale / torch.tensor(spec.std, dtype=torch.float64)
    if folding.colour and spec.colour == "rgb":
        shift, factor = shift.flip(0), factor.flip(0)
    return shift.float().reshape(1, 3, 1, 1), factor.float().reshape(1, 3, 1, 1)


def _decoding(decode: Decode | None, raw: Any, model: TrainedModel) -> tuple[Decode, str]:
    """How the raw answer becomes the task's tensors, and what to call it."""
    if decode is not None:
        return decode, getattr(decode, "__name__", type(decode).__name__).removeprefix("_").replace("_", " ")
    if isinstance(raw, dict):
        names = list(raw) if model.task.name == "segment" else list(model.task.outputs)
        absent = [name for name in model.task.outputs if name not in raw]
        if absent and "out" not in raw:
            raise SourceError(
                f"{model.name} answers a dict with {', '.join(map(repr, raw))}; a network to {model.task.name} must "
                f"answer {_wanted(model.task)}: give decode=…, or --head"
            )
        wanted = ["out"] if absent else names[: len(model.task.outputs)]
        return (lambda answer: tuple(answer[name] for name in wanted)), "none"
    first = raw[0] if isinstance(raw, (tuple, list)) and len(raw) == 1 else raw
    if model.task.name == "classify" and isinstance(first, Tensor) and not _are_probabilities(first):
        return (lambda answer: decode_softmax(answer if isinstance(answer, Tensor) else answer[0])), "softmax"
    return (lambda answer: tuple(answer) if isinstance(answer, (tuple, list)) else (answer,)), "none"


def _decoded(decode: Decode, raw: Any, model: TrainedModel) -> tuple[Tensor, ...]:
    try:
        return decode(raw)
    except Exception as failed:
        line = str(failed).splitlines()[0] if str(failed) else "no message"
        raise SourceError(
            f"the raw answer of {model.name} cannot be decoded: {type(failed).__name__}: {line}. Is this the right "
            "--head, or decode=…, for this network?"
        ) from failed


def _are_probabilities(scores: Tensor) -> bool:
    return bool(scores.dim() == 2 and scores.min() >= 0 and (scores.sum(1) - 1).abs().max() < 1e-3)


def _wanted(task: Task) -> str:
    return {
        "classify": "scores [batch, C]: logits or probabilities",
        "detect": "boxes [batch, N, 4] (xyxy in input pixels) and scores [batch, N, C] in [0, 1]",
        "segment": "logits [batch, C, h, w]",
        "instances": (
            "boxes [batch, N, 4], scores [batch, N, C], coefficients [batch, N, K], prototypes [batch, K, h, w]"
        ),
    }[task.name]


def _checked_answer(answer: Any, model: TrainedModel) -> tuple[Tensor, ...]:
    """The decoded answer, if its form is what the task wants.

    Raises:
        SourceError: says what was expected and what was found.
    """
    tensors = answer if isinstance(answer, tuple) else (answer,)
    ranks = {"classify": (2,), "detect": (3, 3), "segment": (4,), "instances": (3, 3, 3, 4)}[model.task.name]
    fits = len(tensors) == len(ranks) and all(
        isinstance(t, Tensor) and t.dim() == rank and t.numel() > 0 for t, rank in zip(tensors, ranks, strict=False)
    )
    if fits and len(ranks) > 1:
        boxes, scores = tensors[0], tensors[1]
        in_range = float(scores.min()) >= -1e-6 and float(scores.max()) <= 1 + 1e-6
        fits = boxes.shape[2] == 4 and boxes.shape[:2] == scores.shape[:2] and in_range
    if not fits:
        found = ", ".join(_form(part) for part in tensors)
        raise SourceError(
            f"{model.name} must answer {_wanted(model.task)}; it answers {found}. Raw maps need --head NAME or "
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
    import msgspec

    classes = answer[1].shape[2] if len(answer) > 1 else answer[0].shape[1]
    if not task.labels:
        return msgspec.structs.replace(task, labels=tuple(f"class {i}" for i in range(classes)))
    if len(task.labels) != classes:
        raise SpecError(
            f"the network has {classes} classes, but {len(task.labels)} labels were given "
            f"({', '.join(task.labels[:3])}, …): one name for each class is needed, in the network's order"
        )
    return task


def open_reference(model: TrainedModel, *, threads: int | None = None, device: str = "cpu") -> Runner:
    """The torch network itself as a Runner: the same fit and the same finish as every artifact's.

    Raises:
        UnknownNameError, DeviceError: no such device, or torch has none here.
    """
    place = torch_device(device)
    deployable = Deployable(model).to(place)
    backend = TorchBackend(deployable.answer, threads=threads, device=place)
    runner = Runner(backend, frame=deployable.frame_spec, task=deployable.task)
    runner.format = "torch"
    return runner
