"""A board that means harm: what it says is never an option, a path, a command or a requirement here."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("packaging", reason="needs the extra [remote]")

from edgecnn._verbs.on_boards import devices_on
from edgecnn.errors import BoardError
from edgecnn.runners.remote import answers
from edgecnn.runners.remote.connection import SSH_VARIABLE

pytestmark = pytest.mark.server

BOARD = """#!{python}
import json, sys, time
source = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
HELLO = {hello!r}
REPLIES = {replies!r}
def say(answer, payload=b""):
    sys.stdout.buffer.write(json.dumps({{"bytes": len(payload), **answer}}).encode() + b"\\n" + payload)
    sys.stdout.buffer.flush()
for line in sys.stdin.buffer:
    request = json.loads(line)
    sys.stdin.buffer.read(request["bytes"])
    do = request["do"]
    {attack}
    if do == "hello":
        say(HELLO)
    elif do in REPLIES:
        say(REPLIES[do])
    elif do == "have":
        say({{"offsets": {{sha256: 0 for sha256, size in request["files"]}}}})
    elif do == "put":
        say({{"bytes_there": request["offset"] + request["bytes"]}})
    elif do == "adopt":
        say({{"path": "/there/" + request["name"]}})
    elif do == "poll":
        say({{"code": 0}})
    elif do == "read":
        say({{}}, REPLIES.get("printed", "").encode() if request["path"] == "run/out" else b"")
    else:
        say({{}})
"""
HELLO: dict[str, Any] = {
    "board": "Raspberry Pi 5",
    "host": "pi",
    "platform": "linux-aarch64",
    "python": "3.11.2",
    "executable": "/usr/bin/python3",
    "libc": "glibc 2.36",
    "packages": {},
    "root": "/root",
    "environments": {},
    "edgecnns": [],
}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pip was called with, and the constraints it was given; nothing is fetched."""
    calls: list[list[str]] = []

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        pins = Path(words[words.index("--constraint") + 1]).read_text() if "--constraint" in words else ""
        calls.append([*words, "PINS", *pins.splitlines()])
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr("edgecnn.runners.remote.packages.subprocess.run", run)
    return calls


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: list[list[str]]) -> Callable[..., Any]:
    """Asks a board that behaves in a way of its own; what came of it, and what was said meanwhile."""

    def ask(attack: str = "pass", replies: dict[str, Any] | None = None, **hello: Any) -> tuple[Any, list[str]]:
        program = tmp_path / "board"
        program.write_text(
            BOARD.format(python=sys.executable, hello={**HELLO, **hello}, replies=replies or {}, attack=attack)
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv(SSH_VARIABLE, str(program))
        said: list[str] = []
        (outcome,) = devices_on("ssh://board", status=lambda address, text: said.append(text))
        return outcome, said

    return ask


INJECTIONS = [
    "numpy\n--index-url=http://evil/\nx",
    "numpy\r--no-binary=:all:",
    "--index-url",
    "numpy @ http://evil/x.tar.gz",
    "numpy; import os",
    "-rrequirements.txt",
    "../../etc/passwd",
    "numpy\x1b[2J",
    "a" * 5000,
    "",
]


@pytest.mark.parametrize("name", INJECTIONS)
def test_a_packages_name_is_a_name_or_nothing(name: str, board: Callable[..., Any], fetched: list[list[str]]) -> None:
    board(packages={name: "1.0", "honest": "1.2.3"})
    (call,) = fetched
    assert call[call.index("PINS") + 1 :] == ["honest==1.2.3"]
    assert_only_ours(call)


@pytest.mark.parametrize(
    "version", ["1.0\n--index-url=http://evil/", "1.0; x", "1.0 --pre", "@ http://evil", "1" * 500, "", 7, None]
)
def test_a_version_is_a_version_or_nothing(version: Any, board: Callable[..., Any], fetched: list[list[str]]) -> None:
    board(packages={"numpy": version, "honest": "1.2.3"})
    (call,) = fetched
    assert call[call.index("PINS") + 1 :] == ["honest==1.2.3"]
    assert_only_ours(call)


def assert_only_ours(call: list[str]) -> None:
    """Wheels only, and behind "--" nothing but requirements that edgecnn itself names."""
    words = call[: call.index("PINS")]
    assert words[words.index("--only-binary") + 1] == ":all:"
    assert not any("evil" in word or "\n" in word for word in words)
    behind = words[words.index("--") + 1 :]
    assert behind and not any(word.startswith("-") for word in behind)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"platform": "linux-aarch64 --index-url http://evil/"}, "platform is"),
        ({"platform": "linux-../../x"}, "platform is"),
        ({"python": "3.11 --no-binary :all:"}, "Python is"),
        ({"python": "3.11\n"}, "Python is"),
        ({"libc": "glibc 2.999999999"}, "C library is"),
        ({"libc": "glibc 2.36\n--pre"}, "C library is"),
        ({"libc": ["glibc"]}, "libc is"),
        ({"packages": ["numpy"]}, "packages is"),
        ({"environments": 3}, "environments is"),
        ({"edgecnns": "x"}, "edgecnns is"),
        ({"host": 3, "board": ""}, "host is"),
    ],
)
def test_a_greeting_that_cannot_be_one_is_refused(
    said: dict[str, Any], expected: str, board: Callable[..., Any], fetched: list[list[str]]
) -> None:
    outcome, _ = board(**said)
    assert isinstance(outcome.error, BoardError)
    assert expected in str(outcome.error)
    assert "ssh://board" in str(outcome.error)
    assert not fetched, "pip was not called"


