"""The whole way of a network to a device from one recipe: train, prune, fine-tune, convert, quantize, measure."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecnn._staging import write_whole
from edgecnn._verbs._closing import Compression, Point
from edgecnn._verbs._measuring import Measuring
from edgecnn._verbs._stages import (
    MODEL_STAGES,
    START,
    Network,
    Progress,
    Work,
    digest,
    identity_of,
    saved_identity,
)
from edgecnn._verbs._taking_part import TakingPart
from edgecnn._verbs.convert import convert
from edgecnn._verbs.quantize import quantize
from edgecnn.bundle import Bundle, Refusal, commit, staged
from edgecnn.compression.recipe import Recipe, words_of
from edgecnn.compression.recipe_file import read_recipe
from edgecnn.compression.stage_journal import Finished, StageJournal
from edgecnn.errors import BundleError, GateError, MissingDependencyError, SpecError
from edgecnn.measure.flow_plot import plot_flow
from edgecnn.registry import BACKENDS, CONVERTERS, INT8_WRITERS, Registry

if TYPE_CHECKING:
    from edgecnn.converters.quantize_bundle import Conversion

__all__ = ["REPORT", "Compression", "Point", "compress"]

REPORT, PLOT = "compress.json", "compress.png"
_WORK = ".work"  # fp32 artifacts that are timed and not shipped


def compress(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Compression:
    """Do what a recipe says: train, prune, fine-tune, convert, quantize; then measure all of it side by side.

    Each stage is one call of the verb of its name, and leaves one folder in `out`. A stage that is done is not done
    again while its words and what it was given are the same; stopped within one, the verb goes on by itself where it
    can. Called again with another recipe, it goes on from the first stage that differs.

    Args:
        recipe: a TOML file (see `edgecnn.compression.recipe.Recipe`), or a Recipe.
        out: a folder for the networks, the bundle and the closing figures; without it, the recipe's name in the
            working folder.
        progress: called with (steps done, steps in all, the stage and what is being done).

    Raises:
        DataError: the recipe or what it names cannot be read; pictures to evaluate on take part elsewhere.
        SpecError, UnknownNameError: what the recipe says cannot be; `out` is there and not of a flow.
        MissingDependencyError: a package that a stage will want is not installed.
        EdgeCnnError: as each verb does.
    """
    told = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    if out is None:
        if isinstance(recipe, Recipe):
            raise SpecError("a recipe that is no file has no name: say out, the folder to write")
        out = Path(recipe).stem
    told.check_files()
    _check_packages(told)
    return _Flow(told, Path(out), progress or (lambda done, total, what: None)).run()


def _check_packages(recipe: Recipe) -> None:
    """Whatever a later stage stands on, asked for before the first."""
    asked = [f"[{stage.name}]" for stage in MODEL_STAGES if recipe.table(stage.name) is not None]
    for package in ("lightning", "torch_pruning") if asked else ():
        if find_spec(package) is None:
            raise MissingDependencyError(asked[0], package, extra="train")
    if not recipe.convert.formats:
        raise SpecError("no converter is installed: pip install 'edgecnn[convert]'")
    wanted: list[tuple[Registry[Any], Sequence[str]]] = [
        (CONVERTERS, recipe.convert.formats),
        (BACKENDS, recipe.convert.formats),
    ]
    if recipe.quantize is not None:
        wanted.append((INT8_WRITERS, recipe.quantize.to or recipe.convert.formats))
    for table, names in wanted:
        for name in names:
            if name not in table.installed():
                raise MissingDependencyError(f"format {name!r}", name, extra=table.extra(name))


class _Flow:
    """One recipe and one folder."""

    def __init__(self, recipe: Recipe, folder: Path, progress: Progress) -> None:
        from edgecnn.sources import load_model
        from edgecnn.sources.saved import check_saveable

        self.recipe, self.folder, self._progress = recipe, folder, progress
        self._done_before: dict[str, bool] = {}
        self._notes: list[str] = []
        progress(0, 0, "loading the network")
        model = load_model(recipe.model, **recipe.model_options)
        if any(recipe.table(stage.name) is not None for stage in MODEL_STAGES):
            check_saveable(model)
        self.data = TakingPart(recipe, model, leave_out=folder, progress=progress)
        _check_teacher(recipe, model.task.labels, self.data.class_names)
        self.start = Network(stage=START, model=recipe.model, options=recipe.model_options, identity=identity_of(model))
        self.journal = StageJournal(folder)

    def run(self) -> Compression:
        """Everything that is not done yet."""
        networks = self._networks()
        floats, refused = self._converted(networks[-1])
        bundle, more = self._shipped(floats)
        refused += more
        twins = self._fp32_twins(networks, floats)
        measuring = Measuring(
            recipe=self.recipe, evaluated=self.data.evaluated, journal=self.journal, progress=self._progress
        )
        result = measuring.close(
            networks, twins, bundle, folder=self.folder, refused=refused, notes=self._notes, before=self._done_before
        )
        write_whole(self.folder / REPORT, msgspec.json.format(msgspec.json.encode(result.document()), indent=1) + b"\n")
        with contextlib.suppress(MissingDependencyError):  # a picture is worth having, but not an error
            plot_flow(result.plotted, self.folder / PLOT, title=self.folder.absolute().name, metric=result.metric)
        return result

    def _networks(self) -> list[Network]:
        """The network before anything is taken away, and what each stage after it left."""
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
        told = self.recipe.convert
        out = self._shipping if self.recipe.quantize is None else self.folder / f"{len(MODEL_STAGES) + 1}-convert.edge"

        def do() -> dict[str, Any]:
            conversion = convert(
                network.model,
                out=out,
                to=told.formats,
                precision=told.precision,
                data=told.data,
                max_drop=told.max_drop,
                ignore_label=self.recipe.data.ignore_label,
                progress=self._within("convert"),
                **network.options,
            )
            return _told_of(conversion)

        given = (words_of(told), told.formats, network.identity, self.data.converted)
        finished = self._stage("convert", given, out, look=_bundle_identity, do=do)
        self._notes += [f"convert: {warning}" for warning in finished.figures["warnings"]]
        return Bundle.open(out) if finished.result else None, _refusals(finished)

    def _shipped(self, floats: Bundle | None) -> tuple[Bundle | None, list[Refusal]]:
        """The bundle with the int8 artifacts; the float one's copy where all of these are refused."""
        told, data = self.recipe.quantize, self.recipe.data
        if told is None or floats is None:
            return floats, []
        held = {artifact.format for artifact in floats.manifest.artifacts if artifact.precision == "fp32"}
        formats = [name for name in told.to or self.recipe.convert.formats if name in held]
        out = self._shipping

        def do() -> dict[str, Any]:
            if not formats:
                _copy(floats, out, ())
                return {"refused": [], "warnings": ["no fp32 artifact passed that could be quantized"]}
            conversion = quantize(
                floats,
                out=out,
                to=formats,
                precision=told.precision,
                calibration=self.data.calibration,
                calibration_count=told.calibration_count,
                seed=told.seed,
                data=self.recipe.search_data,
                split=self.data.search_split,
                max_drop=told.max_drop,
                evaluate_on=told.evaluate_on,
                ignore_label=data.ignore_label,
                allow_drop=told.allow_drop,
                budget_minutes=told.budget_minutes,
                progress=self._within("quantize"),
            )
            if conversion.bundle is None:
                _copy(floats, out, conversion.refused)
            return {**_told_of(conversion), "made": True}

        given = (words_of(told), formats, _bundle_identity(floats.folder), self.data.quantized)
        finished = self._stage("quantize", given, out, look=_bundle_identity, do=do)
        self._notes += [f"quantize: {warning}" for warning in finished.figures["warnings"]]
        return Bundle.open(out), _refusals(finished)

    def _fp32_twins(self, networks: Sequence[Network], floats: Bundle | None) -> dict[str, Bundle]:
        """A bundle with fp32 artifacts of each network: all formats of the first, one of the others.

        Those of the last may be what is shipped.
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
                tell = self._within(f"{network.stage}, fp32 beside the others")
                try:
                    return _told_of(convert(network.model, out=out, to=wanted, progress=tell, **network.options))
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
        """Do a stage, unless what it left is there and was made of the same.

        Args:
            name: of the stage.
            given: what it was told and given.
            out: the folder that it writes.
            look: digest of that folder; "" where it isn't there or damaged.
            do: the work; returns figures for the closing table.
            listed: whether the user asked for it by name.
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
        if not figures.pop("made", True):  # nothing passed: the next start tries again
            shutil.rmtree(out, ignore_errors=True)  # of an earlier recipe
            return Finished(key=key, figures=figures)
        return self.journal.finish(name, key, result=look(out), figures=figures)

    def _within(self, stage: str) -> Progress:
        return lambda done, total, what: self._progress(done, total, f"{stage}: {what}")


