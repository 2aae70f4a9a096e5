"""What a live run is about to do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edgecnn.bundle.evidence import Opened
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.loop.counters import Durations
from edgecnn.runners.runner import Runner


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """Percentiles and mean of one stage, in milliseconds; None where nothing was measured."""

    p50_ms: float | None
    p90_ms: float | None
    mean_ms: float | None

    @classmethod
    def of(cls, durations: Durations) -> StageSummary:
        """What was collected of a stage so far."""
        if durations.count == 0:
            return cls(p50_ms=None, p90_ms=None, mean_ms=None)
        return cls(
            p50_ms=round(durations.percentile_ms(50), 4),
            p90_ms=round(durations.percentile_ms(90), 4),
            mean_ms=round(durations.total_ns / durations.count / 1e6, 4),
        )


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """What is about to run.

    Attributes:
        camera: the open source; of several, a `CameraGroup`.
        runner: the open runner; its format, precision and device are what really runs.
        remarks: what was decided without being asked for.
        page_url: where the live page is, or None.
        page_login_url: the same, with the token where one had to be made; for whoever started the run, for no log.
    """

    camera: Camera
    runner: Runner
    remarks: tuple[str, ...]
    page_url: str | None = None
    page_login_url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did.

    Attributes:
        source: where frames came from, without credentials; of several sources, all names.
        task, format, precision, device_name, runtime, provider, threads: what ran.
        ran_on: proof of that.
        frames: results that were delivered.
        dropped: frames of a live source that were passed over, by where: "camera", "infer" and "deliver" because a
            newer one was there, "late" because they were too old, and each sink's name where it was too slow.
        faults: what failed on the way while the rest went on, once each.
        wall_s: from the first wait for a frame to the end.
        fps: frames per second of wall time.
        stages: by name: capture (wait for a frame), fit, infer, finish (and tracking), deliver (drawing and all sinks).
        age: from capture to the result being handed over.
        ended: why: "end of source", "limit", a sink's reason, or the name of a signal.
        signal: number of the signal that ended it, or None.
        written: files and folders that hold results.
        remarks: what else is to be said ("… ended after 300 of 795 frames").
        unreadable: what of the source could not be read: pictures of a folder that were left out, a damaged video; the
            command line then ends with code 1.
        counts: what lines and zones counted, as in the JSON lines.
    """

    source: str
    task: str
    format: str
    precision: str
    device_name: str
    runtime: str
    provider: str
    threads: int
    ran_on: Opened
    frames: int
    dropped: dict[str, int]
    faults: tuple[str, ...]
    wall_s: float
    fps: float
    stages: dict[str, StageSummary]
    age: StageSummary
    ended: str
    signal: int | None
    written: tuple[str, ...]
    remarks: tuple[str, ...]
    counts: tuple[dict[str, Any], ...] = ()
    unreadable: tuple[str, ...] = ()
