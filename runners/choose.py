"""Chooses which of a bundle's artifacts runs; the same rule holds for opening, measuring and sending them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgecnn.bundle import PRECISIONS, QUANTIZED, Artifact, Bundle, Manifest
from edgecnn.errors import BundleError, DeviceError, EdgeCnnError, MissingDependencyError, PluginError, SpecError
from edgecnn.formats import FORMATS, Format, format_of_runtime, no_runtime, rank
from edgecnn.formats.devices import DeviceName, parse_device
from edgecnn.processor import processor_name
from edgecnn.runners.backend import absent_device
from edgecnn.targets import in_order_here


@dataclass(frozen=True)
class Choice:
    """An artifact, and the precision and device to run it with.

    Attributes:
        artifact: an artifact of the bundle.
        precision: the precision to run it in.
        device: the device to run it on.
    """

    artifact: Artifact
    precision: str
    device: DeviceName


@dataclass(frozen=True)
class FittingArtifacts:
    """The artifacts of a bundle that fit a request.

    Attributes:
        fitting: artifacts that can be tried here, in the bundle's order.
        without_device: artifacts that fit, but whose runtimes have no such device here.
        left_out: format → why none of its artifacts is in `fitting`.
    """

    fitting: tuple[Choice, ...]
    without_device: tuple[Choice, ...] = ()
    left_out: Mapping[str, EdgeCnnError] = field(default_factory=dict)


def choose_artifact(
    bundle: Bundle,
    *,
    device: str | DeviceName = "cpu",
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    here: bool = True,
) -> Choice:
    """The artifact that fits a request, and how to run it; nothing is opened.

    Among several formats, the first in the order of preference is chosen; among its artifacts, the one compiled for the
    device, otherwise the most exact. "auto" chooses int8 if it was measured on this CPU to be accurate and faster.

    Args:
        bundle: an open bundle.
        device, format, precision: as for `open_runner`.
        here: True to run on this machine; False for a machine with every runtime and device.

    Raises:
        UnknownNameError, SpecError: no such device or format, or the two contradict each other.
        MissingDependencyError, PluginError: a needed package is not installed or is broken.
        DeviceError: no runtime has such a device here; lists what each one has and needs.
        BundleError: the bundle has no such artifact.
    """
    name = parse_device(device) if isinstance(device, str) else device
    found = find_fitting(bundle, device=name, format=format, precision=precision, here=here)
    if not found.fitting:
        raise _refusal(bundle, name, format, precision, found)
    by_format: dict[str, list[Choice]] = {}
    for choice in found.fitting:
        by_format.setdefault(choice.artifact.format, []).append(choice)
    first = in_order_here(by_format)[0] if here else min(by_format, key=rank)
    return _best(by_format[first], name)


def find_fitting(
    bundle: Bundle,
    *,
    device: str | DeviceName = "cpu",
    format: str | None = None,  # noqa: A002
    precision: str | None = None,
    here: bool = True,
) -> FittingArtifacts:
    """All artifacts that fit a request; arguments as for `choose_artifact`.

    If some artifacts of a format were compiled for the device, and no precision is given, only those are returned.

    Raises:
        UnknownNameError, SpecError: no such device or format, or the two contradict each other.
    """
    name = parse_device(device) if isinstance(device, str) else device
    manifest = bundle.manifest
    meant = format_meant(name, format, held=[artifact.format for artifact in manifest.artifacts])
    fitting: list[Choice] = []
    without_device: list[Choice] = []
    left_out: dict[str, EdgeCnnError] = {}
    for held in dict.fromkeys(artifact.format for artifact in manifest.artifacts if meant in (None, artifact.format)):
        try:
            row = known_format(held, bundle)
            choices = _choices(manifest, row, name, precision)
            if not choices:
                continue
            if here:
                _check_installed(row)
                if meant is None:  # otherwise opening it gives the runtime's own error
                    _check_device(row, name)
        except DeviceError as absent:
            left_out[held] = absent
            without_device += choices
        except EdgeCnnError as missing:
            left_out[held] = missing
        else:
            fitting += choices
    order = {id(artifact): place for place, artifact in enumerate(manifest.artifacts)}
    fitting.sort(key=lambda choice: order[id(choice.artifact)])
    without_device.sort(key=lambda choice: order[id(choice.artifact)])
    return FittingArtifacts(tuple(fitting), tuple(without_device), left_out)


def format_meant(device: DeviceName, format: str | None, *, held: Iterable[str] = ()) -> str | None:  # noqa: A002
    """The format that a device and a format name select together; None where they leave it open.

    Args:
        device: the requested device.
        format: the requested format.
        held: format names in a bundle, which need not be known here.

    Raises:
        UnknownNameError: no such format.
        SpecError: they contradict each other.
    """
    if format is not None and format not in held:
        FORMATS.get(format)  # raises for an unknown name, with the nearest known names
    if not device.runtime:
        return format
    meant = format_of_runtime(device.runtime)
    if meant is None:
        raise SpecError(f"device {device.text!r} runs torch networks, not a bundle's files: give --device cpu or gpu")
    if format not in (None, meant.name):
        raise SpecError(f"device {device.text!r} belongs to {meant.name}, but the requested format is {format!r}")
    return meant.name


def known_format(name: str, bundle: Bundle) -> Format:
    """The format of a bundle's artifact.

    Raises:
        BundleError: the format is unknown here.
        PluginError: the package that provides it is broken.
    """
    if FORMATS.has(name):
        return FORMATS.get(name)
    tools = dict.fromkeys(artifact.tool for artifact in bundle.manifest.artifacts if artifact.format == name)
    by = f" (written by {', '.join(filter(None, tools))})" if any(tools) else ""
    raise BundleError(
        f"{bundle.folder} holds {name} artifacts{by}, but the format {name!r} is unknown here: install the package "
        f"that adds it to edgecnn, or choose one of: {describe_held(bundle.manifest)}"
    )


def opens_on(artifact: Artifact, device: DeviceName) -> bool:
    """Whether an artifact may be opened on a device; not if it was compiled for another device."""
    if not artifact.device:
        return True
    if not FORMATS.has(artifact.format):
        return False
    rows = device.executors(FORMATS.get(artifact.format).runtime)
    return artifact.device in {row.full_name for row in rows}


def describe_held(manifest: Manifest) -> str:
    """A bundle's artifacts for messages, with the device of those compiled for one."""
    names = [a.label + (f" (device {a.device})" if a.device else "") for a in manifest.artifacts]
    return ", ".join(names) or "none"