def test_an_environments_name_is_one_of_ours_or_nothing(board: Callable[..., Any], fetched: list[list[str]]) -> None:
    board(environments={"env-x/../../../etc": {"numpy": "2.0"}, "../x": {}, "-rf": {}})
    assert len(fetched) == 1, "what isn't there is fetched"


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        pytest.param(
            'if do == "poll": sys.stdout.buffer.write(b"x" * (9 << 20)); sys.stdout.buffer.flush(); continue',
            "more than 8 MB",
            id="a line without end",
        ),
        pytest.param('if do == "poll": say({"bytes": 1 << 40}); continue', "bytes", id="a file without end"),
        pytest.param('if do == "poll": say({"bytes": -5}); continue', "bytes", id="less than nothing"),
        pytest.param('if do == "poll": say({"code": "0; rm -rf /"}); continue', "code is", id="a code that is none"),
        pytest.param('if do == "poll": say({"code": 10**30}); continue', "code is", id="a code beyond all"),
        pytest.param(
            'if do == "poll": sys.stdout.buffer.write(b"[1]\\n"); sys.stdout.buffer.flush(); continue',
            "an invalid answer",
            id="a list",
        ),
        pytest.param(
            'if do == "put": say({"bytes_there": 0}); continue', "it keeps reporting", id="what keeps nothing"
        ),
        pytest.param('if do == "put": say({"bytes_there": -1}); continue', "bytes_there is", id="a negative offset"),
        pytest.param('if do == "have": say({"offsets": {}}); continue', "is None", id="no offsets"),
        pytest.param('if do == "adopt": say({"path": ["x"]}); continue', "path is", id="a path that is none"),
    ],
)
def test_an_answer_that_cannot_be_one_ends_it(attack: str, expected: str, board: Callable[..., Any]) -> None:
    began = time.monotonic()
    outcome, _ = board(attack)
    assert isinstance(outcome.error, BoardError)
    assert expected in str(outcome.error)
    assert time.monotonic() - began < 30


def test_what_it_says_is_shown_and_not_obeyed(board: Callable[..., Any]) -> None:
    evil = "\x1b[2J\x1b]0;renamed\x07\nssh://other: all is well"
    outcome, said = board(
        'if do == "begin": say({"refused": "full", "reason": HELLO["evil"]}); continue', evil=evil, board=evil
    )
    everything = "".join(said) + str(outcome.error)
    assert "\x1b" not in everything
    assert "\x07" not in everything
    assert "\\x1b[2J" in str(outcome.error)
    assert "\n" not in str(outcome.error), "no line of its own"


@pytest.mark.parametrize(
    "printed",
    ["[" * 100_000, "{}", '{"machine": 1}', "\x1b[2J", json.dumps({"devices": [1] * 10})],
    ids=["deep", "empty", "of another kind", "a command", "a list of another kind"],
)
def test_a_report_that_cannot_be_read_is_an_error_of_the_board(printed: str, board: Callable[..., Any]) -> None:
    outcome, _ = board(replies={"printed": printed})
    assert isinstance(outcome.error, BoardError)
    assert "its answer cannot be read" in str(outcome.error)
    assert "\x1b" not in str(outcome.error)


def test_a_silent_board_is_given_up(board: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LONGEST_REQUEST_S", 0.5)
    began = time.monotonic()
    outcome, _ = board('if do == "hello": time.sleep(60)')
    assert isinstance(outcome.error, BoardError)
    assert time.monotonic() - began < 20


def test_what_it_writes_to_standard_error_takes_no_room(board: Callable[..., Any]) -> None:
    outcome, _ = board(
        'sys.stderr.write("x" * (20 << 20)); sys.stderr.write("\\n\\x1b[2Jlast\\n"); sys.stderr.flush(); sys.exit(3)'
    )
    assert isinstance(outcome.error, BoardError)
    assert len(str(outcome.error)) < 2000
    assert "last" in str(outcome.error)
    assert "\x1b" not in str(outcome.error)


def test_a_board_that_runs_for_ever_is_given_up(board: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecnn._verbs.on_boards.LONGEST_LOOK_S", 0.5)
    outcome, _ = board(replies={"poll": {"code": None}})
    assert isinstance(outcome.error, BoardError) and outcome.error.exit_code == 3
    assert "edgecnn devices still runs there after 0 s and is given up" in str(outcome.error)
