"""This machine's CPU: its name, its board, and the number of cores that this process may use."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# 64-bit Arm kernels give no model, only implementer and part. Source: Arm's MIDR_EL1 part numbers, as in
# util-linux, sys-utils/lscpu-arm.c.
_ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD49: "Neoverse-N2",
    0xD4F: "Neoverse-V2",
}
_ARM_LTD = 0x41

# Default mount points of control groups.
_USUAL_V2, _USUAL_V1 = "/sys/fs/cgroup", "/sys/fs/cgroup/cpu"


def default_threads() -> int:
    """Cores that this process may use at once: its affinity and its CPU quota, never the machine's count."""
    quota = cores_quota()
    allowed = len(allowed_cores())
    return allowed if quota is None else min(allowed, max(1, int(quota)))


def allowed_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_quota(root: Path = Path("/")) -> float | None:
    """The CPU time that control groups allow, in cores; None where there is no limit.

    Versions 1 and 2 are supported, this process's own group and all above it: the smallest limit holds.

    Args:
        root: the folder that contains proc and sys.

    Source: cgroups(7); the kernel's admin-guide/cgroup-v2.rst (cpu.max) and scheduler/sched-bwc.rst (cpu.cfs_*).
    """
    quotas = [quota for folder in _own_groups(root) for quota in _quotas(folder)]
    return min(quotas, default=None)


def _quotas(group: Path) -> Iterator[float]:
    """The quota in one group's files; nothing where it cannot be read."""
    whole = _words(group / "cpu.max")
    if len(whole) == 2:
        yield from _quota(whole[0], whole[1])
    quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
    if quota and period:
        yield from _quota(quota[0], period[0])


def _quota(quota: str, period: str) -> Iterator[float]:
    if quota.isdigit() and period.isdigit() and int(quota) and int(period):  # "max" and "-1" mean none
        yield int(quota) / int(period)


def _own_groups(root: Path) -> Iterator[Path]:
    """The folders of this process's groups that may limit its CPU time, with those above them."""
    mounts = _mounts(root)
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, own = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        kind = "cpu" if controllers else ""
        for mounted, place in mounts.get(kind, []):
            # In a container, the mounted group may be far below the root: only its content can be read.
            inside = PurePosixPath(own)
            path = inside.relative_to(mounted) if inside.is_relative_to(mounted) else PurePosixPath()
            parts = [part for part in path.parts if part not in ("/", "..")]
            top = root / place.lstrip("/")
            for depth in range(len(parts), -1, -1):
                yield top.joinpath(*parts[:depth])


def _mounts(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Mount points of control groups: "" (version 2) and "cpu" (version 1) → (the group there, the path)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in _lines(root / "proc/self/mountinfo"):  # Source: proc_pid_mountinfo(5)
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        words = fields.split()
        if len(words) < 5 or kind not in ("cgroup", "cgroup2"):
            continue
        if kind == "cgroup" and "cpu" not in options.split()[-1].split(","):
            continue
        mounted, place = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), word) for word in words[3:5])
        found.setdefault("cpu" if kind == "cgroup" else "", []).append((mounted, place))
    return found or {"": [("/", _USUAL_V2)], "cpu": [("/", _USUAL_V1)]}


def board_model(root: Path = Path("/")) -> str:
    """The board's name from its firmware, such as "Raspberry Pi 4 Model B Rev 1.4"; "" where there is none."""
    return (_text(root / "sys/firmware/devicetree/base/model") or "").strip("\0 \n")


def processor_name() -> str:
    """Name of this machine's CPU; on Arm the kinds of core."""
    text = _text(Path("/proc/cpuinfo"))
    return platform.processor() or platform.machine() if text is None else cpu_model(text)


def cpu_model(cpuinfo: str) -> str:
    """Name of the CPU from the text of /proc/cpuinfo; on Arm the kinds of core, such as "4 x Cortex-A76"."""
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if named:
        return named.group(1).strip()
    implementers = [int(value, 16) for value in re.findall(r"CPU implementer\s*:\s*(0x[0-9a-f]+)", cpuinfo)]
    parts = [int(value, 16) for value in re.findall(r"CPU part\s*:\s*(0x[0-9a-f]+)", cpuinfo)]
    kinds = [
        _ARM_PARTS.get(part, f"Arm part {part:#x}") if maker == _ARM_LTD else f"maker {maker:#x} part {part:#x}"
        for maker, part in zip(implementers, parts, strict=False)
    ]
    if kinds:
        return " + ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    return platform.processor() or platform.machine()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _lines(path: Path) -> list[str]:
    return (_text(path) or "").splitlines()


def _words(path: Path) -> list[str]:
    return (_text(path) or "").split()
