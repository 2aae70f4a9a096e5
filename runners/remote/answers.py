"""Checks a board's answers: they come from another machine, so every value must match what is possible.

No value becomes an option, a path, a command or a requirement here unless it matches a strict pattern; text that
is only shown is shortened and made printable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgecnn.errors import BoardError
from edgecnn.printable import shortened

MOST_LINE_BYTES = 8 << 20  # of an answer without its payload: the names of thousands of packages
MOST_FILE_BYTES = 64 << 20  # of a program's output or report
MOST_ERROR_BYTES = 256 << 10
LONGEST_REQUEST_S = 900.0  # the longest: making an environment on a slow memory card
_MOST_PACKAGES = 20_000
_MOST_RESULTS = 10_000

_PLATFORM = re.compile(r"[a-z]{1,16}-[a-z0-9_]{1,32}")
_PYTHON = re.compile(r"[23]\.\d{1,2}(\.\d{1,3})?((a|b|rc)\d{1,3})?\+?")
_LIBC = re.compile(r"[a-z]{1,16} \d{1,2}\.\d{1,2}(\.\d{1,3})?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?")  # PEP 503, normalised
_VERSION = re.compile(r"[a-z0-9][a-z0-9.+!-]{0,63}")
_ENVIRONMENT = re.compile(r"env-[0-9a-f]{12}-[0-9a-f]{12}")
_EDGECNN = re.compile(r"edgecnn-[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """A board's description of itself.

    Attributes:
        board: its model or its host's name, printable.
        platform, python, libc: in the form that `packages` uses; libc is "" if it is unknown.
        executable: path of its Python; only compared, never run.
        packages: normalised name → version, where both are valid.
        environments: name → its packages.
        edgecnns: names of its copies of edgecnn.
    """

    board: str
    platform: str
    python: str
    libc: str
    executable: str
    packages: Mapping[str, str]
    environments: Mapping[str, Mapping[str, str]]
    edgecnns: frozenset[str]


def greeting(fields: Mapping[str, Any]) -> Greeting:
    """Read a board's greeting.

    Raises:
        BoardError: an impossible value; an invalid package name or version is left out.
    """
    platform, python = text(fields, "platform"), text(fields, "python")
    if not _PLATFORM.fullmatch(platform):
        raise _wrong("platform", platform)
    if not _PYTHON.fullmatch(python):
        raise _wrong("Python", python)
    libc = text(fields, "libc")
    if libc and not _LIBC.fullmatch(libc):
        raise _wrong("C library", libc)
    environments = table(fields, "environments")
    return Greeting(
        board=shortened(text(fields, "board") or text(fields, "host"), length=80) or "a board without a name",
        platform=platform,
        python=python,
        libc=libc,
        executable=text(fields, "executable"),
        packages=_packages(table(fields, "packages")),
        environments={
            name: _packages(its_own)
            for name, its_own in environments.items()
            if _ENVIRONMENT.fullmatch(name) and isinstance(its_own, dict)
        },
        edgecnns=frozenset(name for name in _list(fields, "edgecnns") if _EDGECNN.fullmatch(str(name))),
    )


def text(fields: Mapping[str, Any], name: str, *, most: int = 4096) -> str:
    """A text from an answer.

    Raises:
        BoardError: it is not a text, or too long.
    """
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise _wrong(name, value)
    return value


def number(fields: Mapping[str, Any], name: str, *, least: int, most: int) -> int:
    """An integer from an answer.

    Raises:
        BoardError: it is not an integer, or out of range.
    """
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _wrong(name, value)
    return value


def exit_code(fields: Mapping[str, Any]) -> int | None:
    """A program's exit code; None while it runs.

    Raises:
        BoardError: it is not an exit code.
    """
    return None if fields.get("code", "") is None else number(fields, "code", least=-255, most=255)


def table(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A table from an answer.

    Raises:
        BoardError: it is not a table, or too large.
    """
    value = fields.get(name, {})
    if not isinstance(value, dict) or len(value) > _MOST_PACKAGES:
        raise _wrong(name, value)
    return value


def check_few(results: object, what: str) -> None:
    """Check that a report has no more entries than can have been measured.

    Raises:
        BoardError: it has more.
    """
    count = len(results)  # type: ignore[arg-type]
    if count > _MOST_RESULTS:
        raise BoardError(f"its answer holds {count} {what}, more than can have been measured")


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name, [])
    if not isinstance(value, list) or len(value) > _MOST_PACKAGES:
        raise _wrong(name, value)
    return value


def _packages(fields: Mapping[str, Any]) -> dict[str, str]:
    """Packages with valid names and versions, by PEP 503 and PEP 440; other entries are ignored."""
    from packaging.version import InvalidVersion, Version

    found = {}
    for name, version in list(fields.items())[:_MOST_PACKAGES]:
        if isinstance(version, str) and _NAME.fullmatch(name) and _VERSION.fullmatch(version):
            try:
                Version(version)
            except InvalidVersion:
                continue
            found[name] = version
    return found


def _wrong(name: str, value: object) -> BoardError:
    return BoardError(f"its answer is not valid: {name} is {shortened(repr(value), length=80)}")
