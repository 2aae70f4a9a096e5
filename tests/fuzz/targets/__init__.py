"""All targets, by name."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import artifacts, documents, labels, machines, networks, pictures, streams

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (documents, artifacts, networks, pictures, labels, streams, machines)
    for target in module.TARGETS
}
