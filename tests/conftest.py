"""What every test may ask for."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

import edgecnn.runners

if "PYTEST_XDIST_WORKER" in os.environ:  # each has a core, and so have the programs that its tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


settings.register_profile("edgecnn", deadline=None)  # a busy machine is no failure
settings.load_profile("edgecnn")


def pytest_configure() -> None:
    """Let Ctrl-C through to the programs that tests start and stop: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test weights, labelled images and footage beside the repository; skips where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("needs ../shared (weights and labelled images), which is not on this machine")
    return folder


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let packages look as if they were not installed, whatever was imported before; our back ends are forgotten."""

    def hide(*packages: str) -> None:
        loaded = [name for name in list(sys.modules) if name.startswith(tuple(f"{package}." for package in packages))]
        for name in (*packages, *loaded):
            monkeypatch.setitem(sys.modules, name, None)  # import then says that it is not there
        ours = tuple(f"edgecnn.runners.{name}" for name in ("onnxruntime", "openvino", "litert"))
        for name in [name for name in sys.modules if name.startswith(ours)]:
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(edgecnn.runners, name.removeprefix("edgecnn.runners."), raising=False)

    return hide
