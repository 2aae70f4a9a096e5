"""Evaluates every network and artifact of a flow, and times all of them in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from edgecnn.bundle import Artifact, Bundle, Refusal
from edgecnn.datasets import open_dataset
from edgecnn.errors import DataError
from edgecnn.flow.closing_figures import SHIPPED, Compression, Point
from edgecnn.flow.evaluation import Evaluation
from edgecnn.flow.recipe import Recipe, words_of
from edgecnn.flow.stage_journal import StageJournal
from edgecnn.flow.stages import START, Network, Progress, digest
from edgecnn.flow.timed_in_turns import Contender, time_in_turns
from edgecnn.measure.int8_speedup import times_faster
from edgecnn.measure.latency import BenchFailure, BenchResult
from edgecnn.measure.leakage import pictures_learned, refuse_seen_pictures
from edgecnn.measure.machine import Machine, describe_machine

if TYPE_CHECKING:
    from edgecnn.sources.model import TrainedModel


class ClosingMeasurements:
    """Measures a flow's results; figures of unchanged results are kept.

    Args:
        recipe: the flow's recipe.
        evaluated: digest of the pictures to evaluate on; "" for none.
        journal: the flow's journal.
        evaluate: the verb.
        progress: called with (steps done, steps in all, name of the step).
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        evaluated: str,
        journal: StageJournal,
        evaluate: Callable[..., Evaluation],
        progress: Progress,
    ) -> None:
        self._evaluate = evaluate
        self._recipe, self._evaluated, self._journal, self._progress = recipe, evaluated, journal, progress
        self._notes: list[str] = []

    def close(
        self,
        networks: Sequence[Network],
        twins: Mapping[str, Bundle],
        bundle: Bundle | None,
        *,
        folder: Path,
        refused: Sequence[Refusal],
        notes: Sequence[str],
        before: Mapping[str, bool],
    ) -> Compression:
        """Evaluate each network and artifact, and time all artifacts in turns.

        Args:
            networks: the unpruned one, and the network of each later stage.
            twins: stage → a bundle with fp32 artifacts of its network: all formats of the first, one of the others.
            bundle: the bundle to ship.
            folder, refused, notes, before: see `Compression`.
        """
        points = [self._network(network, twins.get(network.stage)) for network in networks]
        shipped = [] if bundle is None else [self._artifact(bundle, a, points[-1]) for a in bundle.manifest.artifacts]
        first = networks[0].stage
        unpruned = _fp32(twins.get(first), self._recipe.convert.formats)
        timed = [_fp32(twins.get(network.stage), self._recipe.convert.formats)[:1] for network in networks]
        final = [] if bundle is None else [Contender(bundle, artifact) for artifact in bundle.manifest.artifacts]
        machine = describe_machine()
        times = self._times([*unpruned, *(c for cs in timed for c in cs), *final], machine)
        baseline = min(
            (r for c in unpruned if isinstance(r := times[_key(c)], BenchResult)), key=_latency_ms, default=None
        )
        places = [(contender, contender.bundle.folder / contender.artifact.path) for contender in unpruned]
        baselines = tuple(
            _timed(replace(points[0], path=str(p), file_bytes=c.artifact.bytes), c, times, baseline) for c, p in places
        )
        return Compression(
            folder=folder,
            bundle=None if bundle is None else bundle.folder,
            networks=tuple(
                _timed(point, contenders[0], times, baseline) if contenders else point
                for point, contenders in zip(points, timed, strict=True)
            ),
            artifacts=tuple(_timed(p, c, times, baseline) for p, c in zip(shipped, final, strict=True)),
            baselines=baselines,
            refused=tuple(refused),
            failures=tuple(each for each in times.values() if isinstance(each, BenchFailure)),
            before=dict(before),
            notes=(*notes, *self._notes),
            machine=machine,
        )

    def _network(self, network: Network, twin: Bundle | None) -> Point:
        """A network's costs, and its metric in torch."""
        figures = self._known(
            f"{network.stage}, measured", (network.identity, self._evaluated), lambda: self._measure(network, twin)
        )
        self._notes += figures.pop("notes", [])
        if "value" not in figures and network.figures.get("value") is not None:
            measured = network.figures
            figures |= {
                "metric": measured["metric"],
                "value": measured["value"],
                "n": measured["n"],
                "measured_on": "validation",
            }
        return Point(stage=network.stage, path=network.model, **figures)

    def _measure(self, network: Network, twin: Bundle | None) -> dict[str, Any]:
        self._progress(0, 0, f"{network.stage}: counting multiply-adds")
        model = network.load()
        tensors = model.module.state_dict().values()
        macs, parameters = _costs(model) if twin is None else (twin.manifest.macs, twin.manifest.parameters)
        figures: dict[str, Any] = {
            "macs": macs,
            "parameters": parameters,
            "file_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        }
        data = self._recipe.data
        if data.evaluate_on is None:
            return figures
        try:
            dataset = open_dataset(
                data.evaluate_on, task=model.task.name, labels=model.task.labels, split=data.evaluate_split
            )
        except DataError as failed:
            if network.stage != START:  # the start may have other classes
                raise
            return {**figures, "notes": [f"{network.model} is not evaluated: {failed}"]}
        refuse_seen_pictures(dataset, pictures_learned(model.stages))
        evaluation = self._evaluate(model, data.evaluate_on, **self._how(f"{network.stage}, evaluated"))
        return figures | _metric(evaluation)

    def _artifact(self, bundle: Bundle, artifact: Artifact, network: Point) -> Point:
        """An artifact's size and metric; multiply-adds and parameters are the network's."""
        name = f"{artifact.format} {artifact.precision}"
        figures: dict[str, Any] = {}
        if self._evaluated:
            figures = self._known(
                f"{name}, measured",
                (*_key(Contender(bundle, artifact)), self._evaluated),
                lambda: _metric(
                    self._evaluate(
                        bundle,
                        self._recipe.data.evaluate_on or "",
                        format=artifact.format,
                        precision=artifact.precision,
                        **self._how(f"{name}, evaluated"),
                    )
                ),
            )
        elif artifact.evidence.accuracy:
            last = artifact.evidence.accuracy[-1]
            names = ("metric", "value", "low", "high", "n")
            figures = {"measured_on": last.data, **{name: getattr(last, name) for name in names}}
        return Point(
            stage=SHIPPED,
            format=artifact.format,
            precision=artifact.precision,
            path=str(bundle.folder / artifact.path),
            macs=network.macs,
            parameters=network.parameters,
            file_bytes=artifact.bytes,
            **figures,
        )

    def _how(self, what: str) -> dict[str, Any]:
        data = self._recipe.data
        return {
            "split": data.evaluate_split,
            "ignore_label": data.ignore_label,
            "progress": lambda done, total: self._progress(done, total, what),
        }

    def _times(
        self, contenders: Iterable[Contender], machine: Machine
    ) -> dict[tuple[str, ...], BenchResult | BenchFailure]:
        """Times each different artifact once."""
        unlike = list({_key(contender): contender for contender in contenders}.items())
        if not unlike:
            return {}
        bench = self._recipe.bench

        def do() -> dict[str, Any]:
            outcomes = time_in_turns(
                [contender for _, contender in unlike],
                machine=machine,
                profile=bench.profile,
                iterations=bench.iterations,
                threads=bench.threads,
                progress=lambda done, total, what: self._progress(done, total, f"timing in turns: {what}"),
            )
            plain = [o.figures() if isinstance(o, BenchResult) else msgspec.to_builtins(o) for o in outcomes]
            return {"outcomes": plain, "again": any(isinstance(o, BenchFailure) for o in outcomes)}

        given = ([key for key, _ in unlike], words_of(bench), machine.identity, dict(machine.versions))
        kept = self._known("timing", given, do)["outcomes"]
        empty = {"total_ns": (), "fit_ns": (), "infer_ns": (), "finish_ns": ()}
        outcomes: dict[tuple[str, ...], BenchResult | BenchFailure] = {}
        unsteady: list[str] = []
        for (key, contender), figures in zip(unlike, kept, strict=True):
            name = f"{contender.bundle.folder.stem} {contender.artifact.format} {contender.artifact.precision}"
            if "reason" in figures:
                failure = msgspec.convert(figures, BenchFailure)
                self._notes.append(f"{name} could not be timed: {failure.error}: {failure.reason}")
                outcomes[key] = failure
                continue
            result = msgspec.convert({**figures, "samples": empty}, BenchResult)
            if result.unstable:
                unsteady.append(f"{name} ({result.unstable[0]})")
            outcomes[key] = result
        if unsteady:
            self._notes.append(f"unstable while timed: {', '.join(unsteady)}")
        return outcomes

    def _known(self, what: str, given: tuple[Any, ...], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Figures of an earlier start, or new ones; those with "again" are not kept."""
        key = digest(what, *given)
        finished = self._journal.finished(what, key)
        if finished is not None:
            return dict(finished.figures)
        figures = measure()
        if not figures.pop("again", False):
            self._journal.finish(what, key, figures=figures)
        return figures


def _costs(model: TrainedModel) -> tuple[int, int]:
    """Multiply-adds and parameters, as `convert` counts them."""
    from edgecnn.converters.deployable.wrapper import Deployable, count_macs

    deployable = Deployable(model)
    return count_macs(deployable), deployable.parameter_count


def _metric(evaluation: Evaluation) -> dict[str, Any]:
    names = ("metric", "value", "low", "high", "n")
    return {"measured_on": "evaluate_on", **{name: getattr(evaluation, name) for name in names}}


def _fp32(bundle: Bundle | None, formats: Sequence[str]) -> list[Contender]:
    """Its fp32 artifacts, in the recipe's order of formats."""
    held = [] if bundle is None else [a for a in bundle.manifest.artifacts if a.precision == "fp32"]
    held.sort(key=lambda artifact: formats.index(artifact.format))
    return [] if bundle is None else [Contender(bundle, artifact) for artifact in held]


def _key(contender: Contender) -> tuple[str, ...]:
    """Identifies an artifact: graphs of two networks may differ only in the file with the weights."""
    artifact = contender.artifact
    return (artifact.format, artifact.precision, *(file.sha256 for file in artifact.files))


def _latency_ms(result: BenchResult) -> float:
    """The median of the rounds' medians."""
    return median(one_round.p50_ms for one_round in result.rounds)


def _timed(
    point: Point, contender: Contender, times: Mapping[tuple[str, ...], Any], baseline: BenchResult | None
) -> Point:
    """The row with the latency of this artifact."""
    artifact, result = contender.artifact, times[_key(contender)]
    point = replace(point, format=artifact.format, precision=artifact.precision)
    if not isinstance(result, BenchResult):
        return point
    point = replace(point, latency_ms=round(_latency_ms(result), 4))
    if baseline is None:
        return point
    ratio = times_faster(result, baseline)
    return replace(
        point,
        times_faster=round(ratio.ratio, 4),
        times_faster_low=round(ratio.low, 4),
        times_faster_high=round(ratio.high, 4),
    )
