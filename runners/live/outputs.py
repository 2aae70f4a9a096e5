"""The sinks of a run, and their state."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgecnn.errors import SpecError
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.cameras.reconnect import CameraState, StateListener
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.sinks import Sink
from edgecnn.runners.live.sinks.by_source import SinkBySource
from edgecnn.runners.live.sinks.kind import Counts, Setting, SinkKind
from edgecnn.runners.live.sinks.table import SINKS, parse_sink
from edgecnn.runners.live.sinks.threaded import ThreadedSink


class Outputs:
    """The sinks of a run, by name.

    asked: the options that select sinks, by name; None and False select none.
    words: further options that belong to a kind of sink.
    more: sinks, or "NAME=ARGUMENT" for a sink of the table.
    setting: information about the run for the sinks.

    Attributes:
        sinks: all sinks; with a live source, most run in separate threads.

    Raises:
        SpecError: an option of a sink that wasn't selected, or a value that a sink can't use.
        StorageError, DeviceError, MissingDependencyError: as the sinks raise.
    """

    def __init__(
        self,
        asked: Mapping[str, Any],
        more: Sequence[Sink | str],
        setting: Setting,
        *,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._setting = setting
        wanted = [
            (SINKS.get(name), argument)
            for name, argument in asked.items()
            if argument is not None and argument is not False
        ]
        wanted += [parse_sink(each) for each in more if isinstance(each, str)]
        _refuse_useless(setting.words, [kind for kind, _ in wanted])
        made = [(kind.name, self._made(kind, argument)) for kind, argument in wanted]
        made += [(getattr(each, "name", type(each).__name__), each) for each in more if not isinstance(each, str)]
        self._plain = [sink for _, sink in made]
        for name, sink in made:
            for counts, attribute in ((setting.dropped, "dropped"), (setting.faults, "faults")):
                if hasattr(sink, attribute):
                    counts[name] = partial(getattr, sink, attribute)
        self.sinks = [self._in_thread(name, sink, partial(on_failure, name)) for name, sink in made]
        for sink in self.sinks:
            if isinstance(sink, ThreadedSink) and not shows_only(sink):
                setting.dropped.setdefault(sink.name, partial(getattr, sink, "dropped"))
                setting.faults.setdefault(sink.name, partial(_has_failed, sink))

    def _made(self, kind: SinkKind, argument: Any) -> Sink:
        setting = self._setting
        if not kind.per_source or len(setting.cameras) == 1 or setting.camera.stills:
            return kind.make(argument, setting)
        if any(each.stills for each in setting.cameras):
            raise SpecError("pictures and videos can't be recorded in one run: give them in separate runs")
        paths = numbered(argument, len(setting.cameras))
        each = zip(setting.cameras, paths, strict=True)
        return SinkBySource({camera.name: kind.make(path, setting.of(camera)) for camera, path in each})

    def _in_thread(self, name: str, sink: Sink, on_failure: Callable[[BaseException], None]) -> Sink:
        """The sink in a separate thread where frames don't wait; a window must stay in the main thread."""
        if not self._setting.camera.live or getattr(sink, "in_main_thread", False):
            return sink
        return ThreadedSink(sink, name, on_failure=on_failure)

    def first_attribute(self, word: str) -> Any:
        """The attribute `word` of the first sink that has it: "url", "login_url"; None where none has."""
        return next((getattr(sink, word) for sink in self._plain if getattr(sink, word, None)), None)

    def having(self, word: str) -> list[Any]:
        """The sinks that have the attribute `word`."""
        return [sink for sink in self._plain if hasattr(sink, word)]

    def remarks(self) -> list[str]:
        """The sinks' remarks at the end."""
        return [sink.remark for sink in self._plain if getattr(sink, "remark", None)]  # type: ignore[attr-defined]

    def written(self) -> tuple[str, ...]:
        """Files and folders with results."""
        return tuple(str(path) for sink in self._plain for path in getattr(sink, "written", ()) if path.exists())

    def hold(self) -> None:
        """Wait for sinks that a person must see, such as a window, before they disappear."""
        for sink in self._plain:
            getattr(sink, "hold", lambda: None)()


def _refuse_useless(words: Mapping[str, Any], kinds: Sequence[SinkKind]) -> None:
    """Raise SpecError for an option of a sink that wasn't selected."""
    useful = {word for kind in kinds for word in kind.words}
    for kind in (SINKS.get(name) for name in SINKS.built_in()):
        useless = [word for word in kind.words if words.get(word) and word not in useful]
        if useless:
            options = " and ".join(f"--{word.replace('_', '-')}" for word in useless)
            option = f"--{kind.name.replace('_', '-')}"
            raise SpecError(f"{options} belongs to {option}: give {option} {kind.metavar} too")


def shows_only(sink: Sink) -> bool:
    """Whether a sink only shows the run; the run ends when no other sink is left."""
    return bool(getattr(sink, "shows_only", False))


def failed(sinks: Sequence[Sink]) -> list[ThreadedSink]:
    """The sinks that failed."""
    return [sink for sink in sinks if isinstance(sink, ThreadedSink) and sink.failure is not None]


def numbered(path: str | Path, count: int) -> list[Path]:
    """One path for each of several sources: out-1.mp4, out-2.mp4."""
    return [Path(path).with_stem(f"{Path(path).stem}-{number}") for number in range(1, count + 1)]


def drops(camera: Camera, counters: LiveCounters) -> Counts:
    """A function that returns the number of dropped frames so far, by stage."""
    return {"camera": lambda: camera.dropped} | {
        stage: partial(counters.dropped.__getitem__, stage) for stage in counters.dropped
    }


def _has_failed(sink: ThreadedSink) -> int:
    return int(sink.failure is not None)


class LastState:
    """Keeps the reason for each live source's state, and passes it on to a listener."""

    def __init__(self, listener: StateListener | None) -> None:
        self._listener = listener
        self._reasons: deque[str] = deque(maxlen=256)

    def __call__(self, state: CameraState, why: str) -> None:
        """Record the state and call the listener."""
        self._reasons.append(why)
        if self._listener is not None:
            self._listener(state, why)

    def of(self, cameras: Sequence[Camera]) -> dict[str, Callable[[], tuple[str, str]]]:
        """For each source, a function that returns its state and the reason."""
        return {each.name: partial(self.state_of, each, alone=len(cameras) == 1) for each in cameras}

    def state_of(self, camera: Camera, *, alone: bool) -> tuple[str, str]:
        """A source's state and the reason; with several sources, the reason begins with the source's name."""
        state: str | None = getattr(camera, "state", None)
        if state is None:
            return "file", ""
        begin = "" if alone else f"{camera.name}: "
        mine = [why for why in tuple(self._reasons) if why.startswith(begin)]
        return state, mine[-1].removeprefix(begin) if mine else ""


def refuse_overwriting(sources: Sequence[str | int | Path], *outputs: str | Path | None) -> None:
    """Raise SpecError if an output is one of the input files."""
    for source in sources:
        if isinstance(source, int) or not Path(source).is_file():
            continue
        for output in outputs:
            if output is not None and Path(output).exists() and Path(output).samefile(source):
                raise SpecError(f"{output} is also the source: choose another name for the output")
