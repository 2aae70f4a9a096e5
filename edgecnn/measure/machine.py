"""Describes the machine that a measurement was made on, and its state.

Everything is read from /proc, /sys and the standard library, so that a bare board can describe itself; a value that
cannot be read is None and never guessed.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from edgecnn.formats import FORMATS
from edgecnn.processor import allowed_cores, board_model, cores_quota, cpu_model
from edgecnn.targets import threads_here

# Instruction sets that decide the speed of convolutions, by the kernel's names.
_FLAGS_THAT_MATTER = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "neon",
    "asimd",
    "fphp",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
    "sme",
)
_PACKAGES = ("numpy", "opencv-python", "opencv-python-headless")  # and those of the runtimes
# `vcgencmd get_throttled`. Source: Raspberry Pi documentation, "vcgencmd", get_throttled.
_THROTTLED_NOW = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the machine's state that changes from second to second.

    Attributes:
        load_1min: runnable tasks, averaged over the last minute.
        frequency_mhz: current frequency of the slowest core that this process may use.
        temperature_c: temperature of the hottest zone that reports one.
        throttled: a Raspberry Pi's throttled bits; 0 means no throttling.
    """

    load_1min: float | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    throttled: int | None = None

    @property
    def throttled_now(self) -> tuple[str, ...]:
        """What slows the board down now, in words."""
        return tuple(word for bit, word in _THROTTLED_NOW.items() if (self.throttled or 0) >> bit & 1)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, and its state before the measurement.

    Attributes:
        cpu_model: name of the CPU; on Arm the kinds of core.
        architecture: "x86_64", "aarch64", …
        cpu_flags: the instruction sets that matter for convolutions.
        virtual: True under a hypervisor.
        board: the model in the device tree ("Raspberry Pi 5 Model B Rev 1.0"); "" where there is none.
        emulated: True if the board says that it is emulated: its answers are real, its speed is not.
        cores_machine: online cores.
        cores_allowed: cores that this process's affinity allows.
        cores_quota: its control group's quota, in cores; None without a quota.
        threads_default: default number of threads per inference.
        governor: governor of frequency scaling.
        frequency_max_mhz: highest frequency that the governor may choose now.
        memory_mb: the machine's memory.
        memory_available_mb: memory available to programs, at the start.
        os, kernel, python: names and versions.
        versions: versions of the installed packages that are used.
        conditions: the state at the start.
    """

    cpu_model: str
    architecture: str
    cpu_flags: tuple[str, ...]
    virtual: bool
    board: str
    emulated: bool
    cores_machine: int
    cores_allowed: int
    cores_quota: float | None
    threads_default: int
    governor: str | None
    frequency_max_mhz: float | None
    memory_mb: float | None
    memory_available_mb: float | None
    os: str
    kernel: str
    python: str
    versions: dict[str, str]
    conditions: Conditions

    @property
    def summary(self) -> str:
        """One line for people."""
        what = self.board or self.cpu_model
        parts = [what if not self.board else f"{what} ({self.cpu_model})"]
        if self.emulated and "emulated" not in what:
            parts[0] += " (emulated)"
        cores = f"{self.cores_allowed} of {self.cores_machine} cores"
        if self.cores_quota is not None:
            cores += f", quota {self.cores_quota:g}"
        parts.append(cores)
        if self.governor:
            parts.append(f"governor {self.governor}")
        if self.conditions.frequency_mhz:
            parts.append(f"{self.conditions.frequency_mhz:.0f} MHz")
        if self.conditions.temperature_c is not None:
            parts.append(f"{self.conditions.temperature_c:.0f} °C")
        if self.conditions.load_1min is not None:
            parts.append(f"load {self.conditions.load_1min:.2f}")
        if self.virtual:
            parts.append("virtual machine")
        return ", ".join(parts)

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for two descriptions of the same machine, whenever they were made."""
        return (self.cpu_model, self.architecture, self.board, self.cores_machine, self.memory_mb)


