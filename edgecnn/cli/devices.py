"""`edgecnn devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli import _on_options, _output
from edgecnn.errors import DeviceError

if TYPE_CHECKING:
    from edgecnn._verbs.devices import DevicesReport

# Instruction sets that decide how fast a convolution is: the kernel's name → the one that people know.
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


def command(
    device: Annotated[
        str | None,
        typer.Argument(help="Try only this: cpu, gpu, npu, or RUNTIME:DEVICE; default: all.", metavar="[DEVICE]"),
    ] = None,
    on: _on_options.On = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --on, a list.")] = False,
) -> None:
    """Say what this machine computes with, and which runtime really runs on what."""
    from edgecnn._verbs.devices import devices

    if on:
        _devices_on_boards(on, device, as_json=as_json)
        return
    with _output.progress_bar("devices") as progress:
        report = devices(device, progress=progress)
    if as_json:
        _output.print_json(report)
    else:
        _print_machine(report)
        _print_trials(report)
    if device is not None and not any(trial.works for trial in report.trials):
        raise typer.Exit(DeviceError.exit_code)


def _devices_on_boards(on: list[str], device: str | None, *, as_json: bool) -> None:
    import msgspec

    from edgecnn._verbs.on_boards import devices_on

    outcomes = devices_on(on, device, status=_on_options.say_status)
    if as_json:
        _output.print_json(
            [
                _on_options.error_row(outcome)
                if outcome.result is None
                else {"on": outcome.on, "board": outcome.board, **msgspec.to_builtins(outcome.result)}
                for outcome in outcomes
            ]
        )
    code = _on_options.say_errors(outcomes)
    for outcome in outcomes:
        if outcome.result is None:
            continue
        if not as_json:
            _output.stdout.print(f"{outcome.on}:", markup=False, soft_wrap=True)
            _print_machine(outcome.result)
            _print_trials(outcome.result)
        if device is not None and not any(trial.works for trial in outcome.result.trials):
            code = max(code, DeviceError.exit_code)
    if code:
        raise typer.Exit(code)


def _print_machine(report: DevicesReport) -> None:
    machine = report.machine
    sets = dict.fromkeys(_INSTRUCTION_SETS[flag] for flag in machine.cpu_flags if flag in _INSTRUCTION_SETS)
    lines = [machine.summary, f"{machine.architecture}: {', '.join(sets) or 'no instruction sets that matter here'}"]
    if machine.conditions.throttled is not None:
        now = ", ".join(machine.conditions.throttled_now) or "no"
        lines.append(f"slowed now: {now} (throttled bits {machine.conditions.throttled:#x})")
    lines += [
        f"{found.kind.upper()}: {found.name}" + (f", driver {found.driver}" if found.driver else ", no driver")
        for found in report.hardware
    ]
    lines += [
        f"Vulkan: {name}" + (": a program and no hardware, its speed means nothing" if kind == "software" else "")
        for name, kind in report.vulkan.items()
    ]
    for runtime in report.runtimes:
        packages = ", ".join(f"{package} {version}" for package, version in runtime.packages.items())
        providers = f": {', '.join(runtime.providers)}" if runtime.providers else ""
        lines.append(f"{packages}{providers}" if packages else f"{runtime.name} is not installed: {runtime.install}")
    for line in lines:
        _output.stdout.print(line, markup=False, soft_wrap=True)


def _print_trials(report: DevicesReport) -> None:
    working = [trial for trial in report.trials if trial.works]
    if working:
        _output.print_table(
            "Works: a small network was run there, and answered as it must",
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
            _output.stdout.print(f"{trial.word}: {trial.why}{needs}", markup=False, soft_wrap=True)
