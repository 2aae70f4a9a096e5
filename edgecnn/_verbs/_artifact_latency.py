"""Two networks converted to the same format, and timed in turns on this machine."""

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

from edgecnn._photographs import photographs
from edgecnn.bundle import Artifact, Manifest, store_files
from edgecnn.errors import ConversionError, MissingDependencyError, SpecError, UnknownNameError
from edgecnn.evidence import TwinLatency
from edgecnn.frame import FrameFitter
from edgecnn.measure.twins import Twin, time_twins
from edgecnn.registry import BACKENDS, CONVERTERS
from edgecnn.runners.base import with_thresholds

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgecnn.sources import TrainedModel

_PREFERRED = ("openvino", "onnx", "tflite")
_PRECISIONS = ("fp32", "fp16")


def artifact_named(of: str | None) -> tuple[str, str]:
    """Format and precision of "FORMAT" or "FORMAT:PRECISION"; without words fp32 of the first that is installed.

    The order is openvino, onnx, tflite; a format alone means its fp32.

    Raises:
        SpecError, UnknownNameError: no such artifact.
        MissingDependencyError: what writes or runs it is not installed.
    """
    installed = [name for name in _PREFERRED if name in CONVERTERS.installed() and name in BACKENDS.installed()]
    if of is None:
        if not installed:
            raise MissingDependencyError("measuring latency", "openvino", extra="convert")
        return installed[0], "fp32"
    format_name, colon, precision = of.partition(":")
    extra = CONVERTERS.extra(format_name)  # refuses an unknown name, with what is near
    if colon and precision not in _PRECISIONS:
        if precision.startswith("int8"):
            raise SpecError(
                f"--of {of}: int8 is calibrated once the network is trained; prune to the latency of fp32 or fp16"
            )
        raise UnknownNameError("precision to prune for", precision, _PRECISIONS)
    if format_name not in installed:
        raise MissingDependencyError(f"measuring {format_name}", format_name, extra=extra)
    return format_name, precision or "fp32"


@contextmanager
def artifact_timer(format_name: str, precision: str) -> Iterator[Callable[[TrainedModel, TrainedModel], TwinLatency]]:
    """A function that times a network beside a wider one, in turns; what it converts is gone at the end.

    Args:
        format_name, precision: as `artifact_named` gives them.

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
    """An artifact as `convert` would write it, but for what it answers: that is not looked at before training.

    Raises:
        ConversionError: it does not convert.
    """
    from edgecnn.converters.deployable import Deployable, set_batch_norm_statistics, signature

    module = copy.deepcopy(model.module)
    # What is untrained, or narrowed a moment ago, may answer in denormal numbers, on which every processor is slow.
    fitter = FrameFitter(model.frame)
    set_batch_norm_statistics(module, model.frame, [fitter(p)[0].copy() for p in photographs().values()])
    deployable = Deployable(dataclasses.replace(model, module=module))
    inputs, outputs = signature(deployable, batch=1)
    # A network that was just narrowed finds what is not there: boxes without end must not count as its latency.
    task = with_thresholds(
        deployable.task, score=1.0 if hasattr(deployable.task, "score_threshold") else None, nms_iou=None
    )
    converter = CONVERTERS.get(format_name)(deployable, batch=1)
    if precision not in converter.precisions:
        known = ", ".join(converter.precisions)
        raise ConversionError(f"{format_name} is not written in {precision} here; it is in {known}")
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
