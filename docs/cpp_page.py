"""docs/reference/cpp.md, made of benchmarks/results/cpp_overhead.json: what a frame costs in C++ and in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "cpp_overhead.json"
_HEAD = """# What a frame costs in C++

<!-- written by docs/generate.py from benchmarks/results/cpp_overhead.json, which benchmarks/cpp_overhead.py writes -->

The [C++ runner](../how-to/use-from-cpp.md) and Python's, in one process with one OpenVINO and on one core, on the
networks that ship and photographs of two sizes. Both answer the same picture, one after the other, and take
turns in who is first; before that, their answers were compared, and were equal to the bit. Medians of {pairs} frames,
in ms.

*Beyond inference* is the whole call without the stage *infer*. The C function is called from Python, which counts
against C++; Python's copies into and out of OpenVINO lie in its *infer*, which counts for Python. The last column is
the median of the pairs' differences, with its 95 % interval.

Machine: {machine}; others kept {others:.1f} of its cores busy.
"""


def cpp(found: dict[str, Any] | None = None) -> str:
    """The page as Markdown; of the results in the repository where none are given."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if found is None else found
    rows, machine = found["rows"], found["machine"]
    lines = [
        _HEAD.format(
            pairs=" and ".join(sorted({str(row["pairs"]) for row in rows})),
            machine=f"{machine['cpu_model']}, {machine['cores_allowed']} cores, {machine['os']}",
            others=max(row["others_busy_cores"] or 0 for row in rows),
        ),
        "| task | picture | runner | whole | infer | fit | finish | beyond inference | Python costs more |",
        "| --- | --- | --- |" + " ---: |" * 6,
    ]
    for row in rows:
        more = row["python_costs_more_ms"]
        (width, height), network = row["size_px"], f"{row['task']}, {row['precision']}"
        for side, name in (("python", "Python"), ("cpp", "C++")):
            ms = row["ms"][side]
            cells = [f"{ms[stage]:.3f}" for stage in ("whole", "infer", "fit", "finish", "beyond")]
            last = f"{more['value']:+.3f} ({more['low']:+.3f}…{more['high']:+.3f})" if side == "cpp" else ""
            words = [network, f"{width}×{height}", name, *cells, last]
            lines.append(f"| {' | '.join(words)} |")
    return "\n".join([*lines, ""])
