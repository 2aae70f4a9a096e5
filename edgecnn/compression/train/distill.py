"""Learning from a teacher: a network, usually the one before it was pruned, whose answers the student comes near."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgecnn.compression.train.attention import answering, attention_loss, layers_in_common, watching
from edgecnn.compression.train.settings import Distillation
from edgecnn.compression.train.teacher_answers import answer_loss_of
from edgecnn.errors import SpecError
from edgecnn.sources import TrainedModel
from edgecnn.sources.normalise import normalise


class Distiller:
    """What a teacher adds to the loss of each step.

    The student is run inside `watching`; then the distiller is called with the frames and the student's answer. It
    holds nothing that changes, so no checkpoint has to.

    Args:
        teacher: a copy of it is run, in evaluation mode and without gradients.
        student: as it will be trained: its layers are found by name again in the network that is run.
        settings: what is learned.

    Raises:
        SpecError: the teacher is one for other answers or frames; or features are asked for, and there is no layer to
            compare. That is no warning, because what would be left is another training than what was asked for.

    Attributes:
        layers: names of those whose features are compared.
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
        """Inside, the student's features are kept for the call that follows."""
        with watching(network, self.layers) as self._seen:
            yield

    def __call__(self, frames: Tensor, answer: Any) -> dict[str, Tensor]:
        """Compare the student with its teacher.

        Args:
            frames: uint8 [batch, height, width, 3] BGR, as the student saw them.
            answer: the student's raw answer to them, in training mode.

        Returns:
            Parts of the loss, scalars, float32, the settings' factors in them: those of the answers with "teacher_"
            before the names that the loss on labels has, and "teacher_features". A factor of 0 leaves its part out.
        """
        seen, self._seen = self._seen, {}  # not to be held until the next step
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
                "have no norm or activation of the same name whose maps have the same size. Learn from its answers "
                "alone (features = 0 in the table [distillation] of --settings), or take the network before it was "
                "pruned"
            )
        return layers

    def _try_once(self, student: TrainedModel) -> None:
        """Answers that cannot be compared are found here, not after the pictures were read."""
        frames = torch.zeros(1, student.frame.height_px, student.frame.width_px, 3, dtype=torch.uint8)
        with answering(student.module), self.watching(student.module):
            answer = student.module(normalise(frames, student.frame))
            self(frames, answer)


def check_teacher(teacher: TrainedModel, student: TrainedModel) -> None:
    """Whether a network can teach another.

    Raises:
        SpecError: another task, other classes or in another order, another head, or another size of frame.
    """
    ours, theirs = student.task, teacher.task
    if theirs.name != ours.name:
        raise SpecError(
            f"the teacher must {ours.name} as {student.name} does, and {teacher.name} is to {theirs.name}: take one "
            "of the same task"
        )
    if [label.casefold() for label in theirs.labels] != [label.casefold() for label in ours.labels]:
        raise SpecError(
            f"the teacher must have the classes of {student.name} in their order, {_some(ours.labels)}; "
            f"{teacher.name} has {_some(theirs.labels)}: train it on the same data first"
        )
    if _head(teacher) != _head(student):
        raise SpecError(
            f"the teacher's answers must decode as those of {student.name} do ({_head(student)}); those of "
            f"{teacher.name} decode otherwise ({_head(teacher)}): take one with the same head"
        )
    size, their_size = (f"{model.frame.width_px}x{model.frame.height_px}" for model in (student, teacher))
    if their_size != size:
        raise SpecError(
            f"the teacher must see frames of {size} px as {student.name} does, and {teacher.name} is for {their_size}: "
            "take one for the same size, or give the student --size"
        )


def _head(model: TrainedModel) -> str:
    return model.decode if isinstance(model.decode, str) else "no named head"


def _some(labels: tuple[str, ...]) -> str:
    return f"{len(labels)} ({', '.join(labels[:3])}{', …' if len(labels) > 3 else ''})"
