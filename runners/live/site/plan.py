"""What several cameras are to do: a file's content, as records that can be compared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgecnn.bundle import Bundle
from edgecnn.errors import EdgeCnnError, SpecError, near_path
from edgecnn.formats import FORMATS
from edgecnn.runners.live.cameras.table import source_of
from edgecnn.runners.live.cameras.urls import resolved_secret
from edgecnn.runners.live.live_run import ObjectsAsked, SinksAsked, SourcesAsked
from edgecnn.runners.live.outputs import refuse_overwriting
from edgecnn.runners.live.sinks.address import parse_address
from edgecnn.runners.live.sinks.table import SINKS
from edgecnn.runners.live.tracking.counting import parse_counters
from edgecnn.runners.runner import Runner, open_runner
from edgecnn.tasks import Task


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """A network that is opened once, for all cameras that have the same.

    Attributes:
        bundle: a NAME.edge folder.
        options: further arguments of `open_runner`, without thresholds, as sorted pairs.
        content: hash of the bundle's manifest: a new bundle at the same place is another network.
    """

    bundle: str
    options: tuple[tuple[str, Any], ...] = ()
    content: str = field(default="", repr=False)

    @property
    def version(self) -> str:
        """Which one, for people and for who deployed it: "street.edge 1a2b3c4d5e6f"."""
        return f"{Path(self.bundle).name} {self.content[:12]}"

    def open(self) -> Runner:
        """The open network; errors are those of `open_runner`."""
        return open_runner(self.bundle, **dict(self.options))


@dataclass(frozen=True, kw_only=True)
class CameraPlan:
    """What one camera is to do.

    Attributes:
        name: of the camera: in log lines, results, topics and on the page.
        network: what it runs.
        thresholds: its own thresholds, by name; those that are missing or None are the network's.
        sources, objects, sinks: as for `LiveRun`.
        max_age_ms, limit: as for `run`.
        secrets: hash of what its "env:NAME" and "file:PATH" hold now: another password is another plan.
    """

    name: str
    network: NetworkPlan
    thresholds: Mapping[str, float | None]
    sources: SourcesAsked
    objects: ObjectsAsked
    sinks: SinksAsked
    max_age_ms: float | None = None
    limit: int | None = None
    secrets: str = field(default="", repr=False)

    @property
    def source(self) -> str:
        """Its source without a login."""
        return source_of(self.sources.sources[0]).name

    def faults(self, task: Task | None) -> Iterator[str]:
        """What is wrong with it, each with the key; opens nothing.

        Args:
            task: its network's task; None where the network is missing, which is another fault.
        """
        words = self.sources.sources
        follows = bool(self.objects.track or self.objects.zones or self.objects.count_lines)
        for key, check in {
            "source": lambda: _check_source(words[0]),
            "zones, lines": lambda: parse_counters(self.objects.count_lines, self.objects.zones),
            "classes, scores": lambda: None if task is None else self.objects.selection.check(task),
            "score": lambda: None if task is None else task.with_thresholds(**self.thresholds),
            "record, jsonl": lambda: refuse_overwriting(words, *self.sinks.paths("file").values()),
            "sinks": lambda: _check_sinks(self.sinks, tracks=follows),
        }.items():
            if (wrong := _fault(check)) is not None:
                yield f"{key}: {wrong}"
        if follows and task is not None and not task.finds_objects():
            yield f"zones, lines: only a detector's objects can be counted, but the network's task is {task.name}"


@dataclass(frozen=True, kw_only=True)
class SitePlan:
    """What a file asks for.

    Attributes:
        cameras: in the file's order.
        web, web_token, metrics: as for `run`, for all cameras together.
    """

    cameras: tuple[CameraPlan, ...]
    web: str | int | None = None
    web_token: str | None = field(default=None, repr=False)
    metrics: str | int | None = None

    def networks(self) -> tuple[NetworkPlan, ...]:
        """The networks, each once."""
        return tuple(dict.fromkeys(camera.network for camera in self.cameras))

    def faults(self) -> list[str]:
        """Everything that is wrong, found without opening anything: "[cameras.door] source: …"."""
        tasks: dict[NetworkPlan, Task | None] = {}
        found = []
        for network in self.networks():
            try:
                tasks[network] = _task_of(network)
            except EdgeCnnError as wrong:
                tasks[network] = None
                users = ", ".join(camera.name for camera in self.cameras if camera.network == network)
                found.append(f"bundle (of {users}): {wrong}")
        for camera in self.cameras:
            found += [f"[cameras.{camera.name}] {fault}" for fault in camera.faults(tasks[camera.network])]
        for key in ("web", "metrics"):
            refusal = _fault(partial(self._port, key))
            found += [f"{key}: {refusal}"] if refusal else []
        if self.web is not None and str(self.web) == str(self.metrics) and str(self.web) != "0":
            found.append(f"web and metrics have the same address, {self.web}")
        return found + self._shared_outputs()

    def _port(self, key: str) -> None:
        address = getattr(self, key)
        if address not in (None, ""):
            parse_address(address, key)

    def _shared_outputs(self) -> list[str]:
        """Files and topics that two cameras would write."""
        taken = Counter(item for camera in self.cameras for item in _outputs(camera.sinks))
        return [f"{times} cameras have the same {kind}" for (kind, _), times in taken.items() if times > 1]


def secrets_of(*words: object) -> str:
    """A hash of the values that "env:NAME" and "file:PATH" refer to; "" for one that cannot be read."""
    digest = hashlib.sha256()
    for word in words:
        try:
            value = resolved_secret(word) if isinstance(word, str) else ""
        except SpecError:
            value = ""
        digest.update(value.encode() + b"\0")
    return digest.hexdigest()


def content_of(bundle: str) -> str:
    """A hash of a bundle's manifest; "" where there is none."""
    try:
        return hashlib.sha256((Path(bundle) / "manifest.json").read_bytes()).hexdigest()
    except OSError:
        return ""


def _task_of(network: NetworkPlan) -> Task:
    bundle = Bundle.open(network.bundle)
    wanted = dict(network.options).get("format")
    if wanted is not None:
        FORMATS.get(wanted)
    return bundle.manifest.task


def _check_source(words: str | int | Path) -> None:
    source_of(words)
    if isinstance(words, str) and not any(mark in words for mark in (":", "!")) and not words.isdecimal():
        path = Path(words)
        if not path.exists() and not words.startswith(("/dev/", "csi")):
            raise SpecError(f"{words} does not exist{near_path(path)}")


def _check_sinks(sinks: SinksAsked, *, tracks: bool) -> None:
    for name, argument in sinks.asked.items():
        if argument not in (None, False):
            SINKS.get(name).check(argument, sinks.words, tracks=tracks)


def _outputs(sinks: SinksAsked) -> Iterator[tuple[str, str]]:
    """What only one camera may write: by option, the file or the topic."""
    yield from ((name, str(path)) for name, path in sinks.paths("file").items())
    if sinks.asked.get("mqtt"):
        yield "mqtt", f"{sinks.asked['mqtt']}\0{sinks.words.get('mqtt_topic')}"


def _fault(check: Any) -> str | None:
    try:
        check()
    except EdgeCnnError as wrong:
        return str(wrong)
    return None
