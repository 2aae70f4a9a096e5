"""What tests need is marked, and the marks are true: `pytest -m "not torch"` runs what a device without PyTorch can.

A module that is marked as a whole may import at its top what it is marked by: where that is not installed, it is not
imported, and skipped with the reason. A test that is not marked `server` may not open a connection or wait for one.
"""

from __future__ import annotations

import importlib.util
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Who asks for these fixtures, or for one that asks for them, is marked.
OF_FIXTURES = {"stream_server": "server", "tiny_bundles": "torch", "batch_bundle": "torch"}
MARKERS = ("torch", "runtime", "server", "slow", "device")
_WHOLE = re.compile(r"^pytestmark = (?:\[[^\]]*)?pytest\.mark\.torch\b", re.MULTILINE)
_NO_TORCH = "needs PyTorch and the converters: pip install 'edgecnn[convert]'"
_reached: list[str] = []


class _LeftOut(pytest.Module):
    """A module that cannot be imported here."""

    def collect(self) -> Any:
        pytest.skip(_NO_TORCH, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Modules that are marked `torch` are not imported where there is none."""
    if importlib.util.find_spec("torch") is None and _WHOLE.search(module_path.read_text(encoding="utf-8")):
        return _LeftOut.from_parent(parent, path=module_path)
    return None


def mark_by_fixtures(items: list[pytest.Item]) -> None:
    """Mark tests by what their fixtures need."""
    for item in items:
        for fixture, mark in OF_FIXTURES.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that are marked `torch` one by one are skipped where there is none."""
    if item.get_closest_marker("torch") and importlib.util.find_spec("torch") is None:
        pytest.skip(_NO_TORCH)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that opens a connection, or waits for one, is marked `server`."""
    _reached.clear()
    yield
    # Slow tests are not chosen by this mark: many of them run whole programs that talk to each other.
    if _reached and not any(map(item.get_closest_marker, ("server", "slow", "device"))):
        pytest.fail(f"talks to {_reached[0]} and is not marked `server`", pytrace=False)


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """Connections of the main thread: others may be of a test that has ended."""
    if event in ("socket.bind", "socket.connect") and threading.current_thread() is threading.main_thread():
        opened, address = arguments
        # urllib3 binds to ("::1", 0) when it is imported, to see whether IPv6 is there.
        if opened.family in (socket.AF_INET, socket.AF_INET6) and tuple(address[:2]) != ("::1", 0):
            _reached.append(str(address))


sys.addaudithook(_note)
