"""Put the table of a real run into README.md: python benchmarks/readme_table.py [demo/demo.json].

Given a `demo.json`, keeps it as benchmarks/results/demo.json first; the table comes from there.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "demo.json"
BEGIN = "<!-- table: benchmarks/results/demo.json -->\n"
END = "<!-- end of table -->"


def table(demo: dict[str, Any]) -> str:
    """The run as Markdown."""
    errors = {(a["format"], a["precision"]): a["parity"]["max_rel_err"] for a in demo["artifacts"]}
    photographs = len({p["photograph"] for p in demo["photographs"]})
    formats = len(demo["latency"])
    lines = [
        f"`make demo`: {demo['model']} with its published weights, {formats} formats, {photographs} photographs.",
        "",
        "| format | says of coffee.jpg | error against torch | p50 ms | fit + infer + finish ms | cold start ms | MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in demo["latency"]:
        key = row["format"], row["precision"]
        said = next(
            p["result"]["classes"][0]
            for p in demo["photographs"]
            if (p["format"], p["precision"]) == key and p["photograph"] == "coffee"
        )
        stages = " + ".join(f"{row['stages'][stage]:.2f}" for stage in ("fit", "infer", "finish"))
        lines.append(
            f"| {key[0]} {key[1]} | {said['label']} {said['score']:.2f} | {errors[key]:.1e} | {row['p50_ms']:.2f} "
            f"| {stages} | {row['cold_ms']:.0f} | {row['file_bytes'] / 1e6:.1f} |"
        )
    machine = demo["machine"]
    lines += ["", f"{machine['cpu_model']}, {machine['cores_allowed']} cores; one picture at a time, 640x480."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table between its marks."""
    if len(sys.argv) > 1:
        shutil.copyfile(sys.argv[1], RESULTS)
    readme = REPOSITORY / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + BEGIN + table(json.loads(RESULTS.read_bytes())) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
