"""Hands items from one thread to the next: of what is live the newest, of what is recorded every one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_WAKE_S = 1.0  # where a wait without an end can't be interrupted (Windows)


class Handover(Generic[Item]):
    """One place for each sender, taken from in turns, so that no sender keeps another's items waiting.

    Args:
        replaces: for each sender, whether a new item takes the place of one that nobody took; else the sender waits.
        on_change: called, by the sender's thread, when there is something to take, or when a sender has ended.

    Attributes:
        replaced: for each sender, items that were never taken.
    """

    def __init__(self, replaces: list[bool], *, on_change: Callable[[], None] | None = None) -> None:
        self._replaces = replaces
        self._on_change = on_change
        self.replaced = [0] * len(replaces)
        self._items: list[Item | None] = [None] * len(replaces)
        self._sending = set(range(len(replaces)))
        self._turn = 0
        self._changed = threading.Condition()

    def put(self, sender: int, item: Item) -> bool:
        """Leave an item; False where nobody will take one any more."""
        with self._changed:
            if self._replaces[sender]:
                self.replaced[sender] += self._items[sender] is not None
            while self._items[sender] is not None and not self._replaces[sender] and sender in self._sending:
                self._changed.wait(_WAKE_S)
            if sender not in self._sending:
                return False
            self._items[sender] = item
            self._changed.notify_all()
        self._tell()
        return True

    def take(self) -> tuple[int, Item] | None:
        """Wait for the next sender's item; None when no more will come."""
        with self._changed:
            while (taken := self._next()) is None and self._sending:
                self._changed.wait(_WAKE_S)
            return taken

    def take_now(self) -> tuple[int, Item] | None:
        """The next sender's item, if there is one; see `ended`."""
        with self._changed:
            return self._next()

    @property
    def ended(self) -> bool:
        """Nothing is there to take, and no more will come."""
        with self._changed:
            return not self._sending and all(item is None for item in self._items)

    def _next(self) -> tuple[int, Item] | None:
        for sender in (*range(self._turn, len(self._items)), *range(self._turn)):
            item = self._items[sender]
            if item is not None:
                self._items[sender] = None
                self._turn = (sender + 1) % len(self._items)
                self._changed.notify_all()
                return sender, item
        return None

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def end(self, sender: int) -> None:
        """Say that this sender has no more; what it left can still be taken."""
        with self._changed:
            self._sending.discard(sender)
            self._changed.notify_all()
        self._tell()

    def stop(self) -> None:
        """Let go of everything: nobody waits any more, and nothing is taken."""
        with self._changed:
            self._sending.clear()
            self._items = [None] * len(self._items)
            self._changed.notify_all()
