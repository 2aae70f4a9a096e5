"""Narrower until it is measured to be faster: multiply-adds that no runtime feels are not counted as gains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import Tensor

from edgecnn.compression.prune.channels import Gradients, PruneSettings, cost_of, prune_to_share
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.evidence import TwinLatency
from edgecnn.sources import TrainedModel

Measure: TypeAlias = Callable[[TrainedModel, TrainedModel], TwinLatency]
"""A network, and the wider one that stands for "float" in the figures: both timed in turns."""

MOST_FAILURES = 3  # narrower networks in a row that are not faster
_SHORTEST, _LONGEST = 0.95, 0.8  # a step's factor on the multiply-adds: a twentieth less at least, a fifth at most
_NEAR = 1.15  # of the wanted latency, by the product of all steps; then it is measured beside the unpruned one


@dataclass(frozen=True, kw_only=True)
class LatencyStep:
    """A narrower network that was tried.

    Attributes:
        macs_share: of the unpruned network's multiply-adds; what was asked for where it came to no network.
        kept: whether it was clearly faster than the last kept one, or the unpruned one.
        latency: beside that one's (`float_latency_ms`, `ratio`: how many times faster); None where there was none.
        reason: why there was no such network; "" where there was.
    """

    macs_share: float
    kept: bool
    latency: TwinLatency | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class LatencyPruned:
    """What was reached.

    Attributes:
        model: the last network that was kept; it warns where the wanted latency was not reached.
        latency: of it, measured beside the unpruned network.
        reached: whether its share of the unpruned latency is the wanted one, or less.
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
    beside: TrainedModel,
    measure: Measure,
    latency_share: float = 1.0,
    settings: PruneSettings | None = None,
    gradients: Gradients | None = None,
    frames: Tensor | None = None,
) -> LatencyPruned:
    """A copy that takes at most this share of the unpruned network's measured latency.

    Multiply-adds go down step by step. A network counts where it is clearly faster than the last that counted: where
    the 95 % interval of their ratio lies above 1. Else one with still fewer is made of that last one and tried. It ends
    at the wanted latency, or after three in a row that were no faster.

    Args:
        model: is not changed.
        share: of the unpruned network's latency, 0 to 1 (exclusive).
        beside: the unpruned network; `model` itself where nothing was pruned yet.
        measure: times two networks in turns.
        latency_share: what `model` takes of the unpruned latency, as was measured before.
        settings, gradients, frames: as for `prune_to_share`.

    Raises:
        SpecError: nothing narrower was clearly faster; a share outside of 0 to 1.
        UnknownNameError, SourceError: as `prune_to_share`.
    """
    if not 0 < share < 1:
        raise SpecError(f"the share of the latency lies between 0 and 1, got {share}")
    descent = _Descent(model, beside, latency_share, measure)
    while descent.failures < MOST_FAILURES and not descent.is_at(share):
        descent.go_down(share, settings, gradients, frames)
    return descent.outcome(share)


class _Descent:
    """The last network that was kept, and what was tried."""

    def __init__(self, model: TrainedModel, beside: TrainedModel, latency_share: float, measure: Measure) -> None:
        self._kept, self._unpruned, self._measure = model, beside, measure
        self._whole = cost_of(beside, "macs")
        self._tried_share = cost_of(model, "macs") / self._whole
        self._latency_share = latency_share  # of the kept one: a product of ratios, until `_beside_unpruned` is known
        self._beside_unpruned: TwinLatency | None = None
        self._steps: list[LatencyStep] = []
        self._impossible: SpecError | None = None
        self.failures = 0

    def is_at(self, share: float) -> bool:
        """Whether the kept network is fast enough, by a measurement beside the unpruned one."""
        if not self._anything_kept or self._latency_share > share * _NEAR:
            return False
        self._latency_share = 1 / self._final_latency().ratio
        return self._latency_share <= share

    def go_down(
        self, share: float, settings: PruneSettings | None, gradients: Gradients | None, frames: Tensor | None
    ) -> None:
        """Make a network with fewer multiply-adds than the last one tried, of the one that was kept, and time both."""
        self._tried_share *= min(max(share / self._latency_share, _LONGEST), _SHORTEST)
        left = self._tried_share * self._whole / cost_of(self._kept, "macs")
        try:
            narrower = prune_to_share(
                self._kept, share=left, target="macs", settings=settings, gradients=gradients, frames=frames
            )
        except UnknownNameError:
            raise
        except SpecError as impossible:  # rounding leaves all, or no less can stay
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
        self._beside_unpruned = latency if self._kept is self._unpruned else None
        self._kept, self.failures = narrower, 0
        self._latency_share /= latency.ratio

    def outcome(self, share: float) -> LatencyPruned:
        """What is to be told.

        Raises:
            SpecError: nothing was kept.
        """
        if not self._anything_kept:
            if all(step.latency is None for step in self._steps) and self._impossible is not None:
                raise self._impossible
            raise SpecError(
                f"{self._kept.name} was made narrower {len(self._steps)} times, down to "
                f"{self._steps[-1].macs_share:.0%} of its multiply-adds, and was never clearly faster on this machine: "
                "its latency lies elsewhere. Prune to a share of the multiply-adds (--macs), look with `edgecnn bench` "
                "at where the time goes, or measure when no other program runs"
            )
        latency = self._final_latency()
        model, reached = self._kept, 1 / latency.ratio <= share
        if not reached:
            warning = (
                f"{1 / latency.ratio:.0%} of the latency is what was reached, {share:.0%} was asked for: narrower "
                "networks were not clearly faster, or could not be made"
            )
            model = replace(model, warnings=(*model.warnings, warning))
        return LatencyPruned(model=model, latency=latency, reached=reached, steps=tuple(self._steps))

    @property
    def _anything_kept(self) -> bool:
        return any(step.kept for step in self._steps)

    def _final_latency(self) -> TwinLatency:
        if self._beside_unpruned is None:
            self._beside_unpruned = self._measure(self._kept, self._unpruned)
        return self._beside_unpruned


def latency_figures(pruned: LatencyPruned, *, of: str, share: float) -> dict[str, Any]:
    """What is written down of it.

    Args:
        pruned: the result.
        of: the artifact that was timed, "openvino:fp32".
        share: that was asked for.

    Returns:
        of, share, reached; before_ms, after_ms (medians of whole frames, the unpruned and the narrower network's);
        ratio, low, high (how many times faster, with a 95 % interval); device_name, threads; and steps: macs_share,
        kept, reason, and the same figures of each beside the last one that was kept.
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
