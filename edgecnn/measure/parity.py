"""Does an artifact answer as the torch network does, on the same frames?

Tensors are compared before saturation, as max |a - b| / max |b|: a probability that is all but one or zero would
hide what went wrong below it. Scores are turned back into logarithms for that, which a softmax or sigmoid output in
float32 carries with full relative precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.evidence import Opened, ParityEvidence, PreprocessEvidence
from edgecnn.frame import FrameFitter, FrameSpec, Placement
from edgecnn.results import Classification, Detections, FloatArray, Instances, Result, SegmentationMap, UInt8Array
from edgecnn.tasks import Task
from edgecnn.tasks.segment import Segment

Arrays = Mapping[str, NDArray[Any]]
Array = NDArray[Any]

_SMALLEST_SCORE = 1e-12  # the logarithm's floor: float32 softmax and sigmoid end not far below
# Anchors that score less than eval's threshold are noise to every use: runtimes approximate sigmoids to some 1e-8
# absolute, and the boxes there are anything. They count in the range that errors are measured against, no more.
_SCORE_THAT_MATTERS = 0.01
_ALWAYS_COUNTING = 10  # anchors of a frame in which none scores that much
# A float32 artifact is about as far from the exact answer as torch in float32 is, and both are off at once.
_ROUNDINGS = 3.0
_HAIR_PX = np.array([-0.05, -0.05, 0.05, 0.05])  # small beside any object, large beside rounding


@dataclass(frozen=True)
class Limits:
    """What an artifact of one precision may differ by.

    Attributes:
        tensors: max |a - b| / max |b| of each output before saturation.
        pixels: share of pixels of a class map that must be equal.
        box_iou, score: of detections matched one to one.
    """

    tensors: float
    pixels: float
    box_iou: float
    score: float


# Half-precision weights move scores in the third digit and borders between regions by a pixel here and there; see
# docs/decisions. int8 and bf16 have none (bf16 moves a weak box by a fifth and the mean precision by 0.2 points):
# without labelled data they get figures and no verdict.
LIMITS = {
    "fp32": Limits(tensors=1e-4, pixels=0.999, box_iou=0.99, score=1e-3),
    "fp16": Limits(tensors=1e-2, pixels=0.99, box_iou=0.95, score=1e-2),
}

# Pre-processing that agrees to this is the same: libraries round resampling weights differently, and where the
# reference keeps fractions, rounding to whole levels alone makes 0.25 on average.
MAX_LEVELS = 2.0
MEAN_LEVELS = 0.5


@dataclass(frozen=True)
class Sample:
    """A frame, where the picture lies in it, and what the torch network answers.

    Attributes:
        frame: uint8 [1, height, width, 3] BGR.
        place: the picture's place in the frame.
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
        precision: names the limits; one that has none (int8, bf16) gets figures and no verdict.
        match_results: also compare finished results; off for random networks, whose near ties flip on rounding.
        torch_rounding: how far torch itself is from its answers in float64 (`relative_error`); where that is much, as
            in deep random networks, no artifact can be held to less.
        device_name, versions: where the artifact ran.
        ran_on: proof of that.
    """
    limits = LIMITS.get(precision)
    matching = limits or LIMITS["fp16"]  # figures want a limit for what is a tie, too
    tensors = _relative_errors(samples, answers, task)
    worst = max(tensors.values())
    limit = None if limits is None else 1 - limits.pixels if _is_class_map(task) else limits.tensors
    if limit is not None and torch_rounding is not None:
        limit = max(limit, _ROUNDINGS * torch_rounding)
    ok = limit is not None and worst <= limit
    agreement = box_iou = score = None
    if match_results:
        matches = [
            _match(
                task.finish(answer, sample.place),
                task.finish(sample.expected, sample.place),
                matching,
                threshold=getattr(task, "score_threshold", 0.0),
            )
            for answer, sample in zip(answers, samples, strict=True)
        ]
        agreement = float(np.mean([match.agreement for match in matches]))
        box_iou = min((m.box_iou for m in matches if m.box_iou is not None), default=None)
        score = max((m.score for m in matches if m.score is not None), default=None)
        ok = ok and all(match.ok for match in matches)
    return ParityEvidence(
        max_rel_err=worst,
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
    """Of the worst output, as `compare` has it."""
    return max(_relative_errors(samples, answers, task).values())


def describe(evidence: ParityEvidence, *, reference: str = "torch") -> str:
    """Why an artifact failed, in one sentence; `reference` is what it was compared with."""
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
    """How much the network's answers differ between frames: max |a - b| / max |b| of its most telling output.

    Near zero, every comparison passes and proves nothing; NaN where an answer is no number.
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
        apply: the source's: uint8 [height, width, 3] RGB → float32 [3, H, W], normalised.
        name: of the source's.
        square_only: compare on centre squares of the pictures (its size follows the picture's aspect).
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
            reason = f"{name} gives {list(theirs.shape)}, this frame is {list(ours.shape)}"
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


def _is_class_map(task: Task) -> bool:
    return isinstance(task, Segment) and task.decided_in == "graph"


def _relative_errors(samples: Sequence[Sample], answers: Sequence[Arrays], task: Task) -> dict[str, float]:
    expected = [sample.expected for sample in samples]
    return {name: _relative_error(name, answers, expected) for name in task.outputs}


def _relative_error(name: str, answers: Sequence[Arrays], expected: Sequence[Arrays]) -> float:
    """Max |a - b| / max |b| over all frames; for a class map the share of pixels that differ."""
    pairs = [(answer[name], right[name]) for answer, right in zip(answers, expected, strict=True)]
    if any(a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()) for a, b in pairs):
        return float("inf")
    if name == "classes":
        return float(np.mean([np.mean(a != b) for a, b in pairs]))
    if name == "scores":
        pairs = [(_log(a), _log(b)) for a, b in pairs]
        if "boxes" not in expected[0]:
            # Of a softmax, logarithms are the logits but for a constant of each frame. Left in, it would be the largest
            # number of all (6.9 for 1000 classes) and hide the errors of a network that is nearly undecided.
            pairs = [(a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)) for a, b in pairs]
    largest = max(float(np.abs(b).max()) for _, b in pairs)
    difference = max(
        float(np.abs(np.asarray(a, np.float64) - b)[_counting(name, right, answer)].max(initial=0.0))
        for (a, b), right, answer in zip(pairs, expected, answers, strict=True)
    )
    return difference / largest if largest else difference


