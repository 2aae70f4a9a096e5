"""Settings for a live source that becomes silent: how long to wait, and when to give up."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeAlias

from edgecnn.errors import SpecError
from edgecnn.options import CAMERA, Option

# connecting: being opened, or opened without a frame yet. stalled: open, but silent. lost: given up.
CameraState = Literal["connecting", "live", "stalled", "lost"]
STATES: Final = ("connecting", "live", "stalled", "lost")
StateListener: TypeAlias = Callable[[CameraState, str], None]  # called with the new state and the reason


@dataclass(frozen=True, kw_only=True)
class Reconnect:
    """When a camera or stream counts as silent, and how it is opened again.

    Attributes:
        stall_s: time without a frame after which it is opened again.
        first_wait_s: wait after the first failed attempt; doubles with each, up to `longest_wait_s`.
        longest_wait_s: longest wait between two attempts.
        give_up_s: time without a frame, also at the start, after which it is lost and the consumer gets a
            DeviceError; 0 gives up at the first error, None never.
    """

    stall_s: float = 5.0
    first_wait_s: float = 0.1
    longest_wait_s: float = 1.0
    give_up_s: Annotated[
        float | None,
        Option(
            name="give-up-after",
            help="Seconds without a frame after which a camera is given up.",
            default="never",
            group=CAMERA,
        ),
    ] = None

    def __post_init__(self) -> None:
        for name in ("stall_s", "first_wait_s", "longest_wait_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise SpecError(f"{name}: expected positive seconds, got {getattr(self, name)}")
        if self.give_up_s is not None and not 0 <= self.give_up_s < math.inf:
            raise SpecError(f"give_up_s: expected 0 or more seconds, or None for never, got {self.give_up_s}")

    def wait_s(self, attempts: int) -> float:
        """Seconds before the next attempt, after so many failed ones: half of the wait is random.

        This way, a hundred cameras of a restarted server don't all reconnect at once ("equal jitter": M. Brooker,
        Exponential Backoff and Jitter, AWS Architecture Blog, 2015).
        """
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(attempts - 1, 30))
        return longest / 2 + random.uniform(0, longest / 2)
