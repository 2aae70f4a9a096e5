"""Writes docs/reference/support.md from benchmarks/results/support.json; every figure in it was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "support.json"
NOT_TRIED = "not tried here"
_PRECISIONS = ("fp32", "fp16", "int8")
_HEAD = """# What runs where

<!-- written by docs/generate.py from benchmarks/results/support.json, which benchmarks/support.py writes -->

Every figure was measured on one machine ({machine}), with {networks}.
Each artifact passed the gates of `convert` and was opened on the device. Its results on {photographs} photographs were
compared with those of the torch network. The cells:

- *float*: the largest relative difference from the torch network; for a segmenter, the share of pixels whose class
  differs. The limits are 1e-4 in fp32 (for pixels 1e-3) and 1e-2 in fp16
  ([parity before saturation](../decisions/0003-parity-before-saturation.md)).
- *int8*: the signal-to-noise ratio of the worst output in dB, calibrated on {photographs} pictures. It shows that the
  artifact is written and runs. If results differ, the share that agrees follows (boxes or pixels). To measure the
  accuracy, more pictures with labels are needed: [int8 and float](../int8.md).
- *refused*, *failed*: the number leads to the reason below.
- *{not_tried}*: this machine has no such device, or edgecnn has no freely available network for the task, or the script
  has not run for this cell yet. It may work: `edgecnn devices` tries it on your machine.

These tables do not cover Arm. On an emulated Raspberry Pi 5, `tests/device/test_pi.py` runs a small classifier in every
format, in fp32 and (except ncnn) int8: the answers are those of x86, and in fp32 those of torch.
"""


def support(found: dict[str, Any] | None = None) -> str:
    """The page as Markdown; of the results in the repository where none are given."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if found is None else found
    machine, tasks, notes = found["machine"], found["tasks"], list[str]()
    tried = {row["task"] for row in found["rows"]}
    named = [f"`{network}` ({task})" for task, network in tasks.items() if task in tried]
    head = _HEAD.format(
        machine=f"{machine['cpu_model']}, {_cores(machine['cores_allowed'])}, {machine['os']}",
        networks=", ".join(named),
        photographs=4,
        not_tried=NOT_TRIED,
    )
    lines = [head]
    for name in found["runtimes"]:
        rows = [row for row in found["rows"] if row["format"] == name]
        lines += [f"## {name}", "", *_table(name, rows, found, notes), ""]
    if notes:
        lines += ["## Reasons", "", *(f"{number}. {note}" for number, note in enumerate(notes, 1)), ""]
    lines += ["## Versions", "", ", ".join(f"{name} {version}" for name, version in _versions(machine)), ""]
    return "\n".join(lines)


def _table(name: str, rows: list[dict[str, Any]], found: dict[str, Any], notes: list[str]) -> list[str]:
    tasks = list(found["tasks"])
    lines = [f"| device | precision | {' | '.join(tasks)} |", "| --- | --- |" + " --- |" * len(tasks)]
    runtime = found["runtimes"][name]
    for device in (device for device in found["devices"] if device["word"].partition(":")[0] == runtime):
        word = device["word"]
        if not any(word in row.get("devices", {}) for row in rows):
            why = f" ({_note(device['why'] or device['needs'], notes)})" if device["why"] or device["needs"] else ""
            lines.append(f"| `{word}` | all | {' | '.join([NOT_TRIED + why, *[NOT_TRIED] * (len(tasks) - 1)])} |")
            continue
        for precision in _PRECISIONS:
            cells = [_cell(_of(rows, task, precision), word, notes) for task in tasks]
            lines.append(f"| `{word}` | {precision} | {' | '.join(cells)} |")
    return lines


def _of(rows: list[dict[str, Any]], task: str, precision: str) -> dict[str, Any] | None:
    return next((row for row in rows if (row["task"], row["precision"]) == (task, precision)), None)


def _cell(row: dict[str, Any] | None, word: str, notes: list[str]) -> str:
    if row is None:
        return NOT_TRIED
    if "refused" in row:
        return f"refused ({_note(row['refused'], notes)})"
    there = row["devices"].get(word)
    if there is None:
        return NOT_TRIED
    if "failed" in there:
        return f"failed ({_note(there['failed'], notes)})"
    figure = f"{min(row['snr_db'].values()):.0f} dB" if row["snr_db"] else f"{row['max_rel_err']:.1e}"
    if row["max_rel_err"] == 0:
        figure = "0"
    return figure if there["agreement"] == 1 else f"{figure}, {_percent(there['agreement'])} agree"


def _percent(share: float) -> str:
    """Rounded down, so that what differs is never called all."""
    digits = 0 if share < 0.99 else 2
    return f"{math.floor(share * 100 * 10**digits) / 10**digits:.{digits}f} %"


def _cores(count: int) -> str:
    return f"{count} core{'' if count == 1 else 's'}"


def _note(text: str, notes: list[str]) -> str:
    """Its number below the tables."""
    text = text.splitlines()[0].replace("|", "\\|").replace("<", "&lt;")
    if text not in notes:
        notes.append(text)
    return str(notes.index(text) + 1)


def _versions(machine: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, version) for name, version in machine["versions"].items() if version]
