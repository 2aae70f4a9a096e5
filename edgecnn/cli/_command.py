"""Click commands, made of the verbs' definitions when a verb is used; they parse the command line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from edgecnn.cli._verb import VERBS, VerbDefinition, command_of, define
from edgecnn.options import kinds
from edgecnn.options.file import read_options
from edgecnn.options.kinds import Kind
from edgecnn.options.lists import filled
from edgecnn.options.signature import Setting, load
from edgecnn.options.toml import read_toml
from edgecnn.printable import shortened

_OTHER = "Other options"
_CONFIG_HELP = (
    'A TOML file with any of these options, by their names: out = "street.edge". Options on the command line override '
    "it."
)


class Verbs(click.Group):
    """The program: its verbs are imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the help text."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A verb's command; None for any other word."""
        return VerbCommand(define(cmd_name)) if cmd_name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click's, with suggestions for an unknown word."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(VERBS)}"
            raise click.UsageError(f"no command has the name {shortened(args[0])!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line for each verb: the first sentence of its help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(command_of(name).__doc__)) for name in VERBS])


class VerbCommand(click.Command):
    """A verb; its parameters are made of its definition."""

    def __init__(self, verb: VerbDefinition) -> None:
        self.verb = verb
        parameters: list[click.Parameter] = [_parameter(setting) for setting in verb.settings]
        parameters.append(click.Option(["--config"], metavar="FILE.toml", help=_CONFIG_HELP, shell_complete=_files))
        super().__init__(
            verb.name, params=parameters, help=verb.help, context_settings={"help_option_names": ["-h", "--help"]}
        )

    def invoke(self, ctx: click.Context) -> int:
        """Run the verb with the given options; a file with one of the verb's tables is run by what owns the table."""
        file = ctx.params["config"]
        if file is not None and (owner := _owner_of_tables(self.verb, Path(file))) is not None:
            return owner(Path(file), self._given_by_user(ctx))
        return self.verb.run(self.given(ctx))

    def _given_by_user(self, ctx: click.Context) -> dict[str, Any]:
        return {s.key: _value(s, ctx.params[s.key]) for s in self.verb.settings if _is_given(ctx, s.key)}

    def given(self, ctx: click.Context) -> dict[str, Any]:
        """The given options: from the command line, otherwise the environment, otherwise the file.

        Raises:
            UsageError: a required option is missing.
            DataError, SpecError: as for `read_options`.
        """
        given = self._given_by_user(ctx)
        file = ctx.params["config"]
        if file is not None:
            ruled_out = _ruled_out(given, self.verb.settings)
            for key, value in read_options(Path(file), self.verb.settings).items():
                if key not in given:
                    _refuse_code(self.verb.settings, key, value, file)
                if key not in ruled_out:
                    given.setdefault(key, value)
        for setting in self.verb.settings:
            if setting.required and setting.key not in given:
                raise click.UsageError(f"{setting.spelling} is missing (in a --config file: {setting.name} = …)", ctx)
        return given

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Also lists required options."""
        required = [s for s in self.verb.settings if s.required and not s.option.positional]
        places = [s for s in self.verb.settings if s.option.positional]
        return [
            *(s.metavar if s.required else f"[{s.metavar}]" for s in places),
            *(f"{s.spelling} {s.metavar}" for s in required),
            "[OPTIONS]",
        ]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Arguments, then the options under their headings."""
        for heading, rows in help_rows(self.verb).items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def _owner_of_tables(verb: VerbDefinition, file: Path) -> Callable[..., int] | None:
    """What runs a file that has one of the verb's tables, such as [cameras]; None for a file of plain options."""
    if not verb.tables:
        return None
    found = [home for table, home in verb.tables.items() if table in read_toml(file, "a TOML file of options")]
    return load(found[0]) if found else None


def _refuse_code(settings: Sequence[Setting], key: str, value: Any, file: str) -> None:
    """A file names no code: otherwise its author could run any code of this machine."""
    from edgecnn.sources.own_code import check_allowed, names_code

    if any(setting.key == key and setting.option.code for setting in settings) and names_code(str(value)):
        check_allowed(str(value), by=file)


def help_rows(verb: VerbDefinition, *, shared: bool = True) -> dict[str, list[tuple[str, str]]]:
    """By heading, each option and its help; `shared`: also the options of every verb."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for setting in verb.settings:
        heading = "Arguments" if setting.option.positional else setting.option.group or _OTHER
        groups.setdefault(heading, []).append((option_syntax(setting), option_help(setting)))
    other = groups.pop(_OTHER, [])
    rows = {"Arguments": groups.pop("Arguments")} if "Arguments" in groups else {}
    general = [
        ("--config FILE.toml", _CONFIG_HELP),
        ("--debug", "Print the traceback of an error."),
        ("-h, --help", "Show this text."),
    ]
    last = [*other, *(general if shared else ())]
    return {**rows, **groups, **({_OTHER: last} if last else {})}


def option_syntax(setting: Setting) -> str:
    """An option as it is typed: "--score X"."""
    if setting.option.positional:
        return setting.metavar
    if setting.kind.is_flag:
        return f"--{setting.name} / --no-{setting.name}" if setting.option.negative else f"--{setting.name}"
    return f"--{setting.name} {setting.metavar}"


def option_help(setting: Setting) -> str:
    """An option's help with its names, default and environment variable."""
    parts = [filled(setting.help)]
    if setting.option.repeat and "several times" not in setting.help:
        parts.append("May be repeated.")
    notes = [f"default: {given}"] if (given := setting.default_text) else []
    notes += ["required"] if setting.required and not setting.option.positional else []
    notes += [f"or ${setting.option.envvar}"] if setting.option.envvar else []
    return " ".join([*parts, *(f"[{note}]" for note in notes)])


def _parameter(setting: Setting) -> click.Parameter:
    option = setting.option
    if option.positional:
        return click.Argument([setting.key], type=_Word(setting), required=False, default=None)
    names = f"--{setting.name}/--no-{setting.name}" if option.negative else f"--{setting.name}"
    if setting.kind.is_flag:
        return click.Option([names, setting.key], is_flag=True, default=None)
    return click.Option(
        [names, setting.key],
        type=_Word(setting),
        multiple=option.repeat,
        nargs=2 if option.pair else 1,
        envvar=option.envvar or None,
        default=None,
    )


class _Word(click.ParamType[Any]):
    """A word of the command line, parsed by its option's kind."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.kind.metavar
        self._setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value.

        Raises:
            UsageError: the value is invalid.
        """
        if not isinstance(value, str):
            return value
        try:
            return self._setting.kind.read(value)
        except ValueError:
            what = f"{self._setting.spelling} must be {self._setting.kind.expected}, got {shortened(value)!r}"
            near = difflib.get_close_matches(value, self._setting.kind.words, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(what + hint, ctx) from None

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words of a choice, otherwise files."""
        kind: Kind = self._setting.kind
        if kind.words:
            return [CompletionItem(word) for word in kind.words if word.startswith(incomplete)]
        takes_path = kind in (kinds.PATH, kinds.SOURCE) or self._setting.option.positional
        return _files(ctx, param, incomplete) if takes_path else []


def _files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _is_given(ctx: click.Context, key: str) -> bool:
    return ctx.get_parameter_source(key) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def _value(setting: Setting, value: Any) -> Any:
    return tuple(value) if setting.option.repeat or setting.option.pair else value


def _ruled_out(given: Mapping[str, Any], settings: tuple[Setting, ...]) -> set[str]:
    """Keys of the file without effect: the command line has another option for the same thing."""
    pairs = {(s.key, other.replace("-", "_")) for s in settings for other in s.option.instead_of}
    pairs |= {(other, key) for key, other in pairs}
    return {other for key, other in pairs if key in given}


def _summary(text: str | None) -> str:
    """The first sentence, without the part after a colon."""
    first = " ".join((text or "").split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".") + "."
