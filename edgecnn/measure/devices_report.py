"""The report of `devices`: a machine's hardware and runtimes."""

from __future__ import annotations

import contextlib
from importlib.metadata import PackageNotFoundError, version

import msgspec

from edgecnn.formats import Runtime
from edgecnn.measure.device_trials import DeviceTrial
from edgecnn.measure.hardware import Hardware
from edgecnn.measure.machine import Machine
from edgecnn.runners.live.cameras.kind import FoundCamera


class RuntimeFound(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime, installed or not.

    Attributes:
        name: name of a format's runtime, or "torch".
        packages: package → version of the installed ones.
        providers: its own names of the providers available here.
        install: how to install it, where it is not installed.
    """

    name: str
    packages: dict[str, str]
    providers: tuple[str, ...] = ()
    install: str = ""


class DevicesReport(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's hardware, runtimes and devices.

    Attributes:
        machine: the CPU, its instruction sets, the board and its state.
        hardware: GPUs and NPUs that the system sees, usable or not.
        vulkan: GPUs that Vulkan sees: name → type; "software" is a program and not hardware.
        runtimes: all runtimes that edgecnn knows.
        trials: each runtime on each kind of device that it knows.
        cameras: sources of each kind that were found here; nothing is opened.
        video: how video is read ("reads") and recorded ("records") here, in words.
    """

    machine: Machine
    hardware: tuple[Hardware, ...]
    vulkan: dict[str, str]
    runtimes: tuple[RuntimeFound, ...]
    trials: tuple[DeviceTrial, ...]
    cameras: tuple[FoundCamera, ...] = ()
    video: dict[str, str] = {}


def find_runtime(runtime: Runtime, providers: tuple[str, ...] = ()) -> RuntimeFound:
    """The installed packages of a runtime; `providers` are its own names of the providers available here."""
    packages = {}
    for package in runtime.packages:
        with contextlib.suppress(PackageNotFoundError):
            packages[package] = version(package)
    return RuntimeFound(
        name=runtime.name,
        packages=packages,
        providers=providers,
        install="" if packages else runtime.how_to_install,
    )
