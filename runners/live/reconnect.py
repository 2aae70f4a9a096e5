"""What a live source does when it falls silent: how long it waits, and when it gives up."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

from edgecnn.errors import SpecError

# connecting: opened, or being opened, without a frame yet. stalled: open, but silent. lost: given up.
CameraState = Literal["connecting", "live", "stalled", "lost"]


@dataclass(frozen=True, kw_only=True)
class Reconnect:
    """When a camera or stream counts as silent, and how it is opened again.

    Attributes:
        stall_s: without a frame for so long, it is opened again.
        first_wait_s: after the first attempt that failed; doubles with each, up to `longest_wait_s`.
        longest_wait_s: between two attempts.
        give_up_s: without a frame for so long, it is lost, and whoever waits for a frame gets a DeviceError; 0 gives
            up at the first fault, None never.
    """

    stall_s: float = 5.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 1.0
    give_up_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("stall_s", "first_wait_s", "longest_wait_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise SpecError(f"{name} must be positive seconds, got {getattr(self, name)}")
        if self.give_up_s is not None and not 0 <= self.give_up_s < math.inf:
            raise SpecError(f"give_up_s must be 0 or more seconds, or None for never, got {self.give_up_s}")

    def wait_s(self, attempts: int) -> float:
        """Seconds before the next attempt, after so many that failed: the second half of the wait is drawn.

        So that a hundred cameras of a server that restarts don't all come at once ("equal jitter": M. Brooker,
        Exponential Backoff and Jitter, AWS Architecture Blog, 2015).
        """
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempts - 1, 30))
        return longest / 2 + random.uniform(0, longest / 2)
