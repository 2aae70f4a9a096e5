"""What a network answers: how raw outputs become results in source pixels, and how results are drawn."""

from __future__ import annotations

from typing import TypeAlias

from edgecnn.tasks.classify import Classify
from edgecnn.tasks.detect import Detect
from edgecnn.tasks.instances import InstanceSegment
from edgecnn.tasks.segment import Segment

Task: TypeAlias = Classify | Detect | Segment | InstanceSegment

TASKS: dict[str, type[Classify] | type[Detect] | type[Segment] | type[InstanceSegment]] = {
    "classify": Classify,
    "detect": Detect,
    "segment": Segment,
    "instances": InstanceSegment,
}

__all__ = ["TASKS", "Classify", "Detect", "InstanceSegment", "Segment", "Task"]
