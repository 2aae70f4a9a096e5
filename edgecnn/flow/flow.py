"""Runs a recipe in a folder, stage by stage; finished stages are not repeated."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecnn.atomic import write_whole
from edgecnn.bundle import Bundle, Refusal, commit, staged
from edgecnn.errors import BundleError, GateError, MissingDependencyError, SpecError
from edgecnn.flow.closing_figures import Compression
from edgecnn.flow.closing_measurements import ClosingMeasurements
from edgecnn.flow.recipe import Recipe, words_of
from edgecnn.flow.recipe_pictures import RecipePictures
from edgecnn.flow.stage_journal import Finished, StageJournal
from edgecnn.flow.stages import (
    MODEL_STAGES,
    START,
    Network,
    Progress,
    Work,
    digest,
    identity_of,
    saved_identity,
)
from edgecnn.flow.verbs import Verbs
from edgecnn.json_text import encode_json
from edgecnn.report.flow import plot_flow

if TYPE_CHECKING:
    from edgecnn.converters.quantize_bundle import Conversion


_WORK = ".work"  # fp32 artifacts that are timed but not shipped

REPORT, PLOT = "compress.json", "compress.png"


class Flow:
    """A recipe and its folder."""

    def __init__(self, recipe: Recipe, folder: Path, verbs: Verbs, progress: Progress) -> None:
        from edgecnn.sources.load import load_model
        from edgecnn.sources.saved import check_saveable

        self.recipe, self.folder, self._verbs, self._progress = recipe, folder, verbs, progress
        self._done_before: dict[str, bool] = {}
        self._notes: list[str] = []
        progress(0, 0, "loading the network")
        model = load_model(recipe.model, **recipe.model_options)
        if any(recipe.table(stage.name) is not None for stage in MODEL_STAGES):
            check_saveable(model)
        self.data = RecipePictures(recipe, model, leave_out=folder, progress=progress)
        _check_teacher(recipe, model.task.labels, self.data.class_names)
        self.start = Network(stage=START, model=recipe.model, options=recipe.model_options, identity=identity_of(model))
        self.journal = StageJournal(folder)

    def run(self) -> Compression:
        """Run all stages that are not finished."""
        networks = self._networks()
        floats, refused = self._converted(networks[-1])
        bundle, more = self._shipped(floats)
        refused += more
        twins = self._fp32_twins(networks, floats)
        measuring = ClosingMeasurements(
            recipe=self.recipe,
            evaluated=self.data.evaluated,
            journal=self.journal,
            evaluate=self._verbs.evaluate,
            progress=self._progress,
        )
        result = measuring.close(
            networks, twins, bundle, folder=self.folder, refused=refused, notes=self._notes, before=self._done_before
        )
        write_whole(self.folder / REPORT, encode_json(result.document(), indent=1) + b"\n")
        with contextlib.suppress(MissingDependencyError):  # a plot is useful, but not required
            plot_flow(result.plotted, self.folder / PLOT, title=self.folder.absolute().name, metric=result.metric)
        return result

    def _networks(self) -> list[Network]:
        """The network before pruning, and the network of each stage after it."""
        network, unpruned, networks = self.start, self.start, [self.start]
        for number, stage in enumerate(MODEL_STAGES, 1):
            table = self.recipe.table(stage.name)
            if table is None:
                continue
            out = self.folder / f"{number}-{stage.name}.model"
            work = Work(
                recipe=self.recipe,
                table=table,
                network=network,
                unpruned=unpruned,
                out=out,
                verbs=self._verbs,
                progress=self._within(stage.name),
            )
            given = (words_of(table), network.identity, unpruned.identity, self.data.learned)
            finished = self._stage(stage.name, given, out, look=saved_identity, do=partial(stage.run, work))
            self._notes += [f"{stage.name}: {warning}" for warning in finished.figures.get("warnings", ())]
            network = Network(stage=stage.name, model=str(out), identity=finished.result, figures=finished.figures)
            if stage.name == "train":
                unpruned, networks = network, []
            networks.append(network)
        return networks

    def _converted(self, network: Network) -> tuple[Bundle | None, list[Refusal]]:
        """The float artifacts."""
        settings = self.recipe.convert
        out = self._shipping if self.recipe.quantize is None else self.folder / f"{len(MODEL_STAGES) + 1}-convert.edge"

        def do() -> dict[str, Any]:
            conversion = self._verbs.convert(
                network.model,
                out=out,
                to=settings.formats,
                precision=settings.precision,
                data=settings.data,
                max_drop=settings.max_drop,
                ignore_label=self.recipe.data.ignore_label,
                overwrite=True,  # a recipe may replace what it made before
                progress=self._within("convert"),
                **network.options,
            )
            return _figures_of(conversion)

        given = (words_of(settings), settings.formats, network.identity, self.data.converted)
        finished = self._stage("convert", given, out, look=_bundle_identity, do=do)
        self._notes += [f"convert: {warning}" for warning in finished.figures["warnings"]]
        return Bundle.open(out) if finished.result else None, _refusals(finished)

    def _shipped(self, floats: Bundle | None) -> tuple[Bundle | None, list[Refusal]]:
        """The bundle with the int8 artifacts; a copy of the float bundle where all of these are refused."""
        settings, data = self.recipe.quantize, self.recipe.data
        if settings is None or floats is None:
            return floats, []
        held = {artifact.format for artifact in floats.manifest.artifacts if artifact.precision == "fp32"}
        formats = [name for name in settings.to or self.recipe.convert.formats if name in held]
        out = self._shipping

        def do() -> dict[str, Any]:
            if not formats:
                _copy(floats, out, ())
                return {"refused": [], "warnings": ["no fp32 artifact passed that could be quantized"]}
            conversion = self._verbs.quantize(
                floats,
                out=out,
                to=formats,
                precision=settings.precision,
                calibration=self.data.calibration,
                calibration_count=settings.calibration_count,
                seed=settings.seed,
                data=self.recipe.search_data,
                split=self.data.search_split,
                max_drop=settings.max_drop,
                evaluate_on=settings.evaluate_on,
                ignore_label=data.ignore_label,
                allow_drop=settings.allow_drop,
                keep_slower=settings.keep_slower,
                budget_minutes=settings.budget_minutes,
                overwrite=True,
                progress=self._within("quantize"),
            )
            if conversion.bundle is None:
                _copy(floats, out, conversion.refused)
            return {**_figures_of(conversion), "made": True}

        given = (words_of(settings), formats, _bundle_identity(floats.folder), self.data.quantized)
        finished = self._stage("quantize", given, out, look=_bundle_identity, do=do)
        self._notes += [f"quantize: {warning}" for warning in finished.figures["warnings"]]
        return Bundle.open(out), _refusals(finished)

    def _fp32_twins(self, networks: Sequence[Network], floats: Bundle | None) -> dict[str, Bundle]:
        """A bundle with fp32 artifacts of each network: all formats of the first, one of the others.

        The last network's may be the artifacts to ship.
        """
        formats, twins = self.recipe.convert.formats, {}
        for network in networks:
            wanted = formats if network is networks[0] else formats[:1]
            if network is networks[-1] and "fp32" in self.recipe.convert.precision:
                if floats is not None:
                    twins[network.stage] = floats
                continue
            name, out = f"{network.stage}, fp32", self.folder / _WORK / f"{network.stage}.edge"

            def do(network: Network = network, wanted: Sequence[str] = wanted, out: Path = out) -> dict[str, Any]:
                tell = self._within(f"{network.stage}, fp32 for comparison")
                try:
                    options = {**network.options, "overwrite": True}
                    return _figures_of(self._verbs.convert(network.model, out=out, to=wanted, progress=tell, **options))
                except GateError as failed:
                    return {"made": False, "refused": [], "warnings": [f"{type(failed).__name__}: {failed}"]}

            finished = self._stage(name, (wanted, network.identity), out, look=_bundle_identity, do=do, listed=False)
            self._notes += [f"{name} {r.format} is not timed: {r.reason}" for r in _refusals(finished)]
            if finished.result:
                twins[network.stage] = Bundle.open(out)
            else:
                self._notes += [f"{name} is not timed: {why}" for why in finished.figures["warnings"]]
        return twins

    @property
    def _shipping(self) -> Path:
        return self.folder / f"{self.folder.absolute().name}.edge"

    def _stage(
        self,
        name: str,
        given: tuple[Any, ...],
        out: Path,
        *,
        look: Callable[[Path], str],
        do: Callable[[], dict[str, Any]],
        listed: bool = True,
    ) -> Finished:
        """Run a stage, unless its result exists and was made from the same inputs.

        Args:
            name: the stage's name.
            given: its settings and inputs.
            out: the folder that it writes.
            look: digest of that folder; "" where it doesn't exist or is damaged.
            do: does the work; returns figures for the closing table.
            listed: whether it has its own table in the recipe.
        """
        key = digest(name, *given)
        finished = self.journal.finished(name, key)
        before = finished is not None and finished.result == look(out)
        if listed:
            self._done_before[name] = before
        if finished is not None and before:
            return finished
        if not self.journal.begin(name, key):
            _remove_leftovers(out)
        figures = do()
        if not figures.pop("made", True):  # no artifact passed: the next start tries again
            shutil.rmtree(out, ignore_errors=True)  # from an earlier recipe
            return Finished(key=key, figures=figures)
        return self.journal.finish(name, key, result=look(out), figures=figures)

    def _within(self, stage: str) -> Progress:
        return lambda done, total, what: self._progress(done, total, f"{stage}: {what}")


def _check_teacher(recipe: Recipe, labels: Sequence[str], class_names: Sequence[str]) -> None:
    """Check that the teacher knows the classes; a network from [train] does."""
    if recipe.fine_tune is None or not recipe.fine_tune.distill or recipe.train is not None:
        return
    if {name.casefold() for name in labels} != {name.casefold() for name in class_names}:
        raise SpecError(
            f"[fine-tune] distill: the teacher is {recipe.model}, which has other classes than the training data: "
            "add a table [train], whose result is then the teacher"
        )


def _figures_of(conversion: Conversion) -> dict[str, Any]:
    return {
        "made": conversion.bundle is not None,
        "refused": msgspec.to_builtins(conversion.refused),
        "warnings": list(conversion.warnings),
    }


def _refusals(finished: Finished) -> list[Refusal]:
    return msgspec.convert(finished.figures["refused"], list[Refusal])


def _bundle_identity(folder: Path) -> str:
    """Digest of a bundle's artifacts; "" where it doesn't exist or is damaged."""
    try:
        bundle = Bundle.open(folder)
        for artifact in bundle.manifest.artifacts:
            bundle.checked_path(artifact)
    except BundleError:
        return ""
    return digest([[a.format, a.precision, [file.sha256 for file in a.files]] for a in bundle.manifest.artifacts])


def _copy(bundle: Bundle, out: Path, refused: Sequence[Refusal]) -> None:
    with staged(out) as staging:
        for artifact in bundle.manifest.artifacts:
            for record in artifact.files:
                shutil.copyfile(bundle.folder / record.path, staging / record.path)
        commit(staging, out, msgspec.structs.replace(bundle.manifest, refused=tuple(refused)), overwrite=True)


def _remove_leftovers(out: Path) -> None:
    """Remove partial results next to a stage's folder that were made with other settings."""
    for left in out.parent.glob(f".{out.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
