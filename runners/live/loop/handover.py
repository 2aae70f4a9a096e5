"""Hands items from one thread to another: the newest of a live source, every one of a recording."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_WAKE_S = 1.0  # where a wait without a timeout can't be interrupted (Windows)


class Handover(Generic[Item]):
    """One slot for each sender, emptied in turn, so that no sender delays another's items.

    Args:
        replaces: for each sender, whether a new item replaces one that was not taken; otherwise the sender waits.
        on_change: called in the sender's thread when there is something to take, or when a sender has ended.

    Attributes:
        replaced: for each sender, the number of items that were never taken.
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
        """Put an item into the slot; False if no items are taken any more."""
        with self._changed:
            if self._replaces[sender]:
                self.replaced[sender] += self._items[sender] is not None
            while self._items[sender] is not None and not self._replaces[sender] and sender in self._sending:
                self._changed.wait(_WAKE_S)
            if sender not in self._sending:
                return False
            self._items[sender] = item
            self._changed.notify_all()
        self._notify()
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
        """Whether nothing is left to take, and no more will come."""
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

    def _notify(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def end(self, sender: int) -> None:
        """The sender has no more items; its last one can still be taken."""
        with self._changed:
            self._sending.discard(sender)
            self._changed.notify_all()
        self._notify()

    def stop(self) -> None:
        """Stop: nobody waits any more, and nothing is taken."""
        with self._changed:
            self._sending.clear()
            self._items = [None] * len(self._items)
            self._changed.notify_all()
