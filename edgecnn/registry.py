"""Tables to which other packages can add rows, and parts that are imported on first use."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from edgecnn.errors import DeviceError, MissingDependencyError, PluginError, UnknownNameError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_log = logging.getLogger(__name__)
_OURS = "edgecnn"


class Named(Protocol):
    """The interface of a table's row."""

    @property
    def name(self) -> str:
        """The name by which it is requested."""
        ...


P_co = TypeVar("P_co", covariant=True)
T = TypeVar("T", bound=Named)


@dataclass(frozen=True)
class Part(Generic[P_co]):
    """A class or a function that is imported on first use.

    Attributes:
        import_path: "package.module:attribute".
        needs: import names of which one must exist; empty if it needs none.
        extra: the extra of edgecnn that installs them.
        install: how to install them where there is no extra, such as "pip install edgecnn-ncnn".
    """

    import_path: str
    needs: tuple[str, ...] = ()
    extra: str = ""
    install: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether its packages are installed; imports nothing."""
        return is_any_installed(self.needs)

    @property
    def how_to_install(self) -> str:
        """The command that installs its packages."""
        return install_command(self.extra, self.install)

    def missing(self, what: str, package: str) -> MissingDependencyError:
        """The error for something that needs it, where a package is not installed."""
        return MissingDependencyError(what, package, extra=self.extra or None, install=self.install or None)

    def load(self, what: str) -> P_co:
        """Import and return it.

        Args:
            what: what needs it, for messages ("format 'onnx'").

        Raises:
            MissingDependencyError: a package is not installed.
            DeviceError: a package is installed but cannot be imported.
        """
        if not self.is_installed:
            raise self.missing(what, " or ".join(self.needs))
        module, _, attribute = self.import_path.partition(":")
        try:
            part: Any = getattr(import_module(module), attribute)
        except ModuleNotFoundError as missing:
            if _is_ours(missing):
                raise  # our own bug, not the user's missing package
            raise self.missing(what, missing.name or "?") from missing
        except ImportError as broken:
            if _is_ours(broken):
                raise
            raise DeviceError(
                f"{what} cannot be used: {broken.name or module} is installed and cannot be imported ({broken}); "
                f"reinstall it: {self.how_to_install}"
            ) from broken
        return part  # type: ignore[no-any-return]


class Table(Generic[T]):
    """Records by name: edgecnn's own, in order of preference, then those of other packages.

    Another package adds a record with an entry point in this table's group. The entry point's name is the record's
    name, its value is the record; in pyproject.toml:

        [project.entry-points."edgecnn.formats"]
        ncnn = "edgecnn_ncnn:FORMAT"

    An entry that cannot be loaded, has the wrong type, or has a name that is already used, is reported and skipped; the
    rest works as without it. A name of edgecnn's own is found without a search of installed packages.
    """

    def __init__(self, kind: str, rows: Mapping[str, str], *, record: type[T], group: str) -> None:
        """Make a table; nothing is imported.

        Args:
            kind: kind of the rows, for messages: "format".
            rows: name → "package.module:attribute" of the record.
            record: the class of all records.
            group: the group of the entry points.
        """
        self._kind, self._record, self._group = kind, record, group
        self._built_in = dict(rows)
        self._loaded: dict[str, T] = {}
        self._refused: dict[str, PluginError] = {}
        self._plugins: dict[str, EntryPoint] | None = None

    def __iter__(self) -> Iterator[T]:
        """All records that can be loaded; a warning is logged once for each of the others."""
        return self.others(())

    def others(self, than: Container[str]) -> Iterator[T]:
        """As iteration, without the records of these names, which are not loaded."""
        for name in self.names():
            if name in than or name in self._refused:
                continue
            try:
                row = self.get(name)
            except PluginError as refused:
                _log.warning("%s", refused)
                continue
            yield row

    def names(self) -> list[str]:
        """All names, in order of preference; without plug-ins that have failed."""
        names = dict.fromkeys((*self._built_in, *self._loaded, *self._found()))
        return [name for name in names if name not in self._refused]

    def built_in(self) -> list[str]:
        """The names of edgecnn's own rows, in order of preference; does not search other packages."""
        return list(self._built_in)

    def has(self, name: str) -> bool:
        """Whether there is such a row; a plug-in may still fail when it is loaded."""
        return name in self._built_in or name in self._loaded or name in self._found()

    def get(self, name: str) -> T:
        """The record of that name.

        Raises:
            UnknownNameError: no such name; lists the nearest names.
            PluginError: it belongs to another package and cannot be used.
        """
        if name in self._loaded:
            return self._loaded[name]
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            self._loaded[name] = getattr(import_module(module), attribute)
            return self._loaded[name]
        point = self._found().get(name)
        if name in self._refused:
            raise self._refused[name]
        if point is None:
            raise UnknownNameError(self._kind, name, self.names())
        try:
            row = self._from(point)
        except PluginError as refused:
            self._refused[name] = refused
            raise
        self._loaded[name] = row
        return row

    def package_of(self, name: str) -> dict[str, str]:
        """The installed package that adds a row, and its version; empty for edgecnn's own."""
        point = None if name in self._built_in else self._found().get(name)
        return {} if point is None or point.dist is None else {point.dist.name: point.dist.version}

    def add(self, row: T) -> None:
        """Add a record in this process only; a name that is already used is a programming error (ValueError)."""
        if self.has(row.name):
            raise ValueError(f"there is a {self._kind} {row.name!r} already")
        self._loaded[row.name] = row

    @contextlib.contextmanager
    def temporarily(self, row: T) -> Iterator[T]:
        """Add a record while inside, in place of one with the same name."""
        before = self._loaded.get(row.name)
        self._loaded[row.name] = row
        try:
            yield row
        finally:
            self._loaded.pop(row.name, None)
            if before is not None:
                self._loaded[row.name] = before

    def search_again(self) -> None:
        """Forget the rows of other packages: the next use searches for them again, after an installation."""
        for name in self._plugins or ():
            self._loaded.pop(name, None)
        self._plugins = None
        self._refused.clear()

    def fault(self, row: Any, name: str) -> str:
        """What is wrong with another package's record of this name; "" where nothing is."""
        if not isinstance(row, self._record):
            return f"expected a {self._record.__name__}, got a {type(row).__name__}"
        if row.name != name:
            return f"its record has the name {row.name!r}"
        return self.refuse(row)

    def refuse(self, row: T) -> str:
        """Why another package's record conflicts with others; "" where it doesn't. For subclasses."""
        return ""

    def _from(self, point: EntryPoint) -> T:
        try:
            row = point.load()
        except (Exception, SystemExit) as failed:  # another package may raise anything when it is imported
            raise self._error(point, f"it cannot be loaded: {type(failed).__name__}: {failed}") from failed
        if reason := self.fault(row, point.name):
            raise self._error(point, reason)
        return row  # type: ignore[no-any-return]

    def _error(self, point: EntryPoint, reason: str) -> PluginError:
        return PluginError(
            f"{self._kind} {point.name!r} of the package {_package(point)} is skipped: {reason}; "
            "fix, update or uninstall that package"
        )

    def _found(self) -> dict[str, EntryPoint]:
        """The entry points of this group whose names are not used otherwise."""
        if self._plugins is None:
            from importlib.metadata import entry_points

            plugins: dict[str, EntryPoint] = {}
            for point in sorted(entry_points(group=self._group), key=lambda found: (found.name, _package(found))):
                taken_by = _OURS if point.name in self._built_in else ""
                if not taken_by and point.name in plugins and plugins[point.name].value != point.value:
                    taken_by = _package(plugins[point.name])
                if taken_by:
                    _log.warning("%s", self._error(point, f"{taken_by} already has a {self._kind} of that name"))
                else:
                    plugins[point.name] = point
            self._plugins = plugins
        return self._plugins


def is_any_installed(modules: tuple[str, ...]) -> bool:
    """Whether one of these modules exists, or none is needed; imports only parents of dotted names."""
    return not modules or any(map(_is_there, modules))


def install_command(extra: str, install: str = "") -> str:
    """The command that installs a part: `install` where it is given, otherwise an extra of edgecnn."""
    return install or f"pip install 'edgecnn[{extra}]'"


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # the parent of a dotted name is missing; a module without a spec
        return False


def _is_ours(error: ImportError) -> bool:
    return (error.name or "").partition(".")[0] == _OURS


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value.partition(":")[0]
