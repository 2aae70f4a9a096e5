"""Tasks: how a network's outputs become results in source pixels, and all operations on results."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgecnn.tasks.table import TaskTable, decoded_task

if TYPE_CHECKING:
    from edgecnn.tasks.base import Task
    from edgecnn.tasks.classify import Classify
    from edgecnn.tasks.detect import Detect
    from edgecnn.tasks.instances import InstanceSegment
    from edgecnn.tasks.segment import Segment

__all__ = ["TASKS", "Classify", "Detect", "InstanceSegment", "Segment", "Task", "TaskTable", "task_from_json"]

TASKS = TaskTable(
    {
        "classify": "edgecnn.tasks.classify:Classify",
        "detect": "edgecnn.tasks.detect:Detect",
        "segment": "edgecnn.tasks.segment:Segment",
        "instances": "edgecnn.tasks.instances:InstanceSegment",
    }
)

_HOMES = {
    "Task": "edgecnn.tasks.base",
    "Classify": "edgecnn.tasks.classify",
    "Detect": "edgecnn.tasks.detect",
    "InstanceSegment": "edgecnn.tasks.instances",
    "Segment": "edgecnn.tasks.segment",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def task_from_json(kind: type, value: Any) -> Task:
    """For msgspec's `dec_hook`, where a struct has a field of the type `Task`; see `decoded_task`."""
    return decoded_task(TASKS, kind, value)
