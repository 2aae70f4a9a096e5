"""What a board is asked to do with a deployed bundle, and what it reports."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from edgecnn.errors import SpecError
from edgecnn.runners.deployed.health import Health
from edgecnn.runners.deployed.slots import Change

SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
PAGE: Final = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\]):\d{1,5}")
DEFAULT_PLACE: Final = "~/edgecnn-bundles"


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a bundle runs on a board.

    Attributes:
        place: the folder of deployed bundles; "~" is the login's home.
        service: the systemd service that runs it, which is told to read its file again; "" for none.
        page: the page of that run on the board itself, such as "http://127.0.0.1:8088", which says whether frames flow;
            "" for none.
    """

    place: str = DEFAULT_PLACE
    service: str = ""
    page: str = ""

    def check(self) -> None:
        """Refuse what can't be meant.

        Raises:
            SpecError: not an absolute folder, not the name of a service, not a page of the board itself.
        """
        if not re.fullmatch(r"[/~][^\0\n]*", self.place):
            raise SpecError(f"place must be an absolute path on the board, or begin with ~/; got {self.place!r}")
        if self.service and not SERVICE.fullmatch(self.service):
            raise SpecError(f"service must be the name of a systemd service; got {self.service!r}")
        if self.page and not PAGE.fullmatch(self.page):
            raise SpecError(f"page must be http://127.0.0.1:PORT, on the board itself; got {self.page!r}")


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the board is to do.

    Attributes:
        do: "deploy", "rollback" or "status".
        name: of the deployed bundle.
        where: as given.
        bundle, reference: of a deployment: paths of what was sent.
        keys: paths of the trusted public keys; without any, signatures are not looked at.
        format, precision: the artifact that is tried.
        most_latency_ms: the longest that one inference may take; None for no limit.
        wait_s: how long the run may need until its frames flow again.
    """

    do: Literal["deploy", "rollback", "status"]
    name: str
    where: Place = Place()
    bundle: str = ""
    reference: str = ""
    keys: tuple[str, ...] = ()
    format: str | None = None
    precision: str | None = None
    most_latency_ms: float | None = None
    wait_s: float = 60.0


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """A board's report.

    Attributes:
        outcome: "deployed", "unchanged" (it ran already), "rolled back" (by itself or asked for), or "status".
        why: of a roll-back by itself.
        slot, release: the version that runs now.
        previous: the version that a roll-back would bring back.
        health: of the trial; None where there was none.
        state, rate_fps, age_ms: of the run, as its page says; "" and None where there is no page or no answer.
        temperature_c: of the hottest zone that reports one.
        history: the newest changes, the oldest first.
    """

    outcome: Literal["deployed", "unchanged", "rolled back", "status"]
    why: str = ""
    slot: str = ""
    release: int = 0
    previous: str = ""
    health: Health | None = None
    state: str = ""
    rate_fps: float | None = None
    age_ms: float | None = None
    temperature_c: float | None = None
    history: tuple[Change, ...] = ()