def _check_teacher(recipe: Recipe, labels: Sequence[str], class_names: Sequence[str]) -> None:
    """That a network which teaches knows the classes; one that [train] makes does."""
    if recipe.fine_tune is None or not recipe.fine_tune.distill or recipe.train is not None:
        return
    if {name.casefold() for name in labels} != {name.casefold() for name in class_names}:
        raise SpecError(
            f"[fine-tune] distill: the teacher is {recipe.model}, which has other classes than the data to learn from: "
            "add a table [train], and it is what that makes of it"
        )


def _told_of(conversion: Conversion) -> dict[str, Any]:
    return {
        "made": conversion.bundle is not None,
        "refused": msgspec.to_builtins(conversion.refused),
        "warnings": list(conversion.warnings),
    }


def _refusals(finished: Finished) -> list[Refusal]:
    return msgspec.convert(finished.figures["refused"], list[Refusal])


def _bundle_identity(folder: Path) -> str:
    """Digest of a bundle's artifacts; "" where it isn't there, or damaged."""
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
        commit(staging, out, msgspec.structs.replace(bundle.manifest, refused=tuple(refused)))


def _remove_leftovers(out: Path) -> None:
    """What a stage with other words left half-done beside its folder."""
    for left in out.parent.glob(f".{out.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
