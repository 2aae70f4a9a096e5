"""Prunes until the network is measured to be faster: multiply-adds that save no time are not counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor

from edgecnn.bundle.evidence import TwinLatency
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.pruning.channels import Gradients, PruneSettings, cost_of, prune_to_share
from edgecnn.sources.model import TrainedModel

Measure: TypeAlias = Callable[[TrainedModel, TrainedModel], TwinLatency]
"""Times a network and a wider one (called "float" in the figures) in turns."""

MOST_FAILURES = 3  # narrower networks in a row that are not faster
_SHORTEST, _LONGEST = 0.95, 0.8  # factor of a step on the multiply-adds: at least a twentieth less, at most a fifth
_NEAR = 1.15  # times the requested latency, by the product of all steps; then it is compared with the unpruned one


@dataclass(frozen=True, kw_only=True)
class LatencyStep:
    """A narrower network that was tried.

    Attributes:
        macs_share: its share of the unpruned network's multiply-adds; the requested share where no network was made.
        kept: whether it was clearly faster than the last kept one, or the unpruned one.
        latency: compared with that one (`float_latency_ms`, `ratio`: how many times faster); None where no network was
            made.
        reason: why no network was made; "" where one was.
    """

    macs_share: float
    kept: bool
    latency: TwinLatency | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class LatencyPruned:
    """The result of pruning to a latency.

    Attributes:
        model: the last network that was kept; has a warning if the requested latency was not reached.
        latency: its latency compared with the unpruned network's.
        reached: whether its share of the unpruned latency is within the requested one.
        steps: in the order they were tried.
    """

    model: TrainedModel
    latency: TwinLatency
    reached: bool
    steps: tuple[LatencyStep, ...]


def prune_to_latency(
    model: TrainedModel,
    *,
    share: float,
    unpruned: TrainedModel,
    measure: Measure,
    latency_share: float = 1.0,
    settings: PruneSettings | None = None,
    gradients: Gradients | None = None,
    frames: Tensor | None = None,
) -> LatencyPruned:
    """A copy that takes at most this share of the unpruned network's measured latency.

    Multiply-adds are reduced step by step. A network is kept if it is clearly faster than the last kept one: if
    the 95 % interval of their ratio is above 1. Otherwise a narrower one is made from that last one. The search ends
    at the requested latency, or after three networks in a row that were not faster.

    Args:
        model: not changed.
        share: share of the unpruned network's latency, 0 to 1 (exclusive).
        unpruned: the unpruned network; `model` itself where nothing was pruned yet.
        measure: times two networks in turns.
        latency_share: share of the unpruned latency that `model` was measured to take.
        settings, gradients, frames: as for `prune_to_share`.

    Raises:
        SpecError: nothing narrower was clearly faster; a share outside 0 to 1.
        UnknownNameError, SourceError: as `prune_to_share`.
    """
    if not 0 < share < 1:
        raise SpecError(f"the share of the latency must be between 0 and 1, got {share}")
    descent = _Descent(model, unpruned, latency_share, measure)
    while descent.failures < MOST_FAILURES and not descent.is_at(share):
        descent.narrow_further(share, settings, gradients, frames)
    return descent.outcome(share)


class _Descent:
    """The last network that was kept, and all attempts."""

    def __init__(self, model: TrainedModel, unpruned: TrainedModel, latency_share: float, measure: Measure) -> None:
        self._kept, self._unpruned, self._measure = model, unpruned, measure
        self._whole = cost_of(unpruned, "macs")
        self._tried_share = cost_of(model, "macs") / self._whole
        self._latency_share = latency_share  # of the kept one: a product of ratios, until `_against_unpruned` is known
        self._against_unpruned: TwinLatency | None = None
        self._steps: list[LatencyStep] = []
        self._impossible: SpecError | None = None
        self.failures = 0

    def is_at(self, share: float) -> bool:
        """Whether the kept network is fast enough, compared with the unpruned one."""
        if not self._has_kept_step or self._latency_share > share * _NEAR:
            return False
        self._latency_share = 1 / self._final_latency().ratio
        return self._latency_share <= share

    def narrow_further(
        self, share: float, settings: PruneSettings | None, gradients: Gradients | None, frames: Tensor | None
    ) -> None:
        """Narrow the kept network to fewer multiply-adds than the last attempt, and time both."""
        self._tried_share *= min(max(share / self._latency_share, _LONGEST), _SHORTEST)
        left = self._tried_share * self._whole / cost_of(self._kept, "macs")
        try:
            narrower = prune_to_share(
                self._kept, share=left, cost="macs", settings=settings, gradients=gradients, frames=frames
            )
        except UnknownNameError:
            raise
        except SpecError as impossible:  # rounding removes nothing, or no more can be removed
            self._impossible, self.failures = impossible, self.failures + 1
            self._steps.append(LatencyStep(macs_share=self._tried_share, kept=False, reason=str(impossible)))
            return
        self._tried_share = cost_of(narrower, "macs") / self._whole
        latency = self._measure(narrower, self._kept)
        faster = latency.low > 1
        self._steps.append(LatencyStep(macs_share=self._tried_share, kept=faster, latency=latency))
        if not faster:
            self.failures += 1
            return
        self._against_unpruned = latency if self._kept is self._unpruned else None
        self._kept, self.failures = narrower, 0
        self._latency_share /= latency.ratio

    def outcome(self, share: float) -> LatencyPruned:
        """The result.

        Raises:
            SpecError: no narrower network was kept.
        """
        if not self._has_kept_step:
            if all(step.latency is None for step in self._steps) and self._impossible is not None:
                raise self._impossible
            raise SpecError(
                f"{self._kept.name} was narrowed {len(self._steps)} times, down to {self._steps[-1].macs_share:.0%} of "
                "its multiply-adds, and was never clearly faster on this machine: its time is spent elsewhere. Prune "
                "to a share of the multiply-adds (--macs), find the slow layers with `edgecnn bench`, or measure when "
                "no other program runs"
            )
        latency = self._final_latency()
        model, reached = self._kept, 1 / latency.ratio <= share
        if not reached:
            warning = (
                f"{share:.0%} of the latency was requested, but only {1 / latency.ratio:.0%} was reached: narrower "
                "networks were not clearly faster, or could not be made"
            )
            model = replace(model, warnings=(*model.warnings, warning))
        return LatencyPruned(model=model, latency=latency, reached=reached, steps=tuple(self._steps))

    @property
    def _has_kept_step(self) -> bool:
        return any(step.kept for step in self._steps)

    def _final_latency(self) -> TwinLatency:
        if self._against_unpruned is None:
            self._against_unpruned = self._measure(self._kept, self._unpruned)
        return self._against_unpruned


def latency_figures(pruned: LatencyPruned, *, of: str, share: float) -> dict[str, Any]:
    """The figures for the record.

    Args:
        pruned: the result.
        of: the artifact that was timed, such as "openvino:fp32".
        share: the requested share.

    Returns:
        of, share, reached; before_ms, after_ms (medians of whole frames, the unpruned and the narrower network's);
        ratio, low, high (how many times faster, with a 95 % interval); device_name, threads; and steps: macs_share,
        kept, reason, and the same figures of each, compared with the last kept network.
    """
    steps = [
        {"macs_share": round(step.macs_share, 4), "kept": step.kept, "reason": step.reason}
        | ({} if step.latency is None else _figures(step.latency))
        for step in pruned.steps
    ]
    machine = {"device_name": pruned.latency.device_name, "threads": pruned.latency.threads}
    asked = {"of": of, "share": share, "reached": pruned.reached}
    return {**asked, **_figures(pruned.latency), **machine, "steps": steps}


def _figures(latency: TwinLatency) -> dict[str, float]:
    return {
        "before_ms": latency.float_latency_ms,
        "after_ms": latency.latency_ms,
        "ratio": latency.ratio,
        "low": latency.low,
        "high": latency.high,
    }
