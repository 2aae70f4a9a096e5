"""Each process of a test run keeps to cores of its own, and so do the programs that its tests start.

Threads that wait for each other do so by turning on the spot: where two processes have two such threads each on two
cores, training a small network took twelve times the processor time that it takes on one core.
"""

from __future__ import annotations

import os


def keep_to_own_cores() -> None:
    """Take this worker's share of the cores; a run in one process has them all."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", ""), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if not worker or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    number = int(worker.removeprefix("gw"))
    share = cores[number::workers] or [cores[number % len(cores)]]  # of more workers than cores, several share one
    os.sched_setaffinity(0, share)
    os.environ.setdefault("OMP_NUM_THREADS", str(len(share)))


keep_to_own_cores()
