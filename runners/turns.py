"""A lock that is taken in the order in which it was asked for."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock for several threads that all want it again and again: nobody gets a second turn before the others' first.

    A `threading.Lock` may go to the same thread each time, so that one camera of a shared network would starve the
    others.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()  # released by the one before
        except BaseException:  # a signal's handler raised: the turn is given up, or passed on if it has just come
            with self._guard:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    raise
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
