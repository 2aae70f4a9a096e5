"""Knowledge distillation from a teacher, usually the network before it was pruned."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgecnn.errors import SpecError
from edgecnn.sources.model import TrainedModel
from edgecnn.sources.normalise import normalise
from edgecnn.training.attention import answering, attention_loss, layers_in_common, watching
from edgecnn.training.settings import Distillation
from edgecnn.training.teacher_answers import answer_loss_of


class Distiller:
    """A teacher's part of the loss in each step.

    The student runs inside `watching`; then the distiller is called with the frames and the student's answer. It
    has no changing state, so checkpoints need not store it.

    Args:
        teacher: a copy of it is run, in evaluation mode and without gradients.
        student: the network to train: its layers are found by name in the network that is run.
        settings: the distillation settings.

    Raises:
        SpecError: the teacher has other answers or frames; or features are requested, and there is no layer to
            compare. This is not a warning, because the training would differ from the request.

    Attributes:
        layers: names of the layers whose features are compared.
    """

    def __init__(self, teacher: TrainedModel, student: TrainedModel, settings: Distillation) -> None:
        check_teacher(teacher, student)
        self._teacher, self._settings = teacher, settings
        self._network = copy.deepcopy(teacher.module).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self._answer_loss = answer_loss_of(student, temperature=settings.temperature)
        self._seen: dict[str, Tensor] = {}
        self.layers = self._layers_in_common(student)
        self._try_once(student)

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Context in which the student's features are kept for the call that follows."""
        with watching(network, self.layers) as self._seen:
            yield

    def __call__(self, frames: Tensor, answer: Any) -> dict[str, Tensor]:
        """Compare the student with its teacher.

        Args:
            frames: uint8 [batch, height, width, 3] BGR, as the student got them.
            answer: the student's raw answer, in training mode.

        Returns:
            Parts of the loss, scalars, float32, including the settings' factors: those of the answers with "teacher_"
            before the names of the loss on labels, and "teacher_features". Parts with a factor of 0 are left out.
        """
        seen, self._seen = self._seen, {}  # so that they are not kept until the next step
        self._network.to(frames.device)
        x = normalise(frames, self._teacher.frame).to(memory_format=torch.channels_last)
        with torch.no_grad(), watching(self._network, self.layers) as teachers:
            wanted = self._network(x)
        parts = {}
        if self._settings.outputs:
            apart = self._answer_loss(answer, wanted)
            parts = {f"teacher_{name}": self._settings.outputs * value for name, value in apart.items()}
        if self._settings.features:
            parts["teacher_features"] = self._settings.features * attention_loss(seen, teachers)
        return parts

    def _layers_in_common(self, student: TrainedModel) -> tuple[str, ...]:
        if not self._settings.features:
            return ()
        frame = torch.zeros(1, 3, student.frame.height_px, student.frame.width_px)
        layers = layers_in_common(student.module, self._network, frame)
        if not layers:
            raise SpecError(
                f"no features of {student.name} can be compared with those of its teacher {self._teacher.name}: they "
                "have no norm or activation of the same name with maps of the same size. Learn from its answers "
                "only (features = 0 in the table [distillation] of --settings), or use the network before it was "
                "pruned as teacher"
            )
        return layers

    def _try_once(self, student: TrainedModel) -> None:
        """Find answers that cannot be compared now, before the pictures are read."""
        frames = torch.zeros(1, student.frame.height_px, student.frame.width_px, 3, dtype=torch.uint8)
        with answering(student.module), self.watching(student.module):
            answer = student.module(normalise(frames, student.frame))
            self(frames, answer)


def check_teacher(teacher: TrainedModel, student: TrainedModel) -> None:
    """Check whether a network can teach another.

    Raises:
        SpecError: another task, other classes or another order, another head, or another frame size.
    """
    ours, theirs = student.task, teacher.task
    if theirs.name != ours.name:
        raise SpecError(
            f"the teacher must {ours.name} as {student.name} does, but {teacher.name} is to {theirs.name}: use a "
            "teacher with the same task"
        )
    if [label.casefold() for label in theirs.labels] != [label.casefold() for label in ours.labels]:
        raise SpecError(
            f"the teacher must have the classes of {student.name} in their order, {_first_labels(ours.labels)}; "
            f"{teacher.name} has {_first_labels(theirs.labels)}: train it on the same data first"
        )
    if _head(teacher) != _head(student):
        raise SpecError(
            f"the teacher's answers must decode as those of {student.name} do ({_head(student)}); those of "
            f"{teacher.name} decode differently ({_head(teacher)}): use a teacher with the same head"
        )
    size, their_size = (f"{model.frame.width_px}x{model.frame.height_px}" for model in (student, teacher))
    if their_size != size:
        raise SpecError(
            f"the teacher must take frames of {size} px as {student.name} does, but {teacher.name} takes {their_size}: "
            "use one with the same size, or give the student --size"
        )


def _head(model: TrainedModel) -> str:
    return model.decode if isinstance(model.decode, str) else "no named head"


def _first_labels(labels: tuple[str, ...]) -> str:
    return f"{len(labels)} ({', '.join(labels[:3])}{', …' if len(labels) > 3 else ''})"
