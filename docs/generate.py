"""Write the reference pages that are generated from code and results: python docs/generate.py [--check].

`--check` writes nothing; the exit code is 1 if a page is out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from attacks_page import attacks
from cpp_page import cpp
from support_page import RESULTS, support

from edgecnn.cli._command import help_rows
from edgecnn.cli._verb import VERBS, VerbDefinition, define

REFERENCE = Path(__file__).parent / "reference"
_HEAD = """# The command line

<!-- written by docs/generate.py from the verbs' signatures: change those -->

Every verb takes its options from the command line, and from a file: `edgecnn run --config run.toml`. A file's keys are
the options' names, with `-` or `_`; an option that may be repeated takes a list, and BUNDLE, MODEL and SOURCE are
`bundle`, `model` and `source`. The command line and environment variables override the file. An unknown key and a
value of another type are errors.

```toml
bundle = "street.edge"
camera = ["rtsp://camera-1/stream", "rtsp://camera-2/stream"]
track = true
score = 0.4
jsonl = "seen.jsonl"
```

Exit codes: 0 done; 1 a gate or a comparison failed; 2 wrong use or bad input; 3 device, disk or internal failure;
128 + n ended by signal n. `--debug`, anywhere, prints the traceback of an error; `edgecnn --install-completion` has the
shell complete verbs, options and files on Tab.
"""


def command_line() -> str:
    """The page of all verbs."""
    return "\n".join([_HEAD, *(_verb(define(name)) for name in VERBS)])


def _verb(verb: VerbDefinition) -> str:
    places = [f"{s.metavar}" if s.required else f"[{s.metavar}]" for s in verb.settings if s.option.positional]
    needed = [f"{s.spelling} {s.metavar}" for s in verb.settings if s.required and not s.option.positional]
    words = " ".join(["edgecnn", verb.name, *places, *needed, "[OPTIONS]"])
    lines = [f"## edgecnn {verb.name}", "", verb.help, "", "```text", words, "```"]
    for heading, rows in help_rows(verb, shared=False).items():
        lines += ["", f"**{heading}**", "", "| | |", "| --- | --- |"]
        lines += [f"| `{_cell(spelling)}` | {_cell(what, prose=True)} |" for spelling, what in rows]
    return "\n".join([*lines, ""])


def _cell(text: str, *, prose: bool = False) -> str:
    """As a cell of a table in Markdown."""
    text = text.replace("|", "\\|")
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_") if prose else text


_PYTHONS_HEAD = """# Which Pythons

<!-- written by docs/generate.py from benchmarks/results/pythons.json: change that -->

On a device, edgecnn supports Python 3.10 to 3.14, numpy 1.26 or 2, and OpenCV 4 or 5. To build (`convert`,
`quantize`, `train`, `prune`, `compress`), Python 3.11 or newer is needed. `python benchmarks/pythons.py` tests it:

- **ran**: `devices`, `run` on a photograph and `bench` ran in a separate environment on {machine}. The shipped
  detector has no ncnn file, so ncnn ran the small network with which `devices` tests devices.
- **wheels**: not run; pip finds a wheel of every package.

The interpreters are CPython's releases, or that of a newer Debian in its root file system (`--root`).

Combinations that are not listed were not tested.
"""


def pythons() -> str:
    """The page about Python versions."""
    results = json.loads(_PYTHONS.read_text(encoding="utf-8"))
    lines = [_PYTHONS_HEAD.format(machine=results["machine"])]
    lines += ["| Python | machine | runtime | | numpy | OpenCV |", "| --- | --- | --- | --- | --- | --- |"]
    rows = [{"machine": results["machine"], "word": "ran", **row} for row in results["tried"]]
    rows += [{"word": "wheels", **row} for row in results["resolved"]]
    for row in sorted(rows, key=lambda row: (row["machine"] == "aarch64", _version(row["python"]), row["runtime"])):
        found = row.get("packages", {})
        own = next((f"{name} {version}" for name, version in found.items() if name not in _SHARED), row["runtime"])
        cells = [row["python"], row["machine"], own, row["word"] if row["ok"] else f"**no**: {row.get('why', '')}"]
        cells += [found.get(name, "") for name in _SHARED]
        lines.append(f"| {' | '.join(_cell(cell, prose=True) for cell in cells)} |")
    return "\n".join([*lines, ""])


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


_PYTHONS = Path(__file__).parents[1] / "benchmarks" / "results" / "pythons.json"
_SHARED = ("numpy", "opencv-python")
PAGES = {"command-line.md": command_line, "pythons.md": pythons, "attacks.md": attacks, "cpp.md": cpp}
if RESULTS.is_file():
    PAGES["support.md"] = support


def main() -> int:
    """Write the pages, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = []
    for name, write in PAGES.items():
        path, text = REFERENCE / name, write()
        if not path.exists() or path.read_text() != text:
            old.append(path)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in old:
        sys.stdout.write(f"{'out of date' if check else 'written'}: {path}\n")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
