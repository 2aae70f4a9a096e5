"""Put the table of a real run into README.md: python benchmarks/readme_table.py [demo/demo.json].

Given a `demo.json`, keeps it as benchmarks/results/demo.json first, and its contact sheet as docs/demo.jpg; the table
comes from there.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "demo.json"
PICTURE = REPOSITORY / "docs" / "demo.jpg"
BEGIN = "<!-- table: benchmarks/results/demo.json -->\n"
END = "<!-- end of table -->"
PHOTOGRAPHS = ("astronaut", "cat")


def table(demo: dict[str, Any]) -> str:
    """The run as Markdown."""
    networks = demo["networks"]
    pictures = " | ".join(f"says of {name}.jpg" for name in PHOTOGRAPHS)
    names = " and ".join(f"`{network['word']}`" for network in networks)
    stages = "fit + infer + finish"
    lines = [
        f"`make demo`: {names}, converted here and run.",
        "",
        f"| network | format | {pictures} | error against torch | p50 ms | {stages} ms | cold start ms | MB |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [_row(network, figures) for network in networks for figures in network["latency"]]
    machine = demo["machine"]
    lines += ["", f"{machine['cpu_model']}, {machine['cores_allowed']} cores; one picture at a time, 640x480."]
    return "\n".join(lines) + "\n"


def _row(network: dict[str, Any], figures: dict[str, Any]) -> str:
    artifact = figures["format"], figures["precision"]
    if figures["error"] is not None:
        raise SystemExit(f"{network['word']}, {' '.join(artifact)} failed: {figures['reason']}; run the demo again")
    answers = {s["photograph"]: s["says"] for s in network["stills"] if (s["format"], s["precision"]) == artifact}
    parity = next(a["parity"] for a in network["artifacts"] if (a["format"], a["precision"]) == artifact)
    cells = [
        network["word"].removeprefix("default-"),
        " ".join(artifact),
        *(answers[name] for name in PHOTOGRAPHS),
        f"{parity['max_rel_err']:.1e}" if parity else "–",
        f"{figures['p50_ms']:.2f}",
        " + ".join(f"{figures['stages'][stage]:.2f}" for stage in ("fit", "infer", "finish")),
        f"{figures['cold_ms']:.0f}",
        f"{figures['file_bytes'] / 1e6:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the table between its marks."""
    if len(sys.argv) > 1:
        given = Path(sys.argv[1])
        shutil.copyfile(given, RESULTS)
        shutil.copyfile(given.parent / json.loads(RESULTS.read_bytes())["contact_sheet"], PICTURE)
    readme = REPOSITORY / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + BEGIN + table(json.loads(RESULTS.read_bytes())) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
