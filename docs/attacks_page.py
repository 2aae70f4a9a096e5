"""docs/reference/attacks.md, made of benchmarks/results/: what was tried against edgecnn, with figures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
_HEAD = """# Attacks that were tried

<!-- written by docs/generate.py from benchmarks/results/: change the scripts in benchmarks/ -->

[Security](../security.md) lists what edgecnn guarantees for untrusted files, machines and networks. This page has the
figures. Each comes from a script in `benchmarks/`; the machine is given with it.
"""


def attacks() -> str:
    """The page as Markdown: a section for each result that is there."""
    lines = [_HEAD]
    for name, write in _SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            lines += [*write(json.loads(path.read_text(encoding="utf-8"))), ""]
    return "\n".join(lines)


def _fuzz(found: dict[str, Any]) -> Iterable[str]:
    """One row for each target; the counts of both engines are added."""
    rows, totals = [], [0] * 4
    for name, engines in found["targets"].items():
        counts = {key: sum(tally[key] for tally in engines.values()) for key in next(iter(engines.values()))}
        cells = [counts["inputs"], counts["refused"], counts["accepted"], _others(counts)]
        totals = [total + cell for total, cell in zip(totals, cells, strict=True)]
        rows.append([found["titles"][name], *cells])
    yield "## Fuzzing"
    yield ""
    yield (
        f"`python -m benchmarks.fuzz`: {found['minutes']:.0f} minutes for all readers of untrusted bytes, half with "
        "mutations of real files, half guided by coverage (atheris; not for native code). *Refused* is one of "
        "edgecnn's own errors; *everything else* is another exception, a crash, more than 10 s, or more than 1 GB. "
        "`make fuzz` continues it."
    )
    yield ""
    yield f"Machine: {_machine(found)}."
    yield ""
    yield from _table(["input", "inputs", "refused", "accepted", "everything else"], [*rows, ["**all**", *totals]])


def _others(counts: dict[str, int]) -> int:
    return counts["other"] + counts["slow"] + counts["large"]


def _kills(found: dict[str, Any]) -> Iterable[str]:
    summary = found["summary"]
    worst, end = summary["worst_loss_s"], summary["sigterm_end_s"]
    whole = sum(count for how, count in summary["runs"].items() if how != "power cut")
    yield "## Interrupted recordings"
    yield ""
    yield (
        f"`python -m benchmarks.kills`: {whole} runs that recorded a stream of clocks were ended at random moments, "
        "half of them with ffmpeg and half with OpenCV's encoder, as .mp4, .mkv, .avi and .mov. A power cut is a copy "
        "of the file on the disk at a random moment. The figure is the time between the newest delivered result and "
        f"the last frame in the file. {summary['wrong']} of {whole} runs had a fault: a file without frames, more than "
        "2 s lost, an older recording changed, a hidden file left, or another exit code."
    )
    yield ""
    yield f"Machine: {_machine(found)}; other programs kept it busy (load {_load(found)})."
    yield ""
    rows = [
        [how, count, "playable, the old file kept" if worst.get(how) is None else f"{worst[how]:.2f} s"]
        for how, count in summary["runs"].items()
    ]
    yield from _table(["ended by", "times", "largest loss"], rows)
    yield ""
    yield f"SIGTERM ended a run within {end['median']:.2f} s (median; longest {end['longest']:.2f} s)."


def _site_kills(found: dict[str, Any]) -> Iterable[str]:
    said, back = found["availability"], found["back_s"]
    yield "## A site whose power is cut"
    yield ""
    yield (
        "`python -m benchmarks.site_kills`: a site of one camera (page, Home Assistant over a real mosquitto, events, "
        f"JSON lines, a recording) was killed {sum(found['kills'].values())} times with all its processes (SIGKILL), "
        "and started again. After each, every event, line and recording must be there and whole. "
        f"{found['events']} events, {found['json_lines']} lines and {found['recorded_frames']} recorded frames were "
        f"written; {len(found['wrong'])} faults were found. The broker said `offline` and `online` {said['right']} of "
        f"{said['of']} times. Frames flowed {back['median']:.1f} s after the start (median; longest "
        f"{back['longest']:.1f} s)."
    )
    yield ""
    yield f"Machine: {_machine(found)}; other programs kept it busy (load {_load(found)})."
    yield ""
    yield from _table(["killed", "times"], [[moment, count] for moment, count in found["kills"].items()])


def _deployments(found: dict[str, Any]) -> Iterable[str]:
    yield "## Deployments that are disturbed"
    yield ""
    yield (
        f"`python -m benchmarks.deployments`: {found['rounds']} deployments of signed bundles to five boards, all "
        f"emulated: {found['emulated']}. After each, every board must have one whole bundle with a right signature: "
        f"the one before or the new one, and never a refused one. {len(found['wrong'])} boards had something else. The "
        f"last deployment, undisturbed, brought {'all' if found['all_at_the_last_version'] else 'not all'} boards to "
        "the last version. A killed sender, and one that refuses a changed bundle itself, report no outcome."
    )
    yield ""
    yield f"Machine: {_machine(found)}; other programs kept it busy (load {_load(found)})."
    yield ""
    words = {"deployed": "deployed", "BoardError": "board lost", "StorageError": "disk full", "SpeedError": "too slow"}
    rows = [
        [what, *(counts.get(word, 0) for word in words), counts.get("BundleError", 0)]
        for what, counts in found["outcomes"].items()
        if counts
    ]
    yield from _table(["disturbed by", *words.values(), "not sent"], rows)


def _verbs(found: dict[str, Any]) -> Iterable[str]:
    counts = found["counts"]
    verbs = {"convert", "quantize", "bench", "evaluate", "inspect", "deploy"}
    yield "## Several programs with one bundle"
    yield ""
    yield (
        f"`python -m benchmarks.interleaved_verbs`: {counts['interleavings']} random interleavings of "
        f"{found['processes']} processes that convert, quantize, bench, evaluate, inspect and copy one bundle; some "
        "are killed. After each, the bundle must open, every file must be the verified one, and no measurement may be "
        "lost. *Refused* is a verb that could not continue because another one had changed the bundle, with a message."
    )
    yield ""
    yield f"Machine: {_machine(found)}."
    yield ""
    rows = [[name, count] for name, count in counts.items() if name in verbs]
    outcomes = [[name, counts.get(name, 0)] for name in ("done", "refused", "killed", "failed", "lost")]
    yield from _table(["verb or outcome", "times"], [*rows, *outcomes])


def _first(found: dict[str, Any]) -> Iterable[str]:
    yield "## Opening unknown files in a child process first"
    yield ""
    yield (
        f"`python -m benchmarks.first_open`: separate programs in turns, {found['rounds']} of each, with the shipped "
        "detector and with a copy that was never opened here, from `open_runner` to the first result. The difference "
        "is the median over neighbouring pairs, with its 99 % interval."
    )
    yield ""
    yield f"Machine: {_machine(found)}; load {found['load_average']:.1f}."
    yield ""
    rows = []
    for name, cases in found["formats"].items():
        for case, text in (("first", "never opened here"), ("again", "opened here before")):
            wall, cpu = cases[case]["wall"], cases[case]["processor"]
            rows.append([name, text, *(_difference(each) for each in (wall, cpu)), f"{cases['untried_ms']:.0f} ms"])
    columns = ["format", "", "added time", "added processor time", "start without a child"]
    yield from _table(columns, rows)


def _difference(figure: dict[str, Any]) -> str:
    low, high = figure["added_99_ms"]
    return f"{figure['added_ms']:+.0f} ms ({low:+.0f} … {high:+.0f})"


def _signed(found: dict[str, Any]) -> Iterable[str]:
    yield "## Verifying a signature"
    yield ""
    yield (
        f"`python -m benchmarks.signed_start`: {found['pairs']} pairs of starts of the shipped detector "
        f"({found['bytes'] / 1e6:.1f} MB), with and without a trusted key. Load {found['load_average']:.1f}."
    )
    yield ""
    rows = [
        [name, *(_difference(each) for each in (figure["wall"], figure["processor"]))]
        for name, figure in found["figures"].items()
    ]
    yield from _table(["format", "added time", "added processor time"], rows)


def _watched(found: dict[str, Any]) -> Iterable[str]:
    yield "## The process that watches exporters"
    yield ""
    figure = found["added"]
    yield (
        "`python -m benchmarks.watched_start`: the cost of the process that waits for `convert`, `quantize` and "
        "`compress`, and starts them again without a step that crashed: "
        f"{_difference(figure['wall'])}, {_difference(figure['processor'])} of processor "
        f"time (medians of {found['pairs']} pairs, 99 % intervals), {found['memory_mb']:.0f} MB while it waits. Load "
        f"{found['load_average']:.1f}."
    )


def _table(columns: list[str], rows: list[list[Any]]) -> Iterable[str]:
    yield f"| {' | '.join(columns)} |"
    yield "| --- |" + " ---: |" * (len(columns) - 1)
    for row in rows:
        yield f"| {' | '.join(f'{cell:,}'.replace(',', ' ') if isinstance(cell, int) else cell for cell in row)} |"


def _machine(found: dict[str, Any]) -> str:
    machine = found["machine"]
    return f"{machine['cpu_model']}, {machine['cores_allowed']} cores, {machine['os']}, Python {machine['python']}"


def _load(found: dict[str, Any]) -> str:
    return f"{found['machine']['conditions']['load_1min']:.1f}"


_SECTIONS = {
    "fuzz": _fuzz,
    "kills": _kills,
    "site_kills": _site_kills,
    "deployments": _deployments,
    "interleaved_verbs": _verbs,
    "first_open": _first,
    "signed_start": _signed,
    "watched_start": _watched,
}