def describe_machine() -> Machine:
    """Describe this machine in its current state."""
    cpuinfo = _read("/proc/cpuinfo") or ""
    board = board_model()
    flags = cpu_flags(cpuinfo)
    return Machine(
        cpu_model=cpu_model(cpuinfo),
        architecture=platform.machine(),
        cpu_flags=tuple(flag for flag in _FLAGS_THAT_MATTER if flag in flags),
        virtual="hypervisor" in flags,
        board=board,
        emulated="(emulated)" in board.lower(),
        cores_machine=os.cpu_count() or 1,
        cores_allowed=len(allowed_cores()),
        cores_quota=cores_quota(),
        threads_default=threads_here(),
        governor=_read_word(_cpufreq(0) / "scaling_governor"),
        frequency_max_mhz=_slowest_mhz("scaling_max_freq"),
        memory_mb=_memory_mb("MemTotal"),
        memory_available_mb=_memory_mb("MemAvailable"),
        os=_os_name(),
        kernel=platform.release(),
        python=platform.python_version(),
        versions=_versions(),
        conditions=read_conditions(),
    )


def read_conditions() -> Conditions:
    """The machine's state at this moment; takes a few milliseconds on a Raspberry Pi, less elsewhere."""
    return Conditions(
        load_1min=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        frequency_mhz=_slowest_mhz("scaling_cur_freq"),
        temperature_c=_temperature_c(),
        throttled=_throttled(),
    )


class CoreTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Time used by the allowed cores since boot, in seconds, and the time of the reading.

    Attributes:
        busy_s: all programs together, including the kernel's work.
        stolen_s: time that the hypervisor gave to others.
        read_ns: CLOCK_MONOTONIC time.
    """

    busy_s: float
    stolen_s: float
    read_ns: int


def read_core_times() -> CoreTimes | None:
    """Read the cores' counters; None where the system has no /proc/stat."""
    text = _read("/proc/stat")
    return None if text is None else core_times(text, allowed_cores())


def core_times(stat: str, cores: list[int]) -> CoreTimes:
    """Counters of some cores, from the text of /proc/stat.

    Source: proc_stat(5): user nice system idle iowait irq softirq steal, in ticks; guest time is in user time.
    """
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    wanted = {f"cpu{core}" for core in cores}
    busy = stolen = 0
    for line in stat.splitlines():
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(value) for value in fields[:8])
            busy += user + nice + system + irq + softirq
            stolen += steal
    return CoreTimes(busy_s=busy / ticks_per_s, stolen_s=stolen / ticks_per_s, read_ns=time.monotonic_ns())


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """All instruction sets that /proc/cpuinfo names ("flags" on x86, "Features" on Arm)."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(found.group(1).split()) if found else frozenset()


def peak_rss_mb() -> float:
    """Peak resident memory of this process, in MB of 10^6 bytes."""
    # ru_maxrss would be wrong here: a child starts with its parent's value (getrusage(2) keeps it over exec).
    found = re.search(r"^VmHWM:\s*(\d+) kB$", _read("/proc/self/status") or "", re.MULTILINE)
    if found:
        return int(found.group(1)) * 1024 / 1e6
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _read_word(path: Path) -> str | None:
    text = _read(path)
    return text.strip() or None if text is not None else None


def _read_number(path: Path) -> float | None:
    try:
        return float(_read_word(path) or "")
    except ValueError:
        return None


def _cpufreq(core: int) -> Path:
    return Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq")


def _slowest_mhz(name: str) -> float | None:
    values = [_read_number(_cpufreq(core) / name) for core in allowed_cores()]
    known = [value / 1e3 for value in values if value is not None]
    return min(known) if known else None


def _temperature_c() -> float | None:
    zones = [_read_number(zone) for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    if not zones:  # PCs without ACPI zones have sensors
        zones = [_read_number(sensor) for sensor in Path("/sys/class/hwmon").glob("hwmon*/temp*_input")]
    known = [zone / 1e3 for zone in zones if zone is not None]
    return round(max(known), 1) if known else None


def _throttled() -> int | None:
    tool = shutil.which("vcgencmd")
    if tool is None:
        return None
    try:
        answer = subprocess.run([tool, "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
        return int(answer.stdout.partition("=")[2], 16)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _memory_mb(name: str) -> float | None:
    found = re.search(rf"^{name}:\s*(\d+) kB$", _read("/proc/meminfo") or "", re.MULTILINE)
    return round(int(found.group(1)) * 1024 / 1e6) if found else None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)


def _versions() -> dict[str, str]:
    from edgecnn._version import __version__

    found = {"edgecnn": __version__}
    for package in (*_PACKAGES, *(package for row in FORMATS for package in row.runtime.packages)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
