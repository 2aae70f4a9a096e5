"""This environment without some of its packages: what a device has where nobody installed them."""

from __future__ import annotations

import sys
import sysconfig
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# For all programs that this environment's Python starts, whatever their search path.
_NO_NETWORK = """
import sys


def refuse(event, arguments):
    if event in ("socket.bind", "socket.connect"):
        opened, address = arguments
        # urllib3 binds to ("::1", 0) when it is imported, to see whether IPv6 is there.
        if opened.family in (2, 10) and tuple(address[:2]) != ("::1", 0):
            raise PermissionError(f"{event} to {address}: there is no network here")


sys.addaudithook(refuse)
"""


def extra(name: str) -> set[str]:
    """The packages that an extra of edgecnn's brings, those of the extras in it too."""
    wanted = set()
    for package, marker in _required_by(_installed()["edgecnn"]):
        if marker is not None and marker.evaluate({"extra": name}):
            wanted.add(package)
    return wanted - {"edgecnn"}


def make_without(folder: Path, packages: Iterable[str], *, network: bool = True) -> Path:
    """Make an environment of what is installed here, but for these packages and all that needs them.

    Packages are linked, not copied. A program that starts there finds neither the packages nor their metadata.

    Args:
        network: whether its programs may bind and connect.

    Returns:
        Its Python.
    """
    installed, gone = _installed(), set(packages)
    while more := {name for name, found in installed.items() if name not in gone and _needs(found, gone)}:
        gone |= more
    names = {file.parts[0] for name in gone if name in installed for file in installed[name].files or ()}
    venv.create(folder, symlinks=True)
    place = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name not in names:
            (place / entry.name).symlink_to(entry)
    if not network:
        (place / "sitecustomize.py").write_text(_NO_NETWORK)
    return folder / "bin" / Path(sys.executable).name


def _installed() -> dict[str, Distribution]:
    return {canonicalize_name(found.metadata["Name"]): found for found in distributions()}


def _required_by(found: Distribution) -> list[tuple[str, Marker | None]]:
    read = [Requirement(text) for text in found.requires or ()]
    return [(canonicalize_name(each.name), each.marker) for each in read]


def _needs(found: Distribution, packages: set[str]) -> bool:
    return any(
        name in packages and (marker is None or marker.evaluate({"extra": ""})) for name, marker in _required_by(found)
    )
