"""Compares what a camera and its network give now with what they gave when the camera was set up."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.atomic import write_whole
from edgecnn.errors import DataError, SpecError, StorageError
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.recording.rotation import Rotation
from edgecnn.runners.live.sinks import Annotated, check_folder
from edgecnn.runners.live.sinks.kind import Setting
from edgecnn.tasks import TASKS

if TYPE_CHECKING:
    from typing import Self

ALARM: Final = 0.25  # of the population stability index: what scoring models are rebuilt at; 0.1 is watched
DEFAULT_LEARN: Final = "1d"
_SAMPLE_S: Final = 1.0
_SAVE_S: Final = 600.0
_BINS: Final = 10
_FEWEST: Final = 100  # samples, before anything is said
_STEP_PX: Final = 8  # of a picture's pixels, every eighth in each direction
_LARGEST_BYTES: Final = 16 << 20
_KINDS: Final = ("brightness", "contrast", "scores", "labels")

Histogram = NDArray[np.float64]


class Baseline(msgspec.Struct):
    """What was measured: a histogram of each kind, and over how long.

    Attributes:
        recent: what was counted since, by kind, and `compared`, in how many samples.
        brightness, contrast: of pictures' mean and standard deviation of grey, 0..255.
        scores: of objects, or of the best class.
        labels: objects of each class.
        learn_s: how long it is to be measured.
        learned_s: how long it was measured so far.
    """

    labels: list[float]
    learn_s: float
    learned_s: float = 0.0
    compared: int = 0
    recent: dict[str, list[float]] = {}
    brightness: list[float] = msgspec.field(default_factory=lambda: [0.0] * _BINS)
    contrast: list[float] = msgspec.field(default_factory=lambda: [0.0] * _BINS)
    scores: list[float] = msgspec.field(default_factory=lambda: [0.0] * _BINS)


class DriftSink:
    """Learns how pictures and scores are distributed, then tells how far they have moved.

    Once a second: the picture's brightness and contrast, and the scores and classes of its objects. The first `learn_s`
    seconds are the baseline, kept in a file over restarts; they must be longer than what changes by itself: a day.
    From then on, the same is counted with a memory of that length, and once it is full compared by the population
    stability index: sum of (p - q) ln(p / q) over the bins.

    Args:
        file: of the baseline; measured if it is not there.
        labels: the network's class names.
        learn_s: how long to measure; of a file that is there, its own is used.
        live: True for a live source.
        on_alarm: called once when an index goes above `ALARM`, and again only after all were below half of it.

    Attributes:
        drift: by kind, the index; empty while the baseline is measured.

    Raises:
        DataError: the file is there, and is no baseline of this network.
    """

    name = "drift"

    def __init__(
        self,
        file: str | Path,
        *,
        labels: tuple[str, ...],
        learn_s: float,
        live: bool = True,
        on_alarm: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.file = Path(file)
        self.drift: dict[str, float] = {}
        self._baseline = _read(self.file, len(labels)) or Baseline(labels=[0.0] * len(labels), learn_s=learn_s)
        self._places = {label: index for index, label in enumerate(labels)}
        self._live, self._on_alarm = live, on_alarm or (lambda drift: None)
        self._recent = {
            kind: np.asarray(self._baseline.recent.get(kind, [0.0] * len(getattr(self._baseline, kind))))
            for kind in _KINDS
        }
        self._next_s = self._next_save_s = -math.inf
        self._last_s: float | None = None
        self._alarmed = False

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Look at one result a second.

        Raises:
            StorageError: the baseline can't be written.
        """
        at_s = frame.at_ns(live=self._live) * 1e-9
        if at_s < self._next_s:
            return
        self._next_s = at_s + _SAMPLE_S
        sample = self._sample(frame.image, result)
        if self._baseline.learned_s < self._baseline.learn_s:
            self._learn(sample, at_s)
        else:
            self._compare(sample, at_s)
        self._last_s = at_s

    def _sample(self, image: UInt8Array, result: Result) -> dict[str, Histogram]:
        grey = image[::_STEP_PX, ::_STEP_PX].mean(axis=2)
        scores, labels = _scores_and_labels(result)
        counted = np.zeros(len(self._places))
        for label in labels:
            if label in self._places:
                counted[self._places[label]] += 1
        return {
            "brightness": _histogram([float(grey.mean()) / 256]),
            "contrast": _histogram([float(grey.std()) / 128]),
            "scores": _histogram(scores),
            "labels": counted,
        }

    def _learn(self, sample: Mapping[str, Histogram], at_s: float) -> None:
        baseline = self._baseline
        for kind in _KINDS:
            setattr(baseline, kind, (np.asarray(getattr(baseline, kind)) + sample[kind]).tolist())
        if self._last_s is not None:  # a pause, or a restart, is not measured
            baseline.learned_s += min(max(at_s - self._last_s, 0.0), 5 * _SAMPLE_S)
        if at_s >= self._next_save_s or baseline.learned_s >= baseline.learn_s:
            self._next_save_s = at_s + _SAVE_S
            self._save()

    def _compare(self, sample: Mapping[str, Histogram], at_s: float) -> None:
        memory = max(self._baseline.learn_s / _SAMPLE_S, float(_FEWEST))
        self._baseline.compared += 1
        for kind, recent in self._recent.items():
            recent *= 1 - 1 / memory
            recent += sample[kind]
        if at_s >= self._next_save_s:
            self._next_save_s = at_s + _SAVE_S
            self._save()
        if self._baseline.compared < memory:
            return
        self.drift = {
            kind: round(stability_index(np.asarray(getattr(self._baseline, kind)), self._recent[kind]), 4)
            for kind in _KINDS
        }
        worst = max(self.drift.values())
        if worst > ALARM and not self._alarmed:
            self._alarmed = True
            self._on_alarm(dict(self.drift))
        elif worst < ALARM / 2:
            self._alarmed = False

    def _save(self) -> None:
        self._baseline.recent = {kind: recent.tolist() for kind, recent in self._recent.items()}
        write_whole(self.file, msgspec.json.format(msgspec.json.encode(self._baseline), indent=1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep what was measured so far."""
        if self._last_s is not None:
            with contextlib.suppress(StorageError):
                self._save()

    @property
    def remark(self) -> str | None:
        """For the end of the run."""
        if not self.drift:
            return None
        words = ", ".join(f"{kind} {value:.2f}" for kind, value in self.drift.items())
        return f"drift from {self.file}: {words}" + (f" (above {ALARM}: look)" if self._alarmed else "")


def stability_index(before: Histogram, now: Histogram) -> float:
    """The population stability index of two histograms; 0 where one of them is empty.

    Half a count is added to each bin, so that an empty one is no infinite surprise.
    """
    if before.sum() <= 0 or now.sum() <= 0:
        return 0.0
    p, q = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (before, now))
    return float(np.sum((p - q) * np.log(p / q)))


def check_drift(file: str | Path, words: Mapping[str, Any], *, tracks: bool) -> None:
    """Refuse what can't be.

    Raises:
        SpecError: no time, or the file's folder is missing.
    """
    check_folder(file, words, tracks=tracks)
    _learn_s(words)


def open_drift(file: str | Path, setting: Setting) -> DriftSink:
    """The sink of a run; its alarm goes where events go, and to the end of the run.

    Raises:
        SpecError, DataError: as `check_drift` and `DriftSink`.
    """
    name = setting.cameras[0].name

    def alarm(drift: dict[str, float]) -> None:
        setting.report(f"drift: {', '.join(f'{kind} {value:.2f}' for kind, value in drift.items() if value > ALARM)}")
        for listener in setting.on_event:
            listener({"event": "drift", "camera": name, "drift": drift, "alarm_above": ALARM})

    sink = DriftSink(
        file,
        labels=tuple(setting.runner.task.labels),
        learn_s=_learn_s(setting.words),
        live=setting.camera.live,
        on_alarm=alarm,
    )
    setting.drift.append(lambda: sink.drift)
    return sink


def _learn_s(words: Mapping[str, Any]) -> float:
    text = words.get("drift_learn") or DEFAULT_LEARN
    seconds = Rotation.parse(str(text)).max_s
    if not math.isfinite(seconds):
        raise SpecError(f"--drift-learn: expected a time such as 1d or 12h, got {text}")
    return seconds


def _scores_and_labels(result: Result) -> tuple[list[float], list[str]]:
    task = TASKS.of(result)
    objects = task.objects(result)
    if objects is not None:
        return objects.scores.tolist(), objects.names
    figures = task.figures(result)
    return ([max(figures.values())], [max(figures, key=figures.__getitem__)]) if figures else ([], [])


def _histogram(values: list[float]) -> Histogram:
    """Of values in 0..1, `_BINS` bins; what lies outside counts as the nearest."""
    clipped = np.clip(np.asarray(values, np.float64), 0, 1 - 1e-9)
    return np.bincount((clipped * _BINS).astype(np.int64), minlength=_BINS).astype(np.float64)


def _read(file: Path, labels: int) -> Baseline | None:
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LARGEST_BYTES)
        baseline = msgspec.json.decode(raw, type=Baseline)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise DataError(f"{file} is no baseline of --drift: {wrong}; remove it to measure a new one") from wrong
    sizes = [len(getattr(baseline, kind)) for kind in _KINDS]
    recent = [baseline.recent.get(kind, getattr(baseline, kind)) for kind in _KINDS]
    values = [value for kind in _KINDS for value in getattr(baseline, kind)] + [
        value for each in recent for value in each
    ]
    if (
        [len(each) for each in recent] != sizes
        or sizes != [_BINS, _BINS, _BINS, labels]
        or not all(0 <= v < 1e15 for v in values)
        or not baseline.learn_s > 0
    ):
        raise DataError(f"{file} is a baseline of another network: remove it to measure a new one")
    return baseline
