"""Converts two networks to the same format and times them in turns on this machine."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.bundle import Artifact, Manifest, store_files
from edgecnn.bundle.evidence import TwinLatency
from edgecnn.errors import ConversionError, MissingDependencyError, SpecError, UnknownNameError
from edgecnn.formats import FORMATS, Format
from edgecnn.frame import FrameFitter
from edgecnn.measure.int8_speedup import Twin, time_twins
from edgecnn.photographs import photographs

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecnn.sources.model import TrainedModel

_PRECISIONS = ("fp32", "fp16")


def artifact_named(of: str | None) -> tuple[str, str]:
    """Format and precision from "FORMAT" or "FORMAT:PRECISION"; by default fp32 of the first installed format.

    The order is that of `edgecnn.formats`; a format alone means its fp32.

    Raises:
        SpecError, UnknownNameError: no such artifact.
        MissingDependencyError: a package that writes or runs it is not installed.
    """
    installed = [row.name for row in FORMATS if row.converts_here and row.runs_here]
    if of is None:
        if not installed:
            raise _missing("measuring latency", FORMATS.get(FORMATS.names()[0]))
        return installed[0], "fp32"
    format_name, colon, precision = of.partition(":")
    row = FORMATS.get(format_name)  # raises for an unknown name, with the nearest known names
    if colon and precision not in _PRECISIONS:
        if precision.startswith("int8"):
            raise SpecError(f"--of {of}: int8 is calibrated after training; prune to the latency of fp32 or fp16")
        raise UnknownNameError("precision to prune for", precision, _PRECISIONS)
    if format_name not in installed:
        raise _missing(f"measuring {format_name}", row)
    return format_name, precision or "fp32"


def _missing(what: str, row: Format) -> MissingDependencyError:
    if row.converter is not None and not row.converter.is_installed:
        return row.converter.missing(what, " or ".join(row.converter.needs))
    return row.missing_runtime(what)


@contextmanager
def artifact_timer(format_name: str, precision: str) -> Iterator[Callable[[TrainedModel, TrainedModel], TwinLatency]]:
    """A function that times a network and a wider one in turns; the converted files are removed at the end.

    Args:
        format_name, precision: from `artifact_named`.

    The function raises:
        ConversionError: a network does not convert.
        DeviceError: an artifact does not run.
    """
    with tempfile.TemporaryDirectory(prefix="edgecnn-latency-") as place:
        made: list[_Made] = []

        def convert(model: TrainedModel) -> _Made:
            for each in made:
                if each.model is model:
                    return each
            folder = Path(tempfile.mkdtemp(dir=place))
            made.append(_made(model, folder, format_name, precision))
            return made[-1]

        def measure(narrower: TrainedModel, wider: TrainedModel) -> TwinLatency:
            theirs, ours = convert(wider), convert(narrower)
            for old in [each for each in made[1:] if each not in (ours, theirs)]:  # the first is the unpruned one
                made.remove(old)
                shutil.rmtree(old.twin.files[0].parent)
            return time_twins(ours.twin, theirs.twin)

        yield measure


@dataclass(frozen=True, eq=False)
class _Made:
    model: TrainedModel
    twin: Twin


def _made(model: TrainedModel, folder: Path, format_name: str, precision: str) -> _Made:
    """An artifact as `convert` would write it, but without a check of its answers, which training will change.

    Raises:
        ConversionError: the network cannot be converted.
    """
    from edgecnn.converters.deployable.wrapper import Deployable, set_batch_norm_statistics, signature

    module = copy.deepcopy(model.module)
    # An untrained or just narrowed network may give denormal numbers, on which every CPU is slow.
    fitter = FrameFitter(model.frame)
    set_batch_norm_statistics(module, model.frame, [fitter(p)[0].copy() for p in photographs().values()])
    deployable = Deployable(dataclasses.replace(model, module=module))
    inputs, outputs = signature(deployable, batch=1)
    # A network that was just narrowed detects many false objects: their boxes must not count as its latency.
    task = deployable.task
    task = task.with_thresholds(score=1.0) if "score" in task.thresholds else task
    converter = FORMATS.get(format_name).load_converter()(deployable, batch=1)
    if precision not in converter.precisions:
        known = ", ".join(converter.precisions)
        raise ConversionError(f"{format_name} cannot be written in {precision} here; it can be written in {known}")
    written = converter.write(precision, folder)
    files = store_files(folder, f"{format_name}-{precision}", list(written.files))
    contract = Manifest(
        name=model.name,
        source=model.source,
        frame=model.frame,
        task=task,
        inputs=inputs,
        outputs=outputs,
        in_graph=deployable.in_graph,
        parameters=deployable.parameter_count,
        macs=0,
    )
    artifact = Artifact(format=format_name, precision=precision, files=files)
    return _Made(model, Twin(manifest=contract, artifact=artifact, files=[folder / record.path for record in files]))
