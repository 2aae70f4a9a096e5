"""Finds the Python packages that a board still needs, and fetches their wheels here: the board needs no network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.errors import BoardError, MissingDependencyError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# One module, several packages; a board without a screen needs the one without libGL.
_OPENCV = "opencv-python"
_OPENCV_FOR_BOARDS = "opencv-python-headless"
_OPENCV_KINDS = (_OPENCV_FOR_BOARDS, _OPENCV, "opencv-contrib-python", "opencv-contrib-python-headless")
_OLDEST_GLIBC = 17  # 2.17: manylinux2014
_32_BIT = ("armv6l", "armv7l", "armv8l", "i686", "i386")


def needed(extras: Iterable[str], *, only: Mapping[str, frozenset[str]] | None = None) -> list[Requirement]:
    """The requirements of edgecnn with these extras.

    Args:
        extras: as in `edgecnn[onnx]`.
        only: extra → the packages of it that are needed; by default, all.

    Raises:
        MissingDependencyError: `packaging` is not installed here.
    """
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("--on", "packaging", extra="remote") from missing
    extras = list(extras)
    wanted = []
    for text in requires("edgecnn") or []:
        requirement = Requirement(text)
        if requirement.marker is None:
            wanted.append(requirement)
            continue
        for extra in extras:
            if requirement.marker.evaluate({"extra": extra}) and not requirement.marker.evaluate({"extra": ""}):
                names = (only or {}).get(extra)
                if names is None or requirement.name in names:
                    wanted.append(requirement)
    return wanted


def missing_on(board: Mapping[str, str], wanted: Iterable[Requirement]) -> list[str]:
    """Requirements that the board's own packages (name → version) don't satisfy, in pip's form."""
    missing = []
    for requirement in wanted:
        is_opencv = requirement.name == _OPENCV
        names = _OPENCV_KINDS if is_opencv else (_normal(requirement.name),)
        if any(name in board and requirement.specifier.contains(board[name], prereleases=True) for name in names):
            continue
        name = _OPENCV_FOR_BOARDS if is_opencv else requirement.name
        missing.append(f"{name}{requirement.specifier}")
    return sorted(set(missing))


def platform_tags(platform: str, libc: str) -> list[str]:
    """The tags of wheels that run on a board, from its Python's description of itself.

    Args:
        platform: sysconfig.get_platform(), as "linux-aarch64".
        libc: the C library's name and version, as "glibc 2.36".

    Raises:
        BoardError: a 32-bit system, one without glibc, or not Linux.
    """
    system, _, machine = platform.partition("-")
    if system != "linux":
        raise BoardError(f"it runs {platform}, but boards must run Linux")
    if machine in _32_BIT:
        raise BoardError(
            f"its system is 32-bit ({machine}), for which no runtime has wheels: install the 64-bit system "
            "(Raspberry Pi OS 64-bit runs on Pi 3, 4, 5 and Zero 2)"
        )
    name, _, version = libc.partition(" ")
    minor = version.partition(".")[2]
    minor = minor.partition(".")[0]
    if name != "glibc" or not re.fullmatch(r"[0-9]{1,2}", minor) or int(minor) < _OLDEST_GLIBC:
        raise BoardError(f"its C library is {libc or 'not glibc'}, but the runtimes' wheels need glibc 2.17 or newer")
    newest_first = range(int(minor), _OLDEST_GLIBC - 1, -1)
    return [*(f"manylinux_2_{n}_{machine}" for n in newest_first), f"manylinux2014_{machine}", f"linux_{machine}"]


def fetch_wheels(
    missing: list[str], *, into: Path, python: str, tags: list[str], board: Mapping[str, str]
) -> list[Path]:
    """Wheels, for the board's Python and system, of the missing packages and their dependencies.

    Args:
        missing: as from `missing_on`.
        into: a folder for the wheels.
        python: the board's version.
        tags: as from `platform_tags`.
        board: packages on the board; their versions are kept where possible, and they are not sent.

    Raises:
        BoardError: a package has no wheel for it, or pip is missing here or fails.
    """
    pins = into / "there.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in board.items() if _is_pin(name, version)))
    kept = _download(missing, into / "wheels", python, tags, ["--constraint", str(pins)])
    if kept.returncode and "conflict" in kept.stderr:
        kept = _download(missing, into / "wheels", python, tags, [])
    if kept.returncode:
        raise BoardError(_why(kept.stderr, missing, python, tags))
    return [wheel for wheel in sorted((into / "wheels").glob("*.whl")) if not _is_there(wheel, board)]


def _download(
    missing: list[str], into: Path, python: str, tags: list[str], more: list[str]
) -> subprocess.CompletedProcess[str]:
    minor = ".".join(python.split(".")[:2])
    abi = f"cp{minor.replace('.', '')}"
    # pip evaluates markers (python_version, platform_machine) for this Python, not for the board's; our requirements
    # have none that differ.
    which = ["--python-version", minor, "--implementation", "cp", "--abi", abi, "--abi", "abi3", "--abi", "none"]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    return subprocess.run(
        [*command, "--only-binary", ":all:", "--dest", str(into), *which, *platforms, *more, "--", *missing],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _why(output: str, missing: list[str], python: str, tags: list[str]) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or lines[-1:]
    if any("No module named pip" in line for line in lines):
        return "its packages are fetched with pip, which is missing here: python -m ensurepip"
    absent = [line for line in errors if line.startswith("No matching distribution found for ")]
    if absent:
        name = absent[0].removeprefix("No matching distribution found for ").split(" ")[0]
        machine = tags[-1].removeprefix("linux_")
        return f"there is no wheel of {name} for Python {python} on {machine} ({tags[0]} and older)"
    return f"its packages ({', '.join(missing)}) cannot be fetched: {errors[0] if errors else 'no message from pip'}"


def _is_pin(name: str, version: str) -> bool:
    """Whether name and version form one valid line of a constraints file: they come from a board."""
    return bool(re.fullmatch(r"[a-z0-9][a-z0-9-]*", name)) and all(
        part.isascii() and part.isalnum() for part in version.split(".")
    )


def _is_there(wheel: Path, board: Mapping[str, str]) -> bool:
    name, version = wheel.name.split("-")[:2]
    return board.get(_normal(name)) == version


def _normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
