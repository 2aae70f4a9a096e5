"""A network that several cameras share goes round."""

from __future__ import annotations

import threading
import time

from edgecnn.runners.turns import Turns


def test_who_waits_gets_it_before_who_had_it_last() -> None:
    turns, order = Turns(), list[str]()
    with turns:
        others: list[threading.Thread] = []
        for name in ("first", "second"):
            thread = threading.Thread(target=_take, args=(turns, name, order))
            thread.start()
            while len(turns) < len(others) + 1:
                time.sleep(0.001)
            others.append(thread)
    with turns:  # asked for after those two
        order.append("again")
    for thread in others:
        thread.join()
    assert order == ["first", "second", "again"]


def _take(turns: Turns, name: str, order: list[str]) -> None:
    with turns:
        order.append(name)


def test_two_are_never_in_it_at_once() -> None:
    turns, inside, seen = Turns(), [0], list[int]()

    def work() -> None:
        for _ in range(300):
            with turns:
                inside[0] += 1
                seen.append(inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 1200
