"""Int8 artifacts are timed for a moment only, but in slow tests: what is tested is not how fast this machine is.

As for users, the timing of two artifacts in turns takes ten seconds, or twenty where noise may decide.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from edgecnn.measure import int8_speedup

SHORT = dataclasses.replace(int8_speedup.PROFILE, samples=8, seconds=0.1, rounds=4, warmup_seconds=0.1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """For the fixtures of a test too, whatever their scope."""
    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("slow"):
            patch.setattr(int8_speedup, "PROFILE", SHORT)
        return (yield)
