"""Installs, shows and removes a unit with the system's own programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from edgecnn.atomic import write_whole
from edgecnn.errors import DeviceError, SpecError, StorageError
from edgecnn.runners.live.service.unit import ServiceUnit

UNITS: Final = Path("/etc/systemd/system")
_TIMEOUT_S: Final = 330  # longer than the unit's TimeoutStartSec


def install(unit: ServiceUnit, folder: Path = UNITS) -> Path:
    """Write the unit, and start it now and at each boot; one that is there is replaced and restarted.

    Raises:
        DeviceError: there is no systemd here, or it does not start the service.
        StorageError: the unit can't be written: usually, root is needed.
    """
    _program("systemctl")
    path = folder / unit.file_name
    try:
        write_whole(path, unit.text().encode())
    except (OSError, StorageError) as failed:
        raise StorageError(f"{path} can't be written ({failed}): run it as root, with sudo") from failed
    _systemctl("daemon-reload")
    _systemctl("enable", unit.file_name)
    _systemctl("restart", unit.file_name)
    return path


def remove(name: str, folder: Path = UNITS) -> Path:
    """Stop the service and remove its unit; its recordings in /var/lib stay.

    Raises:
        SpecError: there is no such unit, or edgecnn didn't write it.
        DeviceError, StorageError: as `install`.
    """
    path = folder / f"{name}.service"
    try:
        ours = "edgecnn service install" in path.read_text(encoding="utf-8", errors="replace")
    except OSError as failed:
        raise SpecError(f"no service {name} is installed: {path}: {failed.strerror}") from None
    if not ours:
        raise SpecError(f"{path} was not written by `edgecnn service install`: remove it yourself")
    _systemctl("disable", "--now", path.name)
    try:
        path.unlink()
    except OSError as failed:
        raise StorageError(f"{path} can't be removed: {failed.strerror}: run it as root, with sudo") from failed
    _systemctl("daemon-reload")
    return path


def show(program: str, *arguments: str) -> int:
    """Run systemctl or journalctl for a person; returns its exit code.

    Raises:
        DeviceError: it is not installed.
    """
    return subprocess.run([_program(program), *arguments], check=False).returncode


def _systemctl(*arguments: str) -> None:
    command = [_program("systemctl"), *arguments]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"systemctl {' '.join(arguments)} did not end within {_TIMEOUT_S} s") from None
    if done.returncode:
        why = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise DeviceError(f"systemctl {' '.join(arguments)} failed: {why}; `edgecnn service logs` may say more")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None or os.name != "posix":
        raise DeviceError(f"{name} is not installed: this system has no systemd; --print shows the unit")
    return found
