"""Prints where the operators of compiled artifacts run, for `convert` and `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecnn.cli import _output

if TYPE_CHECKING:
    from edgecnn.bundle import Manifest


def print_placement(manifest: Manifest) -> None:
    """For artifacts compiled for a device: where their operators run."""
    for artifact in manifest.artifacts:
        placement = artifact.evidence.placement
        if placement is None:
            continue
        off = ", ".join(f"{count} {kind}" for kind, count in placement.off_device.items()) or "none"
        on_device = placement.operators - sum(placement.off_device.values())
        _output.print_line(
            f"{artifact.label}: {on_device} of {placement.operators} operators ({placement.share:.1%}) on the device, "
            f"off it: {off}; {placement.conversions} conversions at its border; compiled in {placement.compile_s:.1f} "
            f"s; run on {placement.ran_on.summary}",
        )
