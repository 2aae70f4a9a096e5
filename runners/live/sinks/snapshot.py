"""A picture for those who want one when something changes, not a video."""

from __future__ import annotations

import math
import time
from typing import Final

import cv2

from edgecnn.results import Result
from edgecnn.runners.live.sinks import Annotated
from edgecnn.tasks import TASKS

_LONGER_SIDE_PX: Final = 960
_QUALITY: Final = 80
_SOONEST_S, _LATEST_S = 5.0, 60.0


class Snapshot:
    """The annotated picture when what is seen has changed, at most every 5 s, and else once a minute."""

    def __init__(self) -> None:
        self._taken_s = -math.inf
        self._seen: dict[str, float] = {}

    def jpeg_of(self, result: Result, annotated: Annotated) -> bytes | None:
        """A JPEG, if it is time for one; None otherwise."""
        seen, since_s = TASKS.of(result).figures(result), time.monotonic() - self._taken_s
        changed = set(seen.items()) != set(self._seen.items())
        if since_s < (_SOONEST_S if changed else _LATEST_S):
            return None
        self._taken_s, self._seen = time.monotonic(), dict(seen)
        picture = annotated.picture
        height, width = picture.shape[:2]
        factor = _LONGER_SIDE_PX / max(height, width)
        if factor < 1:
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
