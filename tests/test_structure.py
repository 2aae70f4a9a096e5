"""The house: no circle among modules, thin verbs, nothing private across packages, one meaning a word."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import grimp
import pytest

from tests.builders.repository import REPOSITORY


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan, SIAM Journal on Computing 1 (1972), without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []
    for start in sorted(graph.modules):
        if start in index:
            continue
        work = [(start, iter(sorted(graph.find_modules_directly_imported_by(start))))]
        index[start] = low[start] = len(index)
        stack.append(start)
        while work:
            module, imports = work[-1]
            following = next(imports, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[module])
                if low[module] == index[module]:
                    group: list[str] = []
                    while not group or group[-1] != module:
                        group.append(stack.pop())
                    if len(group) > 1:
                        found.append(sorted(group))
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                work.append((following, iter(sorted(graph.find_modules_directly_imported_by(following)))))
            elif following in stack:
                low[module] = min(low[module], index[following])
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("edgecnn", exclude_type_checking_imports=True, cache_dir=None)
    assert circles(graph) == []


def test_a_circle_would_be_found() -> None:
    graph = grimp.ImportGraph()
    for module in ("a", "b", "c", "d"):
        graph.add_module(module)
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == [["b", "c"]]


SOURCES = {
    file.relative_to(REPOSITORY).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
    for room in ("edgecnn", "converters", "runners")
    for file in sorted((REPOSITORY / room).rglob("*.py"))
    if not {"converters", "runners"} & set(file.relative_to(REPOSITORY / room).parts)
}
ARCHITECTURE = (REPOSITORY / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
VERB_LINES, FUNCTION_LINES = 45, 55  # of a body, without its docstring


def module_name(path: str) -> str:
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.startswith("edgecnn") else f"edgecnn.{name}"


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Each function's name, and how many lines its body has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False) is not None
            body = node.body[1:] if documented and len(node.body) > 1 else node.body
            yield node.name, (node.end_lineno or 0) - body[0].lineno + 1


def private_imports(path: str, tree: ast.Module) -> list[str]:
    """What a module takes from another package though its name says that it is that package's own."""
    package = module_name(path) if path.endswith("__init__.py") else module_name(path).rpartition(".")[0]
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgecnn.")):
            continue
        for alias in node.names:
            parts = [*(node.module or "").split("."), alias.name]
            for index, part in enumerate(parts):
                owner = ".".join(parts[:index])
                if part.startswith("_") and not part.startswith("__") and not f"{package}.".startswith(f"{owner}."):
                    found.append(f"{path} imports {'.'.join(parts)}")
    return found


def identifiers(tree: ast.Module) -> Iterator[str]:
    """Names that a module gives: of variables, parameters, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def names_in(tree: ast.Module) -> set[str]:
    """What a module has: what it defines, and what it imports."""
    imported = {
        alias.asname or alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names
    }
    return imported | set(identifiers(tree))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.startswith("edgecnn/_verbs/")])
def test_a_verb_reads_as_the_sentence_of_what_it_does(path: str) -> None:
    long = {name: lines for name, lines in functions(SOURCES[path]) if lines > VERB_LINES}
    assert not long, f"{path}: what a verb does lies with its owner, and the verb calls it"


def test_functions_fit_on_a_page() -> None:
    long = {(path, name): n for path, tree in SOURCES.items() for name, n in functions(tree) if n > FUNCTION_LINES}
    assert not long


def test_what_is_private_to_a_package_is_imported_by_it_alone() -> None:
    found = [
        each for path, tree in SOURCES.items() if path != "edgecnn/__main__.py" for each in private_imports(path, tree)
    ]
    assert found == []


def test_a_private_import_would_be_found() -> None:
    tree = ast.parse("from edgecnn.tasks import _objects\nfrom edgecnn.tasks.base import _function, Task")
    assert len(private_imports("edgecnn/report/flow.py", tree)) == 2
    assert private_imports("edgecnn/tasks/detect.py", tree) == [
        "edgecnn/tasks/detect.py imports edgecnn.tasks.base._function"
    ]


# The glossary in docs/explanation/architecture.md: where a word may name something.
ROOMS = {
    "target": (
        "edgecnn/targets/",
        "edgecnn/bundle/",
        "edgecnn/formats/",
        "converters/",
        "edgecnn/_verbs/convert.py",
        "edgecnn/pruning/pruning.py",
    ),
    "window": ("runners/live/sinks/window.py", "edgecnn/sources/zoo/"),
    "pipeline": ("runners/live/cameras/gstreamer.py",),
}


@pytest.mark.parametrize("word", ROOMS)
def test_a_word_with_one_meaning_names_nothing_else(word: str) -> None:
    elsewhere = {
        f"{path}: {name}"
        for path, tree in SOURCES.items()
        if not path.startswith(ROOMS[word])
        for name in identifiers(tree)
        if {word, f"{word}s"} & set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))
    }
    assert not elsewhere


def test_what_is_named_by_a_string_is_there() -> None:
    """Rows of tables name what they import; the files of f-strings lie beside their table."""
    absent = []
    for path, tree in SOURCES.items():
        rooms = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name) and isinstance(node.value.value, str)
        }
        for node in ast.walk(tree):
            named = _string(node, rooms)
            if found := re.fullmatch(r"(edgecnn(?:\.\w+)+):(\w+)", named or ""):
                place = next((f for f in SOURCES if module_name(f) == found[1]), None)
                if place is None or found[2] not in names_in(SOURCES[place]):
                    absent.append(f"{path}: {named}")
    assert absent == []


def _string(node: ast.AST, rooms: Mapping[str, Any]) -> str | None:
    """A string, or an f-string of names of the module that hold strings."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = [
        each.value if isinstance(each, ast.Constant) else rooms.get(getattr(getattr(each, "value", None), "id", ""))
        for each in node.values
    ]
    return None if None in parts else "".join(map(str, parts))


def test_every_room_stands_on_a_floor() -> None:
    """What the contract doesn't list, it lets import everything."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    floors = project["tool"]["importlinter"]["contracts"][0]["layers"]
    listed = {room.strip() for floor in floors for room in floor.split("|")}
    rooms = {".".join(module_name(path).split(".")[:2]) for path in SOURCES}
    assert rooms - listed == {"edgecnn", "edgecnn.__main__", "edgecnn._version"}


def test_the_architecture_page_shows_the_levels_of_the_contract() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    floors = project["tool"]["importlinter"]["contracts"][0]["layers"]
    wanted = [[room.strip().removeprefix("edgecnn.") for room in floor.split("|")] for floor in floors]
    shown = ARCHITECTURE.partition("<!-- levels -->\n")[2].partition("\n\n")[0]
    assert [re.findall(r"`(\w+)`", level) for level in shown.split("→")] == wanted


def test_the_architecture_page_names_every_folder_and_file_at_the_top() -> None:
    tree = re.findall(r"[\w./]+", ARCHITECTURE.partition("## The tree")[2].partition("Dependencies point")[0])
    tops = {path.split("/")[1] for path in SOURCES if path.startswith("edgecnn/") and path.count("/") == 1}
    rooms = {f"{path.split('/')[1]}/" for path in SOURCES if path.startswith("edgecnn/") and path.count("/") > 1}
    assert (tops - {"__init__.py", "__main__.py", "_version.py"}) | rooms <= set(tree)
