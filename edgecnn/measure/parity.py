"""Compares an artifact's answers with the torch network's on the same frames.

Tensors are compared before saturation, as max |a - b| / max |b|: a probability near one or zero would hide errors of
the logits. So scores are converted back to logarithms, which a softmax or sigmoid output in
float32 carries with full relative precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecnn.bundle.evidence import Opened, ParityEvidence, PreprocessEvidence
from edgecnn.frame import FrameFitter, FrameSpec, Placement
from edgecnn.results import UInt8Array
from edgecnn.tasks import Task
from edgecnn.tasks.answer_form import Array, Arrays
from edgecnn.tasks.base import Compared, Limits

# A float32 artifact is about as far from the exact answer as torch in float32, and their errors add up.
ROUNDINGS = 3.0

# Half-precision weights change the third digit of scores and borders between regions by a pixel in places; see
# docs/decisions. int8 and bf16 have no limits (bf16 changes a weak box by a fifth and the mean precision by 0.2
# points): without labelled data they get figures and no verdict.
LIMITS = {
    "fp32": Limits(tensors=1e-4, pixels=0.999, box_iou=0.99, score=1e-3),
    "fp16": Limits(tensors=1e-2, pixels=0.99, box_iou=0.95, score=1e-2),
}

# Pre-processing within these limits is the same: libraries round resampling weights differently, and where the
# reference keeps fractions, rounding to whole levels alone gives 0.25 on average.
MAX_LEVELS = 2.0
MEAN_LEVELS = 0.5


@dataclass(frozen=True)
class Sample:
    """A frame, the picture's position in it, and the torch network's answer.

    Attributes:
        frame: uint8 [1, height, width, 3] BGR.
        place: the picture's position in the frame.
        expected: the torch network's outputs, by name.
        unsaturated: its outputs before a segmenter's argmax.
    """

    frame: UInt8Array
    place: Placement
    expected: Arrays
    unsaturated: Sequence[Array]


def compare(
    samples: Sequence[Sample],
    answers: Sequence[Arrays],
    *,
    task: Task,
    precision: str,
    match_results: bool,
    torch_rounding: float | None = None,
    device_name: str = "",
    versions: Mapping[str, str] | None = None,
    ran_on: Opened | None = None,
) -> ParityEvidence:
    """Compare an artifact's answers with the torch network's.

    Args:
        samples: frames with the torch network's answers.
        answers: the artifact's outputs for the same frames.
        task: decides how results are compared.
        precision: selects the limits; one without limits (int8, bf16) gets figures and no verdict.
        match_results: also compare final results; False for random networks, in which rounding changes near ties.
        torch_rounding: difference between torch's answers and those in float64 (`relative_error`); where it is large,
            as in deep random networks, the limit is raised accordingly.
        device_name, versions: where the artifact ran.
        ran_on: proof of execution.
    """
    limits = LIMITS.get(precision)
    matching = limits or LIMITS["fp16"]  # figures need a limit for ties too
    tensors = _relative_errors(samples, answers, task)
    worst = max(tensors, key=lambda name: _used_up(tensors[name], _limit_of(task, name, matching, torch_rounding)))
    limit = None if limits is None else _limit_of(task, worst, limits, torch_rounding)
    ok = limit is not None and tensors[worst] <= limit
    agreement = box_iou = score = None
    if match_results:
        matches = [
            task.match(task.finish(answer, sample.place), task.finish(sample.expected, sample.place), matching)
            for answer, sample in zip(answers, samples, strict=True)
        ]
        agreement = float(np.mean([match.agreement for match in matches]))
        box_iou = min((m.box_iou for m in matches if m.box_iou is not None), default=None)
        score = max((m.score for m in matches if m.score is not None), default=None)
        ok = ok and all(match.ok for match in matches)
    return ParityEvidence(
        max_rel_err=tensors[worst],
        limit=limit,
        frames=len(samples),
        ok=None if limits is None else bool(ok),
        tensors=tensors,
        agreement=agreement,
        worst_box_iou=box_iou,
        worst_score_difference=score,
        torch_rounding=torch_rounding,
        device_name=device_name,
        versions=dict(versions or {}),
        ran_on=ran_on,
    )


def relative_error(samples: Sequence[Sample], answers: Sequence[Arrays], task: Task) -> float:
    """The relative error of the worst output, as in `compare`."""
    return max(_relative_errors(samples, answers, task).values())


def describe(evidence: ParityEvidence, *, reference: str = "torch") -> str:
    """Why an artifact failed, in one sentence; `reference` names the reference."""
    name, error = max(evidence.tensors.items(), key=lambda item: item[1])
    limit = "none" if evidence.limit is None else f"{evidence.limit:.2g}"
    text = f"output {name!r} differs from {reference} by {error:.2g} (limit {limit}) on {evidence.frames} frames"
    if evidence.agreement is not None:
        text += f"; results agree by {evidence.agreement:.4f}"
    if evidence.worst_box_iou is not None:
        text += f", worst box IoU {evidence.worst_box_iou:.4f}"
    if evidence.worst_score_difference is not None:
        text += f", worst score difference {evidence.worst_score_difference:.2g}"
    return text


def blindness(samples: Sequence[Sample]) -> float:
    """How much the network's answers differ between frames: max |a - b| / max |b| of the output that varies most.

    Near zero, every comparison passes and proves nothing; NaN where an answer is not finite.
    """
    if len(samples) < 2:
        return float("inf")
    spreads = []
    for tensors in zip(*(sample.unsaturated for sample in samples), strict=True):
        stack = np.stack([np.asarray(tensor, np.float64) for tensor in tensors])
        largest = np.abs(stack).max()
        with np.errstate(invalid="ignore"):  # infinities give NaN
            spreads.append(float((stack.max(0) - stack.min(0)).max() / largest) if largest else 0.0)
    return float(np.max(spreads))


def compare_preprocessing(
    spec: FrameSpec,
    pictures: Sequence[UInt8Array],
    apply: Any,
    *,
    name: str,
    square_only: bool,
) -> PreprocessEvidence:
    """Compare our fit with the source's own pre-processing, in grey levels.

    Args:
        spec: our frame.
        pictures: uint8 [height, width, 3] BGR.
        apply: the source's pre-processing: uint8 [height, width, 3] RGB → float32 [3, H, W], normalised.
        name: name of the source's pre-processing.
        square_only: compare on centre squares of the pictures (its size follows the picture's aspect ratio).
    """
    fitter = FrameFitter(spec)
    scale, mean, std = spec.scale, np.array(spec.mean)[:, None, None], np.array(spec.std)[:, None, None]
    worst, means = 0.0, []
    for picture in pictures:
        if square_only:
            side = min(picture.shape[:2])
            top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
            picture = np.ascontiguousarray(picture[top : top + side, left : left + side])
        theirs = (np.asarray(apply(picture[..., ::-1]), np.float64) * std + mean) / scale
        ours = fitter(picture)[0][0].transpose(2, 0, 1)
        ours = ours[::-1] if spec.colour == "rgb" else ours
        if theirs.shape != ours.shape:
            reason = f"{name} gives the shape {list(theirs.shape)}, but this frame has {list(ours.shape)}"
            return PreprocessEvidence(compared=False, reason=reason, reference=name)
        difference = np.abs(theirs - ours)
        worst = max(worst, float(difference.max()))
        means.append(float(difference.mean()))
    return PreprocessEvidence(
        compared=True,
        reference=name,
        max_levels=round(worst, 3),
        mean_levels=round(max(means), 4),
        frames=len(pictures),
    )


def _limit_of(task: Task, output: str, limits: Limits, torch_rounding: float | None) -> float:
    """The limit for an output: for class ids a share of pixels, for all else a relative error."""
    limit = 1 - limits.pixels if output in task.discrete_outputs else limits.tensors
    return limit if torch_rounding is None else max(limit, ROUNDINGS * torch_rounding)


def _used_up(error: float, limit: float) -> float:
    return error / limit if limit else error


def _relative_errors(samples: Sequence[Sample], answers: Sequence[Arrays], task: Task) -> dict[str, float]:
    """For each output, max |a - b| / max |b| over all frames; for class ids, the share that differs."""
    expected = [sample.expected for sample in samples]
    broken = {name for name in task.outputs if not _comparable(name, answers, expected)}
    compared = Task.compared if broken else type(task).compared  # a task's own method needs all outputs
    frames = [compared(task, answer, right) for answer, right in zip(answers, expected, strict=True)]
    return {
        name: float("inf") if name in broken else _relative_error([frame[name] for frame in frames])
        for name in task.outputs
    }


def _comparable(name: str, answers: Sequence[Arrays], expected: Sequence[Arrays]) -> bool:
    pairs = [(answer[name], right[name]) for answer, right in zip(answers, expected, strict=True)]
    return all(a.shape == b.shape and np.isfinite(a).all() and np.isfinite(b).all() for a, b in pairs)


def _relative_error(pairs: Sequence[Compared]) -> float:
    if pairs[0].discrete:
        return float(np.mean([np.mean(pair.found != pair.expected) for pair in pairs]))
    largest = max(float(np.abs(pair.expected).max()) for pair in pairs)
    difference = max(
        float(np.abs(np.asarray(pair.found, np.float64) - pair.expected)[pair.counting].max(initial=0.0))
        for pair in pairs
    )
    return difference / largest if largest else difference
