"""Narrower in steps, with training in between: how far each goes, and what is left behind for a later start."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecnn._staging import storage_error, write_whole
from edgecnn.errors import SpecError
from edgecnn.evidence import Record
from edgecnn.measure._figures import new_figure, save_figure


class PruneStep(Record, frozen=True, kw_only=True):
    """One step: made narrower, then trained.

    Attributes:
        number: from 1.
        share: of what the unpruned network costs, that was asked for here.
        macs, parameters: of the network at its end.
        metric: "top1", "map" or "miou"; "" where nothing was trained.
        before, value: it, before and after training.
        n: pictures that it was measured on.
        latency: figures beside the unpruned network's, where that was the target.
        skipped: why nothing was done in this step; "" where something was.
        warnings: of the narrower network.
    """

    number: int
    share: float
    macs: int
    parameters: int
    metric: str = ""
    before: float | None = None
    value: float | None = None
    n: int = 0
    latency: dict[str, Any] | None = None
    skipped: str = ""
    warnings: tuple[str, ...] = ()


def geometric_shares(share: float, steps: int) -> list[float]:
    """Each step leaves the same share of what the one before left.

    Raises:
        SpecError: no steps, or a share outside of 0 to 1.
    """
    if steps < 1:
        raise SpecError(f"--steps must be at least 1, got {steps}")
    if not 0 < share < 1:
        raise SpecError(f"the share that may be left lies between 0 and 1, got {share}")
    return [*(share ** (number / steps) for number in range(1, steps)), share]


class StepFolder:
    """What each step left, in a folder beside the result: a stopped pruning goes on from there.

    Args:
        folder: of the result, NAME.model.
        about: digest of what must be the same to go on: network, settings, data.

    Raises:
        SpecError: what lies there is of another pruning, and holds networks.
        StorageError: not writable.
    """

    def __init__(self, folder: Path, *, about: str) -> None:
        self.place = folder.parent / f".{folder.name}.pruning"
        words = self.place / "about.json"
        try:
            if words.is_file() and msgspec.json.decode(words.read_bytes(), type=str) == about:
                return
            if any(self.place.glob("step-*.model")):
                raise SpecError(
                    f"{self.place} is of a pruning with another network, other data or settings: go on with the same "
                    "words, or remove it to begin anew"
                )
            self.remove()  # what ended before any network was made
            self.place.mkdir(parents=True)
            write_whole(words, msgspec.json.encode(about))
        except msgspec.DecodeError as damaged:
            raise SpecError(f"{words} is damaged: {damaged}; remove {self.place} to begin anew") from damaged
        except OSError as failed:
            raise storage_error(self.place, failed) from failed

    def narrowed(self, number: int) -> Path:
        """Where the network of a step lies before it is trained."""
        return self.place / f"step-{number}-narrowed.model"

    def trained(self, number: int) -> Path:
        """Where it lies after."""
        return self.place / f"step-{number}.model"

    def finished(self) -> list[PruneStep]:
        """The steps that are done, first one first."""
        steps: list[PruneStep] = []
        while (record := self.place / f"step-{len(steps) + 1}.json").is_file():
            steps.append(msgspec.json.decode(record.read_bytes(), type=PruneStep))
        return steps

    def finish(self, step: PruneStep) -> None:
        """Note that a step is done; its networks lie there already."""
        write_whole(self.place / f"step-{step.number}.json", msgspec.json.encode(step))

    def remember(self, name: str, measure: Callable[[], float]) -> float:
        """A number that is measured once for all starts."""
        file = self.place / f"{name}.json"
        if not file.is_file():
            write_whole(file, msgspec.json.encode(measure()))
        return msgspec.json.decode(file.read_bytes(), type=float)

    def remove(self) -> None:
        """All is in the result."""
        shutil.rmtree(self.place, ignore_errors=True)


def steps_as_csv(steps: Sequence[PruneStep]) -> bytes:
    """A line for each step that did something."""
    columns = ("number", "share", "macs", "parameters", "metric", "before", "value", "n")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([getattr(step, name) for name in columns] for step in steps if not step.skipped)
    return text.getvalue().encode()


def plot_steps(steps: Sequence[PruneStep], path: Path, *, macs: int, metric: float) -> None:
    """Draw the metric over the multiply-adds, PNG: before and after the training of each step.

    Args:
        steps: that were trained.
        path: of the file.
        macs, metric: of the unpruned network.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    done = [step for step in steps if step.value is not None]
    figure = new_figure(8, 5)
    axes = figure.subplots()
    over = [step.macs / 1e6 for step in done]
    before = [math.nan if step.before is None else step.before for step in done]
    after = [math.nan if step.value is None else step.value for step in done]
    axes.plot([macs / 1e6, *over], [metric, *after], marker="o", color="black", label="trained again")
    axes.plot(over, before, marker="o", mfc="none", ls="", color="tab:red", label="just narrowed")
    axes.axhline(metric, color="tab:gray", ls="--", lw=1, label=f"unpruned: {metric:.4f}")
    axes.set_xlabel("million multiply-adds")
    axes.set_ylabel(done[0].metric if done else "metric")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)
