"""Tiny bundles of every task, converted once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgecnn import Bundle, convert
from edgecnn._photographs import photographs
from edgecnn.errors import MissingDependencyError
from edgecnn.registry import BACKENDS, CONVERTERS
from edgecnn.results import UInt8Array

from .networks import TINY


def require_format(name: str) -> None:
    """Skips, naming the extra, where the format cannot be written or run here."""
    for table in (CONVERTERS, BACKENDS):
        try:
            table.get(name)
        except MissingDependencyError as missing:
            pytest.skip(str(missing))


@pytest.fixture(scope="session")
def photograph() -> UInt8Array:
    """One of the photographs that come with edgecnn."""
    return photographs()["astronaut"]


@pytest.fixture(scope="session")
def tiny_bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Task name → a bundle of a tiny network in every format that can be written here; never change it in place."""
    folder = tmp_path_factory.mktemp("tiny")
    made: dict[str, Path] = {}

    def bundle(task: str) -> Path:
        if task not in made:
            formats = [name for name in CONVERTERS.installed() if name in BACKENDS.installed()]
            if not formats:
                pytest.skip("no converter is installed: pip install 'edgecnn[convert]'")
            conversion = convert(TINY[task](), out=folder / f"{task}.edge", to=formats)
            assert not conversion.refused, conversion.refused
            assert conversion.bundle is not None
            made[task] = conversion.bundle.folder
        return made[task]

    return bundle


@pytest.fixture(scope="session")
def tiny_bundle(tiny_bundles: Callable[[str], Path]) -> Path:
    """The classifier's bundle."""
    return tiny_bundles("classify")


@pytest.fixture(scope="session")
def batch_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The detector, two frames an inference."""
    out = tmp_path_factory.mktemp("batch") / "detect.edge"
    conversion = convert(TINY["detect"](), out=out, to=CONVERTERS.installed(), batch=2)
    assert conversion.bundle is not None
    assert not conversion.refused, conversion.refused
    return conversion.bundle
