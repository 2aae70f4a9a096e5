"""The record that describes a kind of sink: one row of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edgecnn._version import __version__
from edgecnn.errors import MissingDependencyError

if TYPE_CHECKING:
    from edgecnn.runners.live.cameras.camera import Camera
    from edgecnn.runners.live.controls import Controls
    from edgecnn.runners.live.loop.counters import LiveCounters
    from edgecnn.runners.live.sinks import Sink
    from edgecnn.runners.runner import Runner

Counts: TypeAlias = dict[str, Callable[[], int]]  # by name, a function that returns the count so far
States: TypeAlias = Mapping[str, Callable[[], tuple[str, str]]]  # by source, a function: its state and the reason


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Information about a run for its sinks.

    Attributes:
        camera: the source; with several, the group.
        cameras: each source.
        runner: the network's runner; only the loop calls it.
        counters: what the loop has done so far.
        dropped, faults: functions that return, by stage or sink, the number of dropped frames or results, and of
            failures.
        states: each source's current state ("live", "connecting", …) and the reason.
        report: called with a remark for the end of the run, from any thread; the remark must not contain a login.
        controls: what may be changed while it runs; of one source only.
        on_event: sinks that want to know of an event add a function, which gets its record, in another thread.
        event_folders: sinks that keep events add their folder.
        drift: sinks that compare with a baseline add a function, which returns the drift by kind.
        tracks: whether objects are tracked.
        classes, zones, lines: the classes that were asked for, and what is counted, by name; of one source.
        words: the run's further options that belong to this kind of sink (`SinkKind.words`), by name.
    """

    camera: Camera
    cameras: tuple[Camera, ...]
    runner: Runner
    counters: LiveCounters
    dropped: Counts
    faults: Counts
    states: States
    report: Callable[[str], None]
    words: Mapping[str, Any]
    controls: Controls | None = None
    on_event: list[Callable[[dict[str, Any]], None]] = field(default_factory=list)
    event_folders: list[Path] = field(default_factory=list)
    drift: list[Callable[[], Mapping[str, float]]] = field(default_factory=list)
    tracks: bool = False
    classes: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def info(self) -> dict[str, str]:
        """What runs, in words."""
        used = self.runner.backend.opened
        return {
            "source": self.camera.name,
            "task": self.runner.task.name,
            "format": self.runner.format,
            "precision": self.runner.precision,
            "device": used.device_name,
            "runtime": used.runtime,
            "version": __version__,
        }

    def of(self, camera: Camera) -> Setting:
        """The same for one of several sources."""
        return replace(self, camera=camera, cameras=(camera,))


@dataclass(frozen=True, kw_only=True)
class SinkKind:
    """A kind of sink: a row of the table.

    Attributes:
        name: name of the option of `edgecnn run` that selects it, and of `run`'s keyword.
        metavar: metavar of its argument, for help; "" where it has none.
        about: what it does with results, for help: "Publish one JSON object per frame."
        opens: "package.module:function" that makes the sink from the argument and the `Setting`; imported only when it
            is selected. It may raise SpecError, StorageError, DeviceError.
        extra: the extra of edgecnn that it needs; "" where it needs none.
        draws: True if it shows pictures with results drawn on them.
        per_source: True if each of several sources gets its own; its argument is a path, which gets a number.
        writes: "file" or "folder" if its argument is the path of what it writes, else "". Several sources never write
            the same file; "-" is stdout.
        words: further options of `run` for this kind only.
        checks: "package.module:function" that raises SpecError for what can't be meant, and opens nothing; gets the
            argument, the words by name, and whether objects are tracked.
    """

    name: str
    metavar: str = ""
    about: str
    opens: str
    extra: str = ""
    draws: bool = False
    per_source: bool = False
    writes: Literal["", "file", "folder"] = ""
    words: tuple[str, ...] = ()
    checks: str = ""

    def check(self, argument: Any, words: Mapping[str, Any], *, tracks: bool) -> None:
        """Refuse what can't be meant, before anything opens.

        Raises:
            SpecError: the sink would refuse it when it opens.
            MissingDependencyError: a package that it needs is not installed.
        """
        if self.checks:
            self._function(self.checks)(argument, words, tracks=tracks)

    def make(self, argument: Any, setting: Setting) -> Sink:
        """The sink.

        Raises:
            MissingDependencyError: a package that it needs is not installed.
        """
        sink: Sink = self._function(self.opens)(argument, setting)
        return sink

    def _function(self, place: str) -> Callable[..., Any]:
        module, _, function = place.partition(":")
        try:
            found: Callable[..., Any] = getattr(import_module(module), function)
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] == "edgecnn":
                raise
            raise MissingDependencyError(
                f"--{self.name}", missing.name or module, extra=self.extra or None, install="install it"
            ) from missing
        return found
