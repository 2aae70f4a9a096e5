"""A runner: takes a frame of any size, returns a result in source pixels, with any runtime."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from edgecnn.bundle import Artifact, Bundle
from edgecnn.bundle.signature import Signed
from edgecnn.errors import DeviceError, EdgeCnnError, SpecError
from edgecnn.frame import FrameFitter, FrameSpec
from edgecnn.given_pictures import image_of_given, read_and_remember
from edgecnn.printable import shortened
from edgecnn.results import Result, UInt8Array, found_in
from edgecnn.runners.backend import Backend, open_backend
from edgecnn.runners.choose import Choice, choose_artifact
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.measured import choose_here
from edgecnn.runners.proof import check_int8
from edgecnn.runners.trusted import Keys, trusted_bundle
from edgecnn.runners.turns import Turns
from edgecnn.runners.verifier import verify_first
from edgecnn.tasks import Task

if TYPE_CHECKING:
    from edgecnn.given_pictures import GivenPicture

Source: TypeAlias = UInt8Array | Callable[[], UInt8Array] | None  # of a result's picture, see `found_in`


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Durations of one frame's stages, in nanoseconds."""

    fit_ns: int
    infer_ns: int
    finish_ns: int


class Runner:
    """FrameSpec + Backend + Task: takes a picture, returns a Result.

    One call at a time: calls from several threads wait for each other, and each gets its own result.

    Attributes:
        artifact: the open artifact; None where it is not from a bundle.
        format: the file's format; "torch" for a network, "" where it is unknown.
        precision: the precision that it runs in.
        stage_times: durations of the last picture's stages, or of the last batch's.
        signed: who signed its bundle, and as which release; None where no trusted keys were given.
        why_chosen: why this artifact was chosen, in words; "" where there was nothing to decide.
    """

    signed: Signed | None = None
    why_chosen: str = ""

    def __init__(
        self,
        backend: Backend,
        *,
        frame: FrameSpec,
        task: Task,
        batch: int = 1,
        artifact: Artifact | None = None,
        format: str = "",  # noqa: A002 - the field's word
    ) -> None:
        self.backend = backend
        self.frame = frame
        self.task = task
        self.artifact = artifact
        self.format = format if artifact is None else artifact.format
        self.precision = backend.opened.precision
        self.stage_times = StageTimes(0, 0, 0)
        self._fitter = FrameFitter(frame)
        self._batch = batch
        self._lock = Turns()
        self._closed = False
        self._owner: Runner | None = None  # of the runtime, where this one shares it

    @overload
    def __call__(self, picture: GivenPicture | Frame, /) -> Result: ...

    @overload
    def __call__(self, picture: list[Any] | tuple[Any, ...], /) -> list[Result]: ...

    def __call__(self, picture: GivenPicture | Frame | list[Any] | tuple[Any, ...], /) -> Result | list[Result]:
        """The network's result for one picture, or a list of results for several.

        Args:
            picture: uint8 [height, width, 3] BGR, any size; a camera's frame, of which it is the picture; the path of a
                picture; or an image of Pillow, which is RGB. Of a list or tuple of these, or a batch (uint8
                [n, height, width, 3] BGR), each is answered, in the order given; where the artifact was converted
                for a batch, so many go through the network at once.

        Returns:
            A result, or a list of them. It remembers its picture (not a frame's): see `edgecnn.results.Result`.

        Raises:
            SpecError: none of these, or the runner is closed.
            DataError: a file that can't be read.
            DeviceError: the runtime failed.
        """
        if isinstance(picture, Frame):
            return self._answer(picture.image)
        if isinstance(picture, np.ndarray) and picture.ndim == 4:
            picture = list(picture)  # of views
        if isinstance(picture, list | tuple):
            return self._answers(picture)
        image, source = image_and_source(picture)
        return found_in(self._answer(image), source)

    def __repr__(self) -> str:
        """As in "<Runner: detect, 80 classes, onnx fp32 on AMD Ryzen 7, pictures fitted to 416x416 px>"."""
        opened, size = self.backend.opened, f"{self.frame.width_px}x{self.frame.height_px} px"
        runs = " ".join(word for word in (self.format, self.precision) if word)
        several = f", {self._batch} at a time" if self._batch > 1 else ""
        classes, device = len(self.task.labels), opened.device_name or opened.provider
        return (
            f"<Runner{' (closed)' if self._closed else ''}: {self.task.name}, {classes} "
            f"{'class' if classes == 1 else 'classes'}, {runs} on {shortened(device, length=60)}, "
            f"pictures fitted to {size}{several}>"
        )

    def _answers(self, pictures: Sequence[GivenPicture | Frame]) -> list[Result]:
        """See `__call__`; reads files as their turn comes."""
        if self._batch == 1:
            return [self(picture) for picture in pictures]
        results: list[Result] = []
        for start in range(0, len(pictures), self._batch):
            images, sources = zip(*map(image_and_source, pictures[start : start + self._batch]), strict=True)
            results += map(found_in, self._answer_batch(images), sources)
        return results

    def _answer_batch(self, images: Sequence[UInt8Array]) -> list[Result]:
        """Of at most as many pictures as the artifact takes at once."""
        with self._lock:
            self._check_open()
            start = time.perf_counter_ns()
            frames: UInt8Array = np.empty((self._batch, self.frame.height_px, self.frame.width_px, 3), np.uint8)
            places = []
            for frame, image in zip(frames, images, strict=False):
                fitted, place = self._fitter(image)
                np.copyto(frame, fitted[0])
                places.append(place)
            frames[len(images) :] = frames[0]
            ready = time.perf_counter_ns()
            outputs = self.backend.infer(frames)
            inferred = time.perf_counter_ns()
            results = [
                self.task.finish({name: array[index : index + 1] for name, array in outputs.items()}, place)
                for index, place in enumerate(places)
            ]
            self.stage_times = StageTimes(ready - start, inferred - ready, time.perf_counter_ns() - inferred)
            return results

    @property
    def batch(self) -> int:
        """Pictures that go through the network at once."""
        return self._batch

    def _check_open(self) -> None:
        if self._closed or (self._owner is not None and self._owner._closed):
            raise SpecError("this runner is closed: open another")

    def _answer(self, image: UInt8Array) -> Result:
        """Of one picture."""
        with self._lock:
            self._check_open()
            start = time.perf_counter_ns()
            frame, place = self._fitter(image)
            if self._batch > 1:  # a batch artifact runs a single picture too, at the cost of a full batch
                frame = np.repeat(frame, self._batch, axis=0)
            fitted = time.perf_counter_ns()
            outputs = self.backend.infer(frame)
            inferred = time.perf_counter_ns()
            result = self.task.finish(outputs, place)
            finished = time.perf_counter_ns()
            self.stage_times = StageTimes(fitted - start, inferred - fitted, finished - inferred)
            return result

    def set_thresholds(self, *, score: float | None = None, nms_iou: float | None = None) -> None:
        """Use other thresholds from the next result on; from any thread, without waiting.

        Raises:
            SpecError: the task has no such threshold, or the value is not allowed.
        """
        self.task = self.task.with_thresholds(score=score, nms_iou=nms_iou)

    def shared(self) -> Runner:
        """Another runner of the same open network, with thresholds of its own: for several cameras on one network.

        They answer in turns. Closing it leaves the network open; closing this one ends both.
        """
        other = Runner(self.backend, frame=self.frame, task=self.task, batch=self._batch, artifact=self.artifact)
        other.format, other.signed, other.why_chosen = self.format, self.signed, self.why_chosen
        other._lock, other._owner = self._lock, self
        return other

    def close(self) -> None:
        """Release the runtime's memory; a second call does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if self._owner is None:
                    self.backend.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def image_and_source(picture: GivenPicture | Frame) -> tuple[UInt8Array, Source]:
    """The pixels, and what a result remembers of them: nothing that costs memory by itself."""
    if isinstance(picture, Frame):
        return picture.image, None
    if isinstance(picture, str | os.PathLike):
        return read_and_remember(picture)
    image = image_of_given(picture)
    return image, image


def open_runner(
    bundle: str | Path | Bundle,
    *,
    device: str = "cpu",
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    threads: int | None = None,
    score: float | None = None,
    nms_iou: float | None = None,
    verify: bool = True,
    trusted_keys: Keys | None = None,
    remember_release: bool = True,
) -> Runner:
    """Open a bundle on a device.

    Args:
        bundle: a NAME.edge folder.
        device: "cpu", "gpu", "npu", or an exact device such as "openvino:GPU.0" or "onnxruntime:cuda" (`edgecnn
            devices` lists them); "auto" lets edgecnn choose, and chooses int8 where it was measured on this CPU to be
            accurate and faster.
        format: a name of `edgecnn.formats`, such as "onnx"; by default the first format in that order (or in the order
            of the board's target) that the bundle holds, that is installed here, and that has such a device.
        precision: precision to run; by default fp32 where the bundle has it; of a network that ships, what `bench`
            measured here to be the fastest within its limit. "bf16" runs an OpenVINO file of fp32.
        threads: threads per inference; by default, the cores that this process may use, or the number for the board's
            target.
        score, nms_iou: a detector's thresholds; by default, the bundle's.
        verify: let a child process open a file first that was never opened here (`edgecnn.runners.verifier`).
        trusted_keys: files of public keys, or of authorities' certificates (PEM); only a bundle that one of them signed
            is opened.
        remember_release: remember that this release ran, so that older ones are refused from now on; False for a trial.

    Raises:
        BundleError: damaged, malformed, or without such an artifact.
        SignatureError: not signed by a trusted key, changed, expired, or older than what ran here before.
        MissingDependencyError: the runtime is not installed.
        DeviceError: the device does not exist, or the runtime fails.
        SpecError: thresholds for a task that has none, or threads below 1.
    """
    if trusted_keys is None:
        with Bundle.open_locked(bundle) as opened:
            choice, why = choose_here(opened, device=device, format=format, precision=precision, threads=threads)
            runner = open_choice(opened, choice, threads=threads, score=score, nms_iou=nms_iou, verify=verify)
            runner.why_chosen = why
            return runner
    with trusted_bundle(bundle, trusted_keys) as trusted:
        choice = choose_artifact(trusted.bundle, device=device, format=format, precision=precision)
        with trusted.private(choice.artifact) as copy:
            runner = open_choice(copy, choice, threads=threads, score=score, nms_iou=nms_iou, verify=verify)
        try:
            if remember_release:
                trusted.remember()
        except EdgeCnnError:
            runner.close()
            raise
    runner.signed = trusted.signed
    return runner


def open_choice(
    bundle: Bundle,
    choice: Choice,
    *,
    threads: int | None = None,
    score: float | None = None,
    nms_iou: float | None = None,
    verify: bool = True,
) -> Runner:
    """Open the chosen artifact; arguments and errors are those of `open_runner`."""
    if threads is not None and threads < 1:
        raise SpecError(f"threads per inference: expected at least 1, got {threads}")
    manifest, artifact = bundle.manifest, choice.artifact
    task = manifest.task.with_thresholds(score=score, nms_iou=nms_iou)
    path = bundle.checked_path(artifact)
    if verify:
        verify_first(bundle, artifact, device=choice.device, precision=choice.precision, threads=threads)
    backend = open_backend(
        artifact.format,
        path,
        outputs=manifest.outputs,
        device=choice.device,
        precision=choice.precision,
        threads=threads,
    )
    try:
        check_int8(backend.opened, artifact)
    except DeviceError:
        backend.close()
        raise
    return Runner(backend, frame=manifest.frame, task=task, batch=manifest.batch, artifact=artifact)
