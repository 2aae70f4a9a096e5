"""What every test may ask for."""

from __future__ import annotations

import tests.own_cores  # noqa: F401 - before anything starts threads

# isort: split
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import edgecnn.runners
from edgecnn import Bundle, convert
from edgecnn.formats import FORMATS, Format, Part
from edgecnn.photographs import photographs
from edgecnn.results import UInt8Array
from tests.builders import plug_in
from tests.builders.once import made_once
from tests.builders.repository import REPOSITORY
from tests.needs import mark_by_fixtures, pytest_pycollect_makemodule, pytest_runtest_call, pytest_runtest_setup  # noqa: F401
from tests.short_timing import pytest_runtest_protocol  # noqa: F401

# No deadline: a busy machine is no failure. In CI, the same examples each time: a change is judged by what it changed.
settings.register_profile("edgecnn", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("edgecnn")


def pytest_configure() -> None:
    """Let Ctrl-C through to the programs that tests start and stop: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first: one that began last would keep one process busy while the others have ended."""
    mark_by_fixtures(items)
    long = [REPOSITORY / "tests" / room for room in ("verbs", "converters", "training", "device")]
    items.sort(key=lambda item: not any(item.path.is_relative_to(room) for room in long))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test weights, labelled images and footage beside the repository; skips where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("needs ../shared (weights and labelled images), which is not on this machine")
    return folder


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the how-tos' own package of all five kinds of parts is installed."""
    modules = {name: plug_in.file_in(page, name) for name, page in plug_in.TOYS.items()}
    return plug_in.install(tmp_path_factory.mktemp("toys"), plug_in.project_in("add-a-part.md"), modules)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let packages look as if they were not installed, whatever was imported before; our back ends are forgotten."""

    def hide(*packages: str) -> None:
        monkeypatch.setenv("EDGECNN_VERIFY", "0")  # a child would find them
        loaded = [name for name in list(sys.modules) if name.startswith(tuple(f"{package}." for package in packages))]
        for name in (*packages, *loaded):
            monkeypatch.setitem(sys.modules, name, None)  # import then says that it is not there
        ours = tuple(row.backend.import_path.rpartition(".")[0] for row in FORMATS if row.backend is not None)
        for name in [name for name in sys.modules if name.startswith(ours)]:
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(edgecnn.runners, name.removeprefix("edgecnn.runners."), raising=False)

    return hide


@dataclass(frozen=True)
class Ready(Part[Any]):
    """A part that is there already."""

    value: Any = None

    def load(self, what: str) -> Any:
        return self.value


@pytest.fixture
def stand_in() -> Iterator[Callable[..., Format]]:
    """Puts a format into the table for one test: `stand_in("wrong", like="openvino", converter=SomeClass)`."""
    added = contextlib.ExitStack()

    def put(name: str, *, like: str = "", **parts: Any) -> Format:
        given: dict[str, Any] = {
            part: value if value is None or part == "suffixes" else Ready("", value=value)
            for part, value in parts.items()
        }
        row = replace(FORMATS.get(like or name), name=name, **given)
        return added.enter_context(FORMATS.temporarily(row))

    with added:
        yield put


@pytest.fixture
def assert_readable(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Asks of what a verb prints in a log: tables in plain text, none of them wider than 80 columns."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def check(text: str) -> None:
        lines = text.splitlines()
        assert not set("│┃┏┡└─━\x1b") & set(text)
        rules = [i for i, line in enumerate(lines) if re.fullmatch(r"-+(  -+)*", line)]
        assert rules, "no table"
        for rule in rules:
            assert max(len(lines[rule - 1]), len(lines[rule])) <= 80
            row = next((line for line in lines[rule + 1 :] if line.strip()), "")
            assert len(row) <= 80, row

    return check


@pytest.fixture(scope="session")
def photograph() -> UInt8Array:
    """One of the photographs that come with edgecnn."""
    return photographs()["astronaut"]


def _convert_tiny(task: str, out: Path, **words: Any) -> None:
    formats = [row.name for row in FORMATS if row.converts_here and row.runs_here]
    if not formats:
        pytest.skip("no converter is installed: pip install 'edgecnn[convert]'")
    from tests.builders.networks import TINY  # it is made of torch

    conversion = convert(TINY[task](), out=out, to=formats, **words)
    assert not conversion.refused, conversion.refused


@pytest.fixture(scope="session")
def tiny_bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Task name → a bundle of a tiny network in every format that can be written here; never change it in place."""

    def bundle(task: str) -> Path:
        name = f"{task}.edge"
        folder = made_once(tmp_path_factory, f"tiny-{task}", lambda folder: _convert_tiny(task, folder / name))
        return folder / name

    return bundle


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundles: Callable[[str], Path]) -> Path:
    """The classifier's bundle."""
    return tiny_bundles("classify")


@pytest.fixture(scope="session")
def batch_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The detector, two frames an inference."""
    name = "detect.edge"
    folder = made_once(tmp_path_factory, "tiny-batch", lambda folder: _convert_tiny("detect", folder / name, batch=2))
    return Bundle.open(folder / name)
