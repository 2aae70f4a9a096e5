"""The state of boards to which a bundle was deployed, and the way back."""

from __future__ import annotations

from typing import Annotated, Literal

from edgecnn._verbs.deploy import PageThere, PlaceThere, Service, To, WaitS
from edgecnn.errors import UnknownNameError
from edgecnn.flow.boards import OnBoard, Status
from edgecnn.flow.fleet import ask_fleet, read_fleet
from edgecnn.options import Option, kinds
from edgecnn.runners.deployed.order import DEFAULT_PLACE, Deployed, Place

_ACTIONS = ("status", "history", "rollback")


def fleet(
    action: Annotated[
        str,
        Option(
            help="status, history, or rollback: to the version that ran before.",
            kind=kinds.one_of(*_ACTIONS),
            metavar="ACTION",
            positional=True,
        ),
    ],
    name: Annotated[
        str, Option(help="The deployed bundle's name, such as street.edge.", positional=True, metavar="NAME.edge")
    ],
    to: To,
    *,
    place: PlaceThere = DEFAULT_PLACE,
    service: Service = "",
    page: PageThere = "",
    wait_s: WaitS = 60.0,
    status: Status | None = None,
) -> dict[str, OnBoard[Deployed]]:
    """Ask boards which version of a bundle they run and how it goes, or let them go back to the version before.

    Args:
        action: "status" and "history" change nothing; "rollback" switches as a deployment does.
        name: of the deployed bundle.
        to: a TOML file with boards, or their addresses.
        place, service, page, wait_s, status: as for `deploy`.

    Returns:
        For each board, by name, its report or its error.

    Raises:
        DataError, SpecError: the file of boards, an address or an option can't be meant.
    """
    if action not in _ACTIONS:
        raise UnknownNameError("action", action, _ACTIONS)
    boards = read_fleet(to, Place(place=place, service=service, page=page))
    do: Literal["rollback", "status"] = "rollback" if action == "rollback" else "status"
    return dict(ask_fleet(do, name, boards, wait_s=wait_s, status=status))
