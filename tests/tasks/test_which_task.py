"""Nobody outside `edgecnn.tasks` asks which task or result it has: what differs is asked of the task."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgecnn
from edgecnn.results import Items, Result
from edgecnn.tasks import TASKS

PACKAGE = Path(edgecnn.__file__).parent
NAMES = frozenset(TASKS.names())
CLASSES = frozenset({task.__name__ for task in TASKS} | {task.result.__name__ for task in TASKS})
EXEMPT = {
    "tasks": "is where that is known",
    "training": "an objective is of one task: its loss",
}


def asking(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and what is asked there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in {"isinstance", "issubclass"} and len(node.args) == 2:
                found = classes_in(node.args[1])
                if found:
                    yield node.lineno, f"{node.func.id}(…, {', '.join(sorted(found))})"
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for side in sides:
                found = strings_in(side) & NAMES
                if found:
                    yield node.lineno, f"compares with {', '.join(sorted(found))}"
                if isinstance(side, ast.Name) and side.id in CLASSES:
                    yield node.lineno, f"compares with {side.id}"
        elif isinstance(node, ast.Dict):
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)} & NAMES
            if keys:
                yield node.lineno, f"a dict with the keys {', '.join(sorted(map(str, keys)))}"
        elif isinstance(node, ast.MatchValue | ast.MatchClass):
            found = strings_in(getattr(node, "value", ast.Constant(None))) & NAMES
            found |= classes_in(getattr(node, "cls", ast.Constant(None)))
            if found:
                yield node.lineno, f"case {', '.join(sorted(found))}"
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
            found = strings_in(node.slice) & NAMES
            if found:
                yield node.lineno, f"Literal of {', '.join(sorted(found))}"


def classes_in(node: ast.AST) -> set[str]:
    """Names of result and task classes in an expression, as in `Detections | results.Instances`."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    names |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    return names & CLASSES


def strings_in(node: ast.AST) -> set[str]:
    """A string, or those of a tuple, list or set of strings; nothing of other expressions."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def files() -> list[Path]:
    found = [*PACKAGE.rglob("*.py"), *(PACKAGE / "converters").resolve().rglob("*.py")]
    found += (PACKAGE / "runners").resolve().rglob("*.py")
    return sorted(path for path in set(found) if room_of(path) not in EXEMPT)


def room_of(path: Path) -> str:
    try:
        return path.relative_to(PACKAGE).parts[0]
    except ValueError:
        return path.parent.name


def test_code_outside_the_tasks_does_not_depend_on_the_kind_of_task_or_result() -> None:
    asked = [
        f"{path}:{line}: {what}"
        for path in files()
        for line, what in asking(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not asked, "\n".join(asked)


def test_enough_is_looked_at() -> None:
    assert len(files()) > 200
    assert any("runners" in path.parts for path in files()) and any("converters" in path.parts for path in files())


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(x, Detections)",
        "isinstance(x, results.Instances | int)",
        "x.name == 'detect'",
        "x in ('classify', 'segment')",
        "{'detect': 1}",
        "type(x) is Classify",
        "match x:\n  case Detect(): pass",
        "match x:\n  case 'segment': pass",
        "y: Literal['detect', 'other']",
    ],
)
def test_each_way_of_asking_is_seen(code: str) -> None:
    assert list(asking(ast.parse(code)))


def below(kind: type) -> set[type]:
    found: set[type] = set(kind.__subclasses__())
    return found.union(*map(below, found))


def test_every_result_class_of_ours_belongs_to_a_task() -> None:
    ours = {kind for kind in below(Result) if kind.__module__.startswith("edgecnn.results.")} - {Items}
    assert ours == {TASKS.get(name).result for name in ("classify", "detect", "segment", "instances")}
