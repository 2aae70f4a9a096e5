"""Puts the site's pages together in build/docs: docs/, reference pages made from the code, and files that they link to.

python docs/site/assemble.py; `make docs` does, and builds the site from it.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS, ASSEMBLED = REPOSITORY / "docs", REPOSITORY / "build" / "docs"
_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?=[)#])")


def assemble(out: Path = ASSEMBLED) -> None:
    """Write all pages into `out`, which is emptied first."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(DOCS, out, ignore=shutil.ignore_patterns("site", "__pycache__"))
    for path, text in _generated():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text, encoding="utf-8")
    for page in sorted(out.rglob("*.md")):
        page.write_text(_linked(page, out), encoding="utf-8")


def _linked(page: Path, out: Path) -> str:
    """A page whose links out of docs/ lead to copies of those files, which the site holds."""
    name = page.relative_to(out).as_posix()

    def inside(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(name), link["path"]))
        if target.startswith(("docs/", "..")) or not (REPOSITORY / target).is_file():
            return link["path"]
        (out / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / target, out / target)
        return posixpath.relpath(target, posixpath.dirname(name) or ".")

    return _LINK.sub(inside, page.read_text(encoding="utf-8"))


def _generated() -> Iterator[tuple[str, str]]:
    yield "reference/python.md", _python()
    yield "reference/bundle.md", _bundle()
    yield "explanation/decisions.md", _decisions()


def _python() -> str:
    """Every public name."""
    import edgecnn

    lines = ["# Python", "", "What `import edgecnn` offers; the import loads neither torch nor a runtime.", ""]
    for name in edgecnn.__all__:
        if not name.startswith("__"):
            home = edgecnn._HOMES[name]
            lines += [f"::: {home}.{name}", ""]
    return "\n".join(lines)


def _bundle() -> str:
    """The page with the schemas of the manifest and of the JSON lines."""
    from edgecnn.bundle import Manifest
    from edgecnn.tasks import TASKS

    def a_task(kind: type) -> dict[str, Any]:
        return {"type": "object", "description": "one of the tasks; its `kind` says which"}

    types = [Manifest, *TASKS]
    _, records = msgspec.json.schema_components(types, schema_hook=a_task, ref_template="#/$defs/{name}")
    schema: dict[str, Any] = {"$ref": "#/$defs/Manifest", "$defs": records}
    lines = [
        "# Bundles",
        "",
        "A bundle is a folder `NAME.edge`: `manifest.json`, and the files that it names with their SHA-256. These are",
        "the records of the manifest. A reader ignores unknown fields.",
        "",
    ]
    for name, record in schema["$defs"].items():
        lines += [f"## {name}", "", *_about(record), ""]
    lines += ["## JSON schema", "", "```json", json.dumps(schema, indent=1), "```", ""]
    return "\n".join(lines)


def _about(record: dict[str, Any]) -> list[str]:
    lines = [(record.get("description") or "").strip().split("\n\n")[0], ""]
    required = set(record.get("required", ()))
    if record.get("properties"):
        lines += ["| field | type | |", "| --- | --- | --- |"]
        for field, spec in record["properties"].items():
            lines.append(f"| `{field}` | {_type(spec)} | {'required' if field in required else ''} |")
    return lines


def _type(spec: dict[str, Any]) -> str:
    if "$ref" in spec:
        name = spec["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in spec:
        return " or ".join(_type(part) for part in spec["anyOf"])
    if spec.get("type") == "array":
        inner = spec.get("items") or {}
        return f"list of {_type(inner)}" if inner else "list"
    if "const" in spec or "enum" in spec:
        return ", ".join(f"`{value}`" for value in spec.get("enum", [spec.get("const")]))
    return str(spec.get("type", "any"))


def _decisions() -> str:
    lines = ["# Decisions", "", "Design decisions and their reasons.", ""]
    for path in sorted((REPOSITORY / "docs" / "decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}](../decisions/{path.name})")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    assemble()
