"""Pruning in steps with training in between: the share of each step, and files for a later restart."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecnn.bundle.evidence import Record
from edgecnn.errors import SpecError
from edgecnn.journal import Journal, journal_subject
from edgecnn.report.figures import new_figure, save_figure

_JOURNAL = "steps.jsonl"


class PruneStep(Record, frozen=True, kw_only=True):
    """One step: narrowed, then trained.

    Attributes:
        number: from 1.
        share: requested share of the unpruned network's cost.
        macs, parameters: of the network at its end.
        metric: the task's metric ("top1", "map", "miou", …); "" where nothing was trained.
        before, value: the metric before and after training.
        n: number of pictures that it was measured on.
        latency: figures compared with the unpruned network's, where latency was the cost.
        skipped: why the step was skipped; "" where it was not.
        warnings: warnings about the narrower network.
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
    """Shares for the steps: each step keeps the same share of what the one before left.

    Raises:
        SpecError: no steps, or a share outside 0 to 1.
    """
    if steps < 1:
        raise SpecError(f"--steps must be at least 1, got {steps}")
    if not 0 < share < 1:
        raise SpecError(f"the share that may remain must be between 0 and 1, got {share}")
    return [*(share ** (number / steps) for number in range(1, steps)), share]


class StepFolder:
    """Files of the steps, in a folder next to the result: a stopped pruning continues from there.

    Args:
        folder: the result's folder, NAME.model.
        about: digest of network, settings and data, which must be unchanged to continue.

    Raises:
        SpecError: the folder belongs to another pruning and has networks in it.
        StorageError: not writable.
    """

    def __init__(self, folder: Path, *, about: str) -> None:
        self.place = folder.parent / f".{folder.name}.pruning"
        file = self.place / _JOURNAL
        try:
            is_its = journal_subject(file) == about
        except SpecError as damaged:
            raise SpecError(f"{damaged}; remove {self.place} to start again") from damaged
        if not is_its:
            if any(self.place.glob("step-*.model")):
                raise SpecError(
                    f"{self.place} belongs to a pruning with another network, other data or settings: continue with "
                    "the same options, or remove it to start again"
                )
            self.remove()  # that pruning ended before any network was made
        self._journal = Journal(file, about=about)

    def narrowed(self, number: int) -> Path:
        """Path of a step's network before training."""
        return self.place / f"step-{number}-narrowed.model"

    def trained(self, number: int) -> Path:
        """Path of a step's network after training."""
        return self.place / f"step-{number}.model"

    def finished(self) -> list[PruneStep]:
        """The finished steps, in order."""
        steps: list[PruneStep] = []
        while (record := self._journal.get("step", str(len(steps) + 1))) is not None:
            steps.append(msgspec.convert(record, PruneStep))
        return steps

    def finish(self, step: PruneStep) -> None:
        """Record that a step is finished; its networks are already saved."""
        self._journal.put("step", str(step.number), msgspec.to_builtins(step))

    def remember(self, name: str, measure: Callable[[], float]) -> float:
        """A number that is measured once and kept for later restarts."""
        if ("number", name) not in self._journal:
            self._journal.put("number", name, measure())
        return float(self._journal.get("number", name))

    def remove(self) -> None:
        """Remove the folder, when everything is in the result."""
        shutil.rmtree(self.place, ignore_errors=True)


def steps_as_csv(steps: Sequence[PruneStep]) -> bytes:
    """A line for each step that was not skipped."""
    columns = ("number", "share", "macs", "parameters", "metric", "before", "value", "n")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([getattr(step, name) for name in columns] for step in steps if not step.skipped)
    return text.getvalue().encode()


def plot_steps(steps: Sequence[PruneStep], path: Path, *, macs: int, metric: float) -> None:
    """Draw the metric over the multiply-adds, PNG: before and after the training of each step.

    Args:
        steps: the trained steps.
        path: the file.
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