def _counting(name: str, right: Arrays, answer: Arrays) -> Any:
    """Which values of a tensor are compared: of a detector's, those of anchors that may become detections."""
    if "boxes" not in right or name == "prototypes":
        return ...
    scores = np.maximum(right["scores"], answer["scores"])
    anchors = scores.max(axis=2)
    # Where nothing reaches that, the best anchors count whatever they score: nothing passes uncompared.
    count = min(_ALWAYS_COUNTING, anchors.shape[1])
    best = np.partition(anchors, -count, axis=1)[:, -count]
    enough = np.where(anchors.max(axis=1) < _SCORE_THAT_MATTERS, best, _SCORE_THAT_MATTERS)[:, None]
    return scores >= enough[..., None] if name == "scores" else anchors >= enough


def _log(scores: Array) -> Array:
    return np.log(np.maximum(scores.astype(np.float64), _SMALLEST_SCORE))


@dataclass(frozen=True)
class _Match:
    ok: bool
    agreement: float
    box_iou: float | None = None
    score: float | None = None


def _match(found: Result, expected: Result, limits: Limits, *, threshold: float) -> _Match:
    if isinstance(found, Classification) and isinstance(expected, Classification):
        same = bool(found.class_ids[0] == expected.class_ids[0])
        near_tie = len(expected) > 1 and float(expected.scores[0] - expected.scores[1]) < limits.score
        return _Match(same or near_tie, float(same))
    if isinstance(found, SegmentationMap) and isinstance(expected, SegmentationMap):
        equal = float(np.mean(found.classes == expected.classes))
        return _Match(equal >= limits.pixels, equal)
    if isinstance(found, Instances) and isinstance(expected, Instances):
        boxes = _match_boxes(found.detections, expected.detections, limits, threshold)
        covered, meant = found.masks.any(axis=0), expected.masks.any(axis=0)
        return replace(boxes, ok=boxes.ok and bool(np.mean(covered == meant) >= limits.pixels))
    assert isinstance(found, Detections) and isinstance(expected, Detections)
    return _match_boxes(found, expected, limits, threshold)


def _match_boxes(found: Detections, expected: Detections, limits: Limits, threshold: float) -> _Match:
    """Match one to one, best first. A box that only one side has is forgiven when it scores at the threshold."""
    free = list(range(len(found)))
    ious, differences, matched, forgiven = [], [], 0, 0
    for i in range(len(expected)):
        same_class = [j for j in free if found.class_ids[j] == expected.class_ids[i]]
        overlaps = [_iou(found.boxes_xyxy_px[j], expected.boxes_xyxy_px[i]) for j in same_class]
        if not overlaps or max(overlaps) < 0.5:
            forgiven += float(expected.scores[i]) - threshold <= limits.score
            continue
        best = same_class[int(np.argmax(overlaps))]
        free.remove(best)
        matched += 1
        ious.append(max(overlaps))
        differences.append(abs(float(found.scores[best]) - float(expected.scores[i])))
    forgiven += sum(float(found.scores[j]) - threshold <= limits.score for j in free)
    total = len(expected) + len(free)
    ok = matched + forgiven >= total
    ok = ok and min(ious, default=1.0) >= limits.box_iou and max(differences, default=0.0) <= limits.score
    return _Match(
        ok,
        matched / total if total else 1.0,
        min(ious, default=None),
        max(differences, default=None),
    )


def _iou(a: FloatArray, b: FloatArray) -> float:
    """Intersection over union of two boxes, each a hair larger than it is.

    A box in a letterbox's border is clipped to a line or a sliver of the picture, which would not overlap itself.
    """
    left, top, right, bottom = a + _HAIR_PX
    other_left, other_top, other_right, other_bottom = b + _HAIR_PX
    width = min(right, other_right) - max(left, other_left)
    height = min(bottom, other_bottom) - max(top, other_top)
    if not (width > 0 and height > 0):
        return 0.0
    both = float(width * height)
    areas = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top)
    return both / float(areas - both)
