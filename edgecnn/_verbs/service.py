"""Run a file of cameras as a service of the system."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from edgecnn._verbs.run_site import checked_plan
from edgecnn.errors import SpecError
from edgecnn.options import Option, kinds
from edgecnn.runners.live.service import systemd
from edgecnn.runners.live.service.unit import ServiceUnit

Name = Annotated[str, Option(help="The service's name.", metavar="NAME")]


def service(
    action: Annotated[
        str,
        Option(
            help="install, status, logs or remove.",
            kind=kinds.one_of("install", "status", "logs", "remove"),
            metavar="ACTION",
            positional=True,
        ),
    ],
    *,
    cameras: Annotated[
        Path | None,
        Option(
            help="For install: a file with [cameras.NAME] tables.",
            kind=kinds.PATH,
            positional=True,
            metavar="FILE.toml",
        ),
    ] = None,
    name: Name = "edgecnn",
    user: Annotated[str, Option(help="Run as this user.", metavar="USER", default="one that systemd makes up")] = "",
    secrets: Annotated[
        Sequence[str],
        Option(
            name="secret",
            help="A file for root only, which the service reads as file:$CREDENTIALS_DIRECTORY/NAME.",
            metavar="NAME=PATH",
            repeat=True,
            kind=kinds.TEXT,
        ),
    ] = (),
    follow: Annotated[bool, Option(help="For logs: go on printing new lines.")] = False,
    units: Path = systemd.UNITS,
) -> int:
    """Install, show or remove a systemd service that runs a file of cameras.

    Args:
        action: "install" writes the unit and starts it; "status" and "logs" show it; "remove" stops and removes it.
        cameras: the file; checked first.
        name, user, secrets: as for `ServiceUnit`.
        follow: for "logs".
        units: the folder for units.

    Returns:
        0, or the exit code of systemctl or journalctl.

    Raises:
        DataError, SpecError: the file is wrong, or a name that can't be.
        DeviceError: there is no systemd, or it refuses.
        StorageError: the unit can't be written: usually, root is needed.
    """
    if action == "status":
        return systemd.show("systemctl", "status", "--no-pager", f"{name}.service")
    if action == "logs":
        return systemd.show(
            "journalctl", "-u", f"{name}.service", "-n", "200", "-o", "cat", *(["--follow"] if follow else [])
        )
    if action == "remove":
        systemd.remove(name, units)
    else:
        systemd.install(service_unit(cameras, name=name, user=user, secrets=secrets), units)
    return 0


def service_unit(cameras: Path | None, *, name: str, user: str = "", secrets: Sequence[str] = ()) -> ServiceUnit:
    """The unit for a file of cameras.

    Raises:
        DataError, SpecError: as `service`.
    """
    if cameras is None:
        raise SpecError("give the file of cameras: edgecnn service install street.toml")
    pairs = dict(text.partition("=")[::2] for text in secrets)
    plan = checked_plan(cameras)
    written = [path for camera in plan.cameras for path in camera.sinks.paths("file", "folder").values()]
    return ServiceUnit(
        name=name,
        config=cameras.resolve(),
        python=Path(sys.executable),
        user=user,
        writable=[path.parent for path in written if path.is_absolute()],
        secrets={key: Path(path) for key, path in pairs.items()},
    )
