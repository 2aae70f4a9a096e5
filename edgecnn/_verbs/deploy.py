"""Deploy a bundle to boards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

from edgecnn import options
from edgecnn.flow.boards import OnBoard, Status
from edgecnn.flow.fleet import deploy_in_waves, packed, read_fleet
from edgecnn.options import Option, kinds
from edgecnn.runners.deployed.order import DEFAULT_PLACE, Deployed, Place

_BOARDS = "Boards"
To: TypeAlias = Annotated[
    "str | Path | Sequence[str]",
    Option(
        help="A TOML file with [boards.NAME] tables, or ssh://[user@]host[:port]; repeat an address for several.",
        kind=kinds.TEXT,
        metavar="FILE|URL",
        repeat=True,
        group=_BOARDS,
    ),
]
PlaceThere: TypeAlias = Annotated[
    str, Option(help="The folder of deployed bundles on the board.", metavar="FOLDER", group=_BOARDS)
]
Service: TypeAlias = Annotated[
    str,
    Option(
        help="The systemd service there that runs the bundle: it is told to read its file again.",
        metavar="NAME",
        default="none",
        group=_BOARDS,
    ),
]
PageThere: TypeAlias = Annotated[
    str,
    Option(
        help="That run's page on the board itself, http://127.0.0.1:PORT: it says whether frames flow.",
        metavar="URL",
        default="none",
        group=_BOARDS,
    ),
]
WaitS: TypeAlias = Annotated[
    float, Option(name="wait", help="Seconds until frames must flow with the new version.", group=_BOARDS)
]


def deploy(
    bundle: options.BundleName,
    to: To,
    *,
    format: options.Format = None,  # noqa: A002 - the command line's word
    precision: options.Precision = None,
    trusted_keys: options.TrustedKeys = None,
    place: PlaceThere = DEFAULT_PLACE,
    service: Service = "",
    page: PageThere = "",
    most_latency_ms: Annotated[
        float | None,
        Option(
            name="max-latency",
            help="Refuse it where one inference takes longer, in ms.",
            default="no limit",
            group=_BOARDS,
        ),
    ] = None,
    wave: Annotated[
        int | None, Option(help="Boards at a time, after the first, which goes alone.", default="4", group=_BOARDS)
    ] = None,
    wait_s: WaitS = 60.0,
    status: Status | None = None,
) -> dict[str, OnBoard[Deployed]]:
    """Deploy a bundle to boards: tried there beside the version that runs, then switched to, or not.

    Each board gets what it lacks. There the bundle is verified, opened, compared with how it answers here, and timed;
    then the link PLACE/NAME.edge leads to it, and the run is told. If its frames don't flow, the link leads back. A
    board that refuses the bundle ends the deployment: later waves don't get it. A board that is away is passed over.

    Args:
        bundle: a NAME.edge folder.
        to: a TOML file with boards, or their addresses.
        format, precision: of the artifact that is tried.
        trusted_keys: files of public keys; here and there, only what one of them signed is taken.
        place, service, page: what the file of boards leaves open.
        most_latency_ms: the longest that one inference may take on a board.
        wave: boards at a time.
        wait_s: how long a run may need until its frames flow.
        status: called with a board's address and a progress message, from several threads.

    Returns:
        For each board, by name, its report or its error.

    Raises:
        DataError, SpecError: the file of boards, an address or an option can't be meant.
        BundleError, SignatureError: the bundle is damaged, or not signed by a trusted key.
        MissingDependencyError, DeviceError: it can't be opened here, so there is nothing to compare with.
    """
    fleet = read_fleet(to, Place(place=place, service=service, page=page), wave=wave)
    with packed(bundle, keys=trusted_keys, format=format, precision=precision) as parcel:
        return dict(deploy_in_waves(parcel, fleet, most_latency_ms=most_latency_ms, wait_s=wait_s, status=status))
