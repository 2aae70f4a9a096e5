"""Deploys a bundle on the board that this runs on: tried beside the one that runs, then switched to, or not.

Started there as `python -m edgecnn.flow.deployed ORDER REPORT` (see `edgecnn.flow.fleet`), apart from the connection: a
link that is lost for a moment doesn't end it. Where nobody asks for it any more, it is told to stop (SIGTERM).
"""

from __future__ import annotations

import hashlib
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final, Literal

import msgspec

from edgecnn.atomic import write_whole
from edgecnn.bundle import MANIFEST
from edgecnn.errors import DeviceError, EdgeCnnError, Fault, SpecError
from edgecnn.measure.machine import describe_machine
from edgecnn.runners.deployed.health import Health, check_health
from edgecnn.runners.deployed.order import Deployed, Order
from edgecnn.runners.deployed.running import RunHere
from edgecnn.runners.deployed.slots import Slots
from edgecnn.runners.runner import open_runner

_SHOWN: Final = 20  # lines of history
_VERSION_DIGITS: Final = 12  # of a manifest's hash, as a site's page says it


class Stopped(BaseException):
    """The board was told to give the deployment up."""


def carry_out(order: Order) -> Deployed:
    """Do what was asked, and report.

    A new version is opened, compared and timed beside the one that runs; only then it is written to a slot, and the
    link changes. If the run's frames don't flow with it, the link changes back. What ends this at any moment leaves
    the old version or the new one.

    Raises:
        SignatureError, BundleError, ParityError, SpeedError, DeviceError: refused here; the old one runs on.
        SpecError: there is nothing to roll back to, or the order can't be meant.
        StorageError: the disk is full; the old one runs on.
    """
    order.where.check()
    slots = Slots(Path(order.where.place).expanduser(), order.name)
    if order.do == "status":
        return _report(slots, order, "status")
    if order.do == "rollback":
        if not slots.previous:
            raise SpecError(f"there is no earlier version of {order.name} to go back to")
        return _switched(slots, order, slots.previous, "rolled back")
    health = _trial(order)
    with slots.changing():
        slot = slots.add(Path(order.bundle))
    if slot == slots.current:
        return _report(slots, order, "unchanged", health=health)
    return _switched(slots, order, slot, "deployed", health=health)


def _trial(order: Order) -> Health:
    """Open, compare, and time the bundle as it was sent; that it ran is not remembered."""
    runner = open_runner(
        order.bundle,
        format=order.format,
        precision=order.precision,
        trusted_keys=list(order.keys) or None,
        remember_release=False,
    )
    try:
        return check_health(runner, Path(order.reference).read_bytes(), most_latency_ms=order.most_latency_ms)
    finally:
        runner.close()


def _switched(
    slots: Slots, order: Order, slot: str, what: Literal["deployed", "rolled back"], *, health: Health | None = None
) -> Deployed:
    """Let a version run, and go back to the one before if its frames don't flow."""
    run, before = RunHere(order.where), slots.current
    with slots.changing():
        slots.switch(slot, what=what)
    why = ""
    try:
        run.reload()
        why = run.why_not(_version(slots.link), wait_s=order.wait_s)
    except DeviceError as failed:
        why = str(failed)
    except Stopped:
        why = "it was stopped before its frames flowed"
    if not why:
        return _report(slots, order, what, health=health)
    if not before:
        raise DeviceError(f"{order.name} is in its place, the first version there, but {why}")
    with slots.changing():
        slots.switch(before, what="rolled back", why=why)
    try:
        run.reload()
    except DeviceError as failed:
        why = f"{why}; and after going back: {failed}"
    return _report(slots, order, "rolled back", why=why, health=health)


def _version(link: Path) -> str:
    return hashlib.sha256((link / MANIFEST).read_bytes()).hexdigest()[:_VERSION_DIGITS]


def _report(
    slots: Slots,
    order: Order,
    outcome: Literal["deployed", "unchanged", "rolled back", "status"],
    *,
    why: str = "",
    health: Health | None = None,
) -> Deployed:
    state = RunHere(order.where).state()
    return Deployed(
        outcome=outcome,
        why=why,
        slot=slots.current,
        release=slots.release(slots.current),
        previous=slots.previous,
        health=health,
        state=state.state if state else "",
        rate_fps=state.rate_fps if state else None,
        age_ms=state.age_ms if state else None,
        temperature_c=describe_machine().conditions.temperature_c,
        history=tuple(slots.history()[-_SHOWN:]),
    )


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def main(order_path: str, report_path: str) -> int:
    """Carry out the order in a file; returns the exit code, and prints an error as the command line does."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        order = msgspec.json.decode(Path(order_path).read_bytes(), type=Order)
        report = carry_out(order)
        write_whole(Path(report_path), msgspec.json.encode(report))
        return 0
    except Stopped:
        return 128 + signal.SIGTERM
    except (EdgeCnnError, OSError, msgspec.DecodeError) as failed:
        fault = Fault.of(failed)
        sys.stderr.write(f"{fault.kind}: {fault.reason}\n")
        return fault.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