def _choices(manifest: Manifest, row: Format, device: DeviceName, precision: str | None) -> list[Choice]:
    held = [a for a in manifest.artifacts if a.format == row.name and opens_on(a, device)]
    compiled = [artifact for artifact in held if artifact.device]
    return [
        Choice(artifact, precision or artifact.precision, device)
        for artifact in (compiled if compiled and precision is None else held)
        if precision is None or precision in row.runs_as(artifact.precision)
    ]


def _check_installed(row: Format) -> None:
    """Check that the format's files can be opened here.

    Raises:
        MissingDependencyError: its runtime is not installed.
        SpecError: it has no back end.
    """
    if row.backend is None:
        row.load_backend()
    if not row.runs_here:
        raise row.missing_runtime(f"format {row.name!r}")


def _check_device(row: Format, device: DeviceName) -> None:
    """Check that its runtime has such a device here; for a CPU, no runtime is loaded.

    Raises:
        DeviceError: it has no such device; lists the available ones and what others need.
    """
    if device.is_cpu:
        return
    wanted = device.executors(row.runtime)
    found = row.load_backend().devices()
    if not any(way.provider == there.provider.partition(".")[0] for way in wanted for there in found):
        has = [there.word for there in found]
        raise absent_device(device, runtime=row.runtime.name, available=has, wanted=wanted)


def _best(choices: Sequence[Choice], device: DeviceName) -> Choice:
    """First an artifact compiled for the device, then by precision; an unrounded one before one that is rounded."""
    order = list(PRECISIONS)

    def precise(choice: Choice) -> tuple[bool, int]:
        artifact = choice.artifact
        place = order.index(artifact.precision) if artifact.precision in order else len(order)
        return not artifact.device, place

    found = sorted(choices, key=precise)
    if device.is_auto:  # the sort is stable: artifacts not worth choosing stay behind float
        found.sort(key=lambda choice: not _worth_choosing(choice.artifact))
    return found[0]


def is_accurate(artifact: Artifact) -> bool:
    """Whether an artifact is float, or an int8 one whose metric was measured to be within its limit."""
    accuracy = artifact.evidence.accuracy
    return artifact.precision not in QUANTIZED or (
        bool(accuracy) and not any(measured.allowed_drop for measured in accuracy)
    )


def _worth_choosing(artifact: Artifact) -> bool:
    """Whether an int8 artifact was measured on this CPU to be within its limit and faster than float."""
    if artifact.precision not in QUANTIZED:
        return False
    evidence = artifact.evidence
    latency = evidence.quantization.latency if evidence.quantization is not None else None
    return is_accurate(artifact) and latency is not None and latency.low > 1 and latency.device_name == processor_name()


def _refusal(
    bundle: Bundle,
    device: DeviceName,
    format: str | None,  # noqa: A002
    precision: str | None,
    found: FittingArtifacts,
) -> EdgeCnnError:
    """The error when no artifact of a bundle fits."""
    reasons = list(found.left_out.values())
    absent = [reason for reason in reasons if isinstance(reason, DeviceError)]
    if absent:
        return DeviceError("\n".join(str(reason) for reason in absent))
    missing = [name for name, reason in found.left_out.items() if isinstance(reason, MissingDependencyError)]
    if len(missing) > 1:
        return no_runtime("this bundle", missing)
    if reasons:
        broken = [reason for reason in reasons if isinstance(reason, PluginError | MissingDependencyError)]
        return (broken or reasons)[0]
    wanted = " ".join(word for word in (format, precision) if word) or "artifact"
    return BundleError(
        f"{bundle.folder} holds no {wanted} for device {device.text!r}; it holds: {describe_held(bundle.manifest)}"
    )
