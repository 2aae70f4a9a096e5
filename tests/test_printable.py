"""Text from elsewhere is shown, never obeyed by a terminal."""

from __future__ import annotations

import json
import os

import pytest

from edgecnn.cli import _output
from edgecnn.errors import DataError
from edgecnn.printable import printable, printable_json, shortened

HOSTILE = [
    "\x1b[2J\x1b[1;1Hdone",  # clears the screen
    "\x1b]0;renamed\x07",  # renames the window
    "\x9b31mred",  # the same in one byte of C1
    "over\rwritten",
    "back\b\b\b\bspace",
    "\u202egnp.exe",  # written from right to left
    "a\u2028b",
    os.fsdecode(b"caf\xe9.jpg"),  # a file name that is no UTF-8
    "nul\0",
    "del\x7f",
]


def commands(text: str) -> list[str]:
    """What a terminal would obey, or could not be sent."""
    allowed = {"\n", "\t"}
    return [
        c
        for c in text
        if (c not in allowed and (ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0))
        or c in "\u202e\u2028"
        or 0xD800 <= ord(c) < 0xE000
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_would_obey_is_shown(text: str) -> None:
    assert commands(text)
    shown = printable(text)
    assert not commands(shown)
    assert "\\x" in shown or "\\u" in shown
    shown.encode()


@pytest.mark.parametrize("text", ["Hündchen", "кухня", "犬", "👩\u200d🚒", "a\tb\nc", "100 % – …", ""])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_one_line_stays_one_line() -> None:
    assert printable("a\nb\tc", lines=False) == "a\\nb\\tc"
    assert shortened("x" * 1000, length=10) == "x" * 9 + "…"


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\udce9" not in text])
def test_json_keeps_its_meaning(text: str) -> None:
    document = json.dumps({"label": text}, ensure_ascii=False, indent=1)
    shown = printable_json(document)
    assert not commands(shown)
    assert json.loads(shown) == {"label": text}


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_shows_what_it_quotes(text: str) -> None:
    assert not commands(str(DataError(f"{text} cannot be read")))


@pytest.mark.parametrize("text", [*HOSTILE, "[/nothing]", "[bold]loud[/bold]"])
def test_what_the_command_line_prints_is_shown(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    _output.print_table(f"title {text}", ("name", "n"), [(text, 1)], numeric=["n"])
    _output.print_line(text)
    _output.print_remark(text)
    with _output.progress_bar(text) as progress:
        progress(1, 2, text)
    written = capsys.readouterr()
    assert not commands(written.out + written.err)
    if text.startswith("["):
        assert written.out.count(text) == 3, "brackets of a name are no markup"
