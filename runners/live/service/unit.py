"""The systemd unit of a file of cameras: a user of its own, no privileges, restarted and watched.

Options are those of systemd.exec(5) and systemd.service(5), version 247 (Debian 11) and newer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgecnn.errors import SpecError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# Not MemoryDenyWriteExecute: OpenVINO and XNNPACK compile kernels while they run. Not PrivateDevices: cameras.
_HARDENING: Final[Mapping[str, str]] = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "PrivateTmp": "yes",
    "DevicePolicy": "closed",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "LockPersonality": "yes",
    "RemoveIPC": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
    "SystemCallErrorNumber": "EPERM",
    "UMask": "0027",
}
# Cameras, their encoders and decoders, and the GPU; ProtectClock would otherwise close them all.
_DEVICES: Final = ("char-video4linux", "char-media", "char-drm", "char-accel")
_HOMES: Final = ("/home", "/root", "/run/user")


@dataclass(frozen=True, kw_only=True)
class ServiceUnit:
    """A service that runs a file of cameras.

    Attributes:
        name: the service's name; also of its folder for state, /var/lib/NAME, where relative paths are.
        config: the file, an absolute path.
        python: the interpreter that has edgecnn.
        user: who it runs as; "" for a user that systemd makes up (DynamicUser).
        writable: absolute folders that it writes to, besides its own.
        secrets: by name, files that only root can read; the service sees them as file:$CREDENTIALS_DIRECTORY/NAME.

    Raises:
        SpecError: a name, a user or a path that can't stand in a unit.
    """

    name: str
    config: Path
    python: Path
    user: str = ""
    writable: Sequence[Path] = ()
    secrets: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SpecError(f"a service's name has letters, digits, . _ and - only, at most 64; got {self.name!r}")
        if self.user and not _USER.fullmatch(self.user):
            raise SpecError(f"{self.user!r} is not the name of a user")
        for path in (self.config, self.python, *self.writable, *self.secrets.values()):
            if not path.is_absolute() or re.search(r"[\x00-\x1f\"'\\]", str(path)):
                raise SpecError(f"{str(path)!r} can't stand in a unit: expected an absolute path without quotes")
        for name in self.secrets:
            if not _NAME.fullmatch(name):
                raise SpecError(f"a secret's name has letters, digits, . _ and - only; got {name!r}")

    @property
    def file_name(self) -> str:
        """Of the unit."""
        return f"{self.name}.service"

    def text(self) -> str:
        """The unit."""
        sections = {
            "Unit": {
                "Description": f"edgecnn: cameras of {self.config.name}".replace("%", "%%"),
                "Documentation": "man:systemd.service(5)",
                "Wants": "network-online.target",
                "After": "network-online.target",
                "StartLimitIntervalSec": "0",
            },
            "Service": {},
            "Install": {"WantedBy": "multi-user.target"},
        }
        lines = ["# Written by `edgecnn service install`; change with `systemctl edit`."]
        for section, options in sections.items():
            pairs = self._service() if section == "Service" else iter(options.items())
            lines += ["", f"[{section}]", *(f"{key}={value}" for key, value in pairs)]
        return "\n".join(lines).replace("\n\n[Unit]", "\n[Unit]", 1) + "\n"

    def _service(self) -> Iterator[tuple[str, str]]:
        yield "Type", "notify"
        yield "NotifyAccess", "main"
        yield "ExecStart", f"{_word(self.python)} -m edgecnn run --config {_word(self.config)}"
        yield "ExecReload", "/bin/kill -HUP $MAINPID"
        yield "Restart", "on-failure"
        yield "RestartSec", "1"
        # Ended by SIGTERM: 143. A wrong file: 2, which another attempt would not mend.
        yield "SuccessExitStatus", "143"
        yield "RestartPreventExitStatus", "2"
        yield "TimeoutStartSec", "300"
        yield "TimeoutStopSec", "5"
        yield "WatchdogSec", "60"
        yield from (("User", self.user),) if self.user else (("DynamicUser", "yes"),)
        yield "SupplementaryGroups", "video"
        yield "StateDirectory", self.name
        yield "CacheDirectory", self.name
        yield "WorkingDirectory", f"%S/{self.name}"
        yield "Environment", f"HOME=%S/{self.name} XDG_CACHE_HOME=%C/{self.name} PYTHONUNBUFFERED=1"
        yield "EnvironmentFile", f"-/etc/edgecnn/{self.name}.env"
        for name, path in self.secrets.items():
            yield "LoadCredential", f"{name}:{_escaped(path)}"
        for folder in dict.fromkeys(self.writable):
            yield "ReadWritePaths", _word(folder)
        yield "ProtectHome", "read-only" if self._reads_homes else "yes"
        yield from _HARDENING.items()
        for device in _DEVICES:
            yield "DeviceAllow", f"{device} rw"

    @property
    def _reads_homes(self) -> bool:
        paths = (self.config, self.python, *self.writable)
        return any(str(path).startswith(f"{home}/") for path in paths for home in _HOMES)


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%").replace("$", "$$")


def _word(path: Path) -> str:
    """A path as one word of a unit."""
    text = _escaped(path)
    return f'"{text}"' if " " in text else text
