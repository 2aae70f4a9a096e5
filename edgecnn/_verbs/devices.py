"""Show what this machine has for computing, and which runtime runs on which device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from edgecnn.formats import runtimes
from edgecnn.formats.devices import executors_by_name
from edgecnn.measure.device_trials import try_devices
from edgecnn.measure.devices_report import DevicesReport, find_runtime
from edgecnn.measure.hardware import find_hardware
from edgecnn.measure.machine import describe_machine
from edgecnn.options import Option
from edgecnn.runners.live.cameras.table import found_cameras
from edgecnn.runners.vulkan import vulkan_devices


def devices(
    device: Annotated[
        str | None,
        Option(
            help="Test only this: cpu, gpu, npu, or RUNTIME:DEVICE.", default="all", metavar="DEVICE", positional=True
        ),
    ] = None,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> DevicesReport:
    """Show what this machine has for computing; each device is tested with a small network in a child process.

    Args:
        device: test only this one ("cpu", "gpu", "onnxruntime:webgpu", …); default: all.
        progress: called with (done, total, current test).

    Raises:
        UnknownNameError: no device has that name.
    """
    from edgecnn.runners.live.cameras.ffmpeg_program import reads_with
    from edgecnn.runners.live.recording.encoders import records_as

    wanted = executors_by_name(device)
    tried = try_devices(wanted, progress=progress)
    return DevicesReport(
        machine=describe_machine(),
        hardware=tuple(find_hardware()),
        vulkan={found.name: found.type for found in vulkan_devices()},
        runtimes=tuple(find_runtime(runtime, tried.providers.get(runtime.name, ())) for runtime in runtimes()),
        trials=tried.trials,
        cameras=found_cameras(),
        video={"reads": reads_with(), "records": records_as()},
    )
