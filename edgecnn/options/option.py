"""Annotations that make a verb's parameter an option, or an argument, of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecnn.options.kinds import Kind


@dataclass(frozen=True, kw_only=True)
class Option:
    """How a parameter is given on the command line and in a `--config` file; part of its annotation.

    ``score: Annotated[float | None, Option(help="…")] = None`` is the option --score. Type and default come from the
    signature.

    Attributes:
        help: what it does; "" uses the docstring's text for the parameter. `{formats}` and the other
            words of `edgecnn.options.lists` are replaced by names when the help is printed.
        group: its heading in the help.
        name: name without dashes, if it is not the parameter's own with "-" for "_".
        kind: type of its value, where the parameter's type is not enough.
        metavar: placeholder for its value in the help.
        default: description of the default in the help, where the signature's value says nothing ("all cores").
        repeat: True if it may be given several times, for a list of values.
        pair: True if it takes two values.
        alone: value if it is given without one.
        positional: True for an argument, identified by its position.
        negative: True if --no-NAME switches it off.
        envvar: environment variable for its value, used if the command line does not give it.
        code: True if its value may name the user's code (package.module:callable), which only the command line may.
        instead_of: names (as in a file) of options that it replaces: given on the command line, it removes them from
            the file's options.
    """

    help: str = ""
    group: str = ""
    name: str = ""
    kind: Kind | None = None
    metavar: str = ""
    default: str = ""
    repeat: bool = False
    pair: bool = False
    alone: str = ""
    positional: bool = False
    negative: bool = False
    envvar: str = ""
    code: bool = False
    instead_of: Sequence[str] = ()


@dataclass(frozen=True)
class Fields:
    """The parameter is a record whose annotated fields are the options, as in ``capture: Annotated[…, Fields(HOME)]``.

    Attributes:
        home: "package.module:Class".
    """

    home: str
