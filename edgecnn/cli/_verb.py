"""A verb, and the options given to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from edgecnn.options import OUTPUT
from edgecnn.options.signature import Setting, load, settings_of

# The order is that of the help text. A verb's modules are imported only when it is used.
VERBS = (
    "data",
    "train",
    "prune",
    "compress",
    "convert",
    "quantize",
    "eval",
    "bench",
    "compare",
    "run",
    "service",
    "devices",
    "inspect",
    "sign",
    "verify",
    "deploy",
    "fleet",
    "demo",
)


@dataclass(frozen=True)
class Verb:
    """A verb's function with the given options; calling it calls the function.

    Attributes:
        function: of `edgecnn._verbs`; its signature defines the options.
        settings: these options.
        given: the values of the given options, by their keys. For the others, the function's defaults apply.
    """

    function: Callable[..., Any]
    settings: Sequence[Setting] = ()
    given: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, **more: Any) -> Any:
        """The function's result; `more` overrides given options."""
        return self.function(**{**self.words(), **more})

    def words(self, *only: str) -> dict[str, Any]:
        """The given options as the function takes them, fields merged to records; `only` these parameters."""
        words: dict[str, Any] = {}
        records: dict[str, dict[str, Any]] = {}
        for setting in self.settings:
            if setting.key not in self.given or (only and setting.parameter not in only):
                continue
            value = self.given[setting.key]
            if setting.record:
                records.setdefault(setting.parameter, {})[setting.field] = value
            else:
                words[setting.parameter] = value
        for setting in self.settings:
            if setting.parameter in records:
                words[setting.parameter] = load(setting.record)(**records.pop(setting.parameter))
        return words

    def fields(self, parameter: str) -> dict[str, Any]:
        """The given fields of a record."""
        given = [setting for setting in self.settings if setting.parameter == parameter and setting.key in self.given]
        return {setting.field: self.given[setting.key] for setting in given}

    def __getitem__(self, parameter: str) -> Any:
        """What the function gets for a parameter: the given value, otherwise its default."""
        words = self.words(parameter)
        if parameter in words:
            return words[parameter]
        found = inspect.signature(self.function).parameters.get(parameter)
        return None if found is None else found.default


@dataclass(frozen=True)
class VerbDefinition:
    """A verb's definition for the command line.

    Attributes:
        name: the verb's name.
        command: of `edgecnn.cli.NAME`: takes a `Verb` and its own options, prints, returns the exit code or None.
        function: of `edgecnn._verbs`.
        settings: the options of both.
        tables: tables of a `--config` file that are more than options, each with the "package.module:function" that
            runs such a file: takes its path and the options that the command line gives, returns the exit code.
    """

    name: str
    command: Callable[..., int | None]
    function: Callable[..., Any]
    settings: tuple[Setting, ...]
    tables: Mapping[str, str] = field(default_factory=dict)

    @property
    def help(self) -> str:
        """The help text."""
        return inspect.getdoc(self.command) or ""

    def run(self, given: Mapping[str, Any]) -> int:
        """Run it; returns the exit code."""
        own = {setting.key: setting.parameter for setting in settings_of(self.command)}
        verb = Verb(self.function, self.settings, {key: value for key, value in given.items() if key not in own})
        code = self.command(verb, **{own[key]: value for key, value in given.items() if key in own})
        return code or 0


def command_of(name: str) -> Callable[..., int | None]:
    """The command line's function for a verb; light: imports nothing that only the verb needs."""
    command: Callable[..., int | None] = import_module(f"edgecnn.cli.{name}").command
    return command


def define(name: str) -> VerbDefinition:
    """A verb's definition, read from the signatures of its function and of its command."""
    command = command_of(name)
    module = import_module(f"edgecnn.cli.{name}")
    function = load(module.VERB)
    own = settings_of(command)
    taken = {setting.key for setting in own}
    settings = [*(setting for setting in settings_of(function) if setting.key not in taken), *own]
    # Options that the command line defines itself (--camera) come before the verb's other options.
    groups = list(dict.fromkeys(setting.option.group for setting in settings))
    ranks = {setting.key: 2 if setting.option.group == OUTPUT else 0 for setting in own}
    places = [setting for setting in settings if setting.option.positional]
    others = [setting for setting in settings if not setting.option.positional]
    others.sort(key=lambda setting: (groups.index(setting.option.group), ranks.get(setting.key, 1)))
    tables = getattr(module, "TABLES", {})
    return VerbDefinition(name, command, function, (*places, *others), tables)
