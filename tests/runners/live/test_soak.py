"""A minute of `benchmarks/soak.py`: what a run holds stays as it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.builders.repository import REPOSITORY

pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgecnn[live]'")


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_minute_at_full_rate_leaves_memory_threads_and_descriptors_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    from benchmarks.soak import allocated_kb, soak

    if allocated_kb() is None:
        pytest.skip("asks glibc what is allocated")
    result = soak("default-detector", minutes=1.2, warmup_s=15, every_s=1)
    assert result["faults"] == () and result["frames"] > 50 and result["metrics_fetched"] > 10
    said = {name: value for name, value in result.items() if name != "readings"}
    # How many frames are under way goes up and down by four (0.9 MB each): a picture or a result that is kept, a thread
    # or a descriptor that a request leaves, comes to more than this. The readings themselves are some 500 blocks.
    assert result["second_half_less_first_mb"] < 2, said
    assert result["second_half_less_first_python_blocks"] < 2000, said
    for name, most in (("threads", 3), ("descriptors", 8)):
        least_held, most_held = result[name]
        assert most_held - least_held <= most, (name, said)
    first, last = result["cpu_ms_per_frame"]
    assert last < 1.5 * first, "a frame costs more and more"
