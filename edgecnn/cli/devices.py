"""`edgecnn devices`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from edgecnn import options
from edgecnn.cli import _on_options, _output
from edgecnn.cli._verb import Verb
from edgecnn.errors import DeviceError
from edgecnn.options import Option

if TYPE_CHECKING:
    from edgecnn.measure.devices_report import DevicesReport

# Instruction sets that decide how fast a convolution is: the kernel's name → the common name.
_INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
    "neon": "NEON",
    "asimd": "NEON",
    "asimdhp": "NEON fp16",
    "asimddp": "NEON dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}


VERB = "edgecnn._verbs.devices:devices"


def command(
    verb: Verb,
    *,
    on: options.On = (),
    json: Annotated[options.Json, Option(help="Print JSON; with --on, a list.")] = False,
) -> int:
    """Show what this machine has for computing, and which runtime really runs on which device."""
    device = verb["device"]
    if on:
        return _devices_on_boards(on, device, as_json=json)
    with _output.progress_bar("devices") as progress:
        report = verb(progress=progress)
    if json:
        _output.print_json(report)
    else:
        _print_machine(report)
        _print_trials(report)
    works = device is None or any(trial.works for trial in report.trials)
    return 0 if works else DeviceError.exit_code


def _devices_on_boards(on: Sequence[str], device: str | None, *, as_json: bool) -> int:
    from edgecnn._verbs.on_boards import devices_on

    outcomes = devices_on(on, device, status=_on_options.print_status)
    if as_json:
        _output.print_json(_on_options.rows(outcomes))
    code = _on_options.print_errors(outcomes)
    for outcome in outcomes:
        if outcome.result is None:
            continue
        if not as_json:
            _output.print_line(f"{outcome.on}:")
            _print_machine(outcome.result)
            _print_trials(outcome.result)
        if device is not None and not any(trial.works for trial in outcome.result.trials):
            code = max(code, DeviceError.exit_code)
    return code


def _print_machine(report: DevicesReport) -> None:
    machine = report.machine
    sets = dict.fromkeys(_INSTRUCTION_SETS[flag] for flag in machine.cpu_flags if flag in _INSTRUCTION_SETS)
    lines = [machine.summary, f"{machine.architecture}: {', '.join(sets) or 'no relevant instruction sets'}"]
    if machine.conditions.throttled is not None:
        now = ", ".join(machine.conditions.throttled_now) or "no"
        lines.append(f"throttled now: {now} (throttled bits {machine.conditions.throttled:#x})")
    lines += [
        f"{found.kind.upper()}: {found.name}" + (f", driver {found.driver}" if found.driver else ", no driver")
        for found in report.hardware
    ]
    lines += [
        f"Vulkan: {name}" + (": software, not hardware; its speed means nothing" if kind == "software" else "")
        for name, kind in report.vulkan.items()
    ]
    for runtime in report.runtimes:
        packages = ", ".join(f"{package} {version}" for package, version in runtime.packages.items())
        providers = f": {', '.join(runtime.providers)}" if runtime.providers else ""
        lines.append(f"{packages}{providers}" if packages else f"{runtime.name} is not installed: {runtime.install}")
    for camera in report.cameras:
        what = camera.device_name or camera.why
        lines.append(f"camera {camera.source}: {what}" + (f"; needs {camera.needs}" if camera.needs else ""))
    lines += [f"video, {what}: {how}" for what, how in report.video.items()]
    for line in lines:
        _output.print_line(line)


def _print_trials(report: DevicesReport) -> None:
    working = [trial for trial in report.trials if trial.works]
    if working:
        _output.print_table(
            "Works: a small network ran there and gave the right answer",
            ("device", "kind", "what ran", "s"),
            [
                (trial.word, trial.kind, trial.ran_on.summary if trial.ran_on else "", trial.seconds)
                for trial in working
            ],
            numeric=("s",),
        )
    for trial in report.trials:
        if not trial.works:
            needs = f"; needs {trial.needs}" if trial.needs else ""
            _output.print_line(f"{trial.word}: {trial.why}{needs}")
