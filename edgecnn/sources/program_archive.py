"""Opens an exported program (.pt2) without running any code from it.

`torch.export.load` runs code from an archive: it unpickles sample inputs, weights and constants that it cannot
read otherwise, loads compiled libraries, evaluates the expressions of sizes, compiles guards and the names of nodes as
Python, and looks operators up anywhere below `torch` (`torch.os.system` is one). So it never gets the file: it gets a
copy in memory with raw tensors, tensors read with weights_only, and a graph in which every word was checked
against a pattern.

Source of the names: torch/export/pt2_archive/constants.py and torch/_export/serde/schema.py, torch 2.8 to 2.14.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import torch

from edgecnn.errors import SourceError
from edgecnn.printable import shortened
from edgecnn.sources.plain_pickle import load_plain

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_SAFE_WAY = "save its weights with safetensors.torch.save_file(model.state_dict(), FILE), and name the network"
_MOST_BYTES = 16 << 30
_MOST_GRAPH_BYTES = 256 << 20
_MOST_DEPTH = 64
_COPIED = re.compile(r"(archive_format|archive_version|byteorder|version|\.data/[\w.]+)")
_RAW = re.compile(r"data/(weights|constants)/(weight|tensor)_\d+")
_LISTS = re.compile(r"data/(weights|constants)/[\w-]+_(weights|constants)_config\.json")
_GRAPH = re.compile(r"models/[\w-]+\.json|serialized_exported_program\.json")
_PICKLED = re.compile(r"data/(weights|constants)/[\w-]+\.pt|serialized_(state_dict|constants)\.(pt|json)")
_SAMPLES = re.compile(r"data/sample_inputs/[\w-]+\.pt|serialized_example_inputs\.pt")
_LEFT_OUT = re.compile(r"extra/.*|extra_files/.*|.*/")

_OPERATORS = re.compile(r"torch\.ops\.(aten|prim|prims|torchvision|quantized_decomposed)\.\w+(\.\w+)?")
_NOT_OF_A_NETWORK = re.compile(r"torch\.ops\.\w+\.(from_file|save|load|_?print\w*|warn|format|get_gradients)(\.\w+)?")
_SIZES_OPERATORS = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|lshift|rshift)"
    r"|math\.(ceil|floor|trunc|sqrt|prod)|torch\.sym_\w+"
)
_WRAPPERS = re.compile(
    r"torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|map_impl|scan|while_loop)"
)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PATH = re.compile(r"[\w.\-]{0,1000}", re.ASCII)
_WORDS = re.compile(r"[\w .,:/+\-*>=\[\]]{0,1000}", re.ASCII)
_NAME_KEYS = frozenset({"name", "as_name"})
_NAMED_BY_KEY = frozenset({"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"})
_EXPRESSION_WORDS = frozenset(
    (
        *("Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "Min", "Max", "Abs", "Where"),
        *("FloorDiv", "CleanDiv", "CeilDiv", "PythonMod", "ModularIndexing", "IntTrueDiv", "FloatTrueDiv"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality"),
        *("StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"),
        *("TruncToInt", "TruncToFloat", "CeilToInt", "FloorToInt", "RoundToInt", "ToFloat", "Identity"),
        *("true", "false", "BooleanTrue", "BooleanFalse"),
    )
)
_TREE_TYPES = frozenset(
    {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", "torch.Size"}
)


def load_program(path: Path) -> ExportedProgram:
    """Load a .pt2 file without running any code from it.

    Raises:
        SourceError: missing, truncated, or it holds data that cannot be read without running code; says which.
    """
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    try:
        copy = _rewritten(path)
        with _quiet():
            return torch.export.load(copy)
    except SourceError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError) as failed:
        raise SourceError(f"{path} is truncated or not an exported program (.pt2): {failed}") from failed
    except Exception as failed:  # torch may raise any exception
        raise SourceError(f"{path} is truncated or not an exported program (.pt2): {shortened(failed)}") from failed


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses torch's warnings about old forms and missing parts, which our errors report."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _rewritten(path: Path) -> io.BytesIO:
    """A new archive with only the allowed parts."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as written:
        members = archive.infolist()
        if sum(member.file_size for member in members) > _MOST_BYTES:
            raise SourceError(f"{path} declares more than {_MOST_BYTES >> 30} GB of content")
        if any(member.file_size > 1000 * max(member.compress_size, 1000) for member in members):
            raise SourceError(f"{path} is a decompression bomb: one part expands a thousandfold")
        if len({member.filename for member in members}) != len(members):
            raise SourceError(f"{path} has two parts of the same name")
        if not any(_GRAPH.fullmatch(_split(member.filename)[1]) for member in members):
            raise SourceError(f"{path} is truncated or not an exported program (.pt2): it has no graph")
        sizes = {member.filename: member.file_size for member in members}
        for member in members:
            root, inner = _split(member.filename)
            content = _checked(path, root, inner, archive, member, sizes)
            if content is not None:
                written.writestr(zipfile.ZipInfo(member.filename), content)
    copy.seek(0)
    return copy


def _split(name: str) -> tuple[str, str]:
    """The archive's own folder, and the part's name in it; torch before 2.8 had no folder."""
    if _GRAPH.fullmatch(name) or _PICKLED.fullmatch(name) or _SAMPLES.fullmatch(name) or name == "version":
        return "", name
    if name.startswith("extra_files/"):
        return "", name
    root, _, inner = name.partition("/")
    return root + "/", inner


def _checked(
    path: Path, root: str, inner: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, sizes: dict[str, int]
) -> bytes | None:
    """The content of one part of the copy; None where the part is left out.

    Raises:
        SourceError: a part that a network does not need.
    """
    if not inner or _LEFT_OUT.fullmatch(inner):
        return None
    if _SAMPLES.fullmatch(inner):
        return b""  # a pickle that conversion does not need
    if _GRAPH.fullmatch(inner):
        if member.file_size > _MOST_GRAPH_BYTES:
            raise SourceError(f"{path}: its graph has {member.file_size >> 20} MB")
        return _checked_graph(path, archive.read(member))
    if _LISTS.fullmatch(inner):
        return _checked_list(path, root + inner.rpartition("/")[0] + "/", archive.read(member), sizes)
    content = archive.read(member)
    if _COPIED.fullmatch(inner):
        return content
    if _RAW.fullmatch(inner):
        return _saved_again(path, inner, content) if _is_pickle(content) else content
    if _PICKLED.fullmatch(inner):
        return _saved_again(path, inner, content) if content else content
    what = {
        "aotinductor": "compiled libraries",
        "custom_obj": "objects of compiled classes",
        "opaque_obj": "pickled objects",
    }
    found = next((words for word, words in what.items() if word in inner), f"the part {shortened(inner)!r}")
    raise SourceError(f"{path} holds {found}, which could only be used by running code from the file: {_SAFE_WAY}")


def _is_pickle(content: bytes) -> bool:
    """Whether torch.save wrote it (a zip file, or its old form); otherwise it is a tensor's raw data."""
    return content[:4] == b"PK\x03\x04" or content[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _saved_again(path: Path, inner: str, content: bytes) -> bytes:
    """A new pickle with the tensors that were read from theirs without running it."""
    try:
        value = load_plain(io.BytesIO(content))
    except Exception as failed:
        if not content.startswith(b"PK"):  # a tensor's raw data may begin like a pickle
            return content
        raise SourceError(
            f"{path}: {inner} is a pickle with more than tensors; loading it would run code from the file: {_SAFE_WAY}"
        ) from failed
    again = io.BytesIO()
    torch.save(value, again)
    return again.getvalue()


def _checked_list(path: Path, folder: str, content: bytes, sizes: dict[str, int]) -> bytes:
    """The list of weights or constants, after a check that each one's part exists and is large enough."""
    document = json.loads(content)
    for name, entry in document["config"].items():
        part = entry["path_name"]
        if not _PATH.fullmatch(name) or PurePosixPath(part).name != part or folder + part not in sizes:
            raise SourceError(f"{path}: its list of weights names {shortened(part)!r}, which is not in the file")
        if entry.get("use_pickle"):
            continue
        dimensions = [size["as_int"] for size in (entry.get("tensor_meta") or {}).get("sizes", [])]
        if math.prod(dimensions) > max(sizes[folder + part], 1) * 8 or any(size < 0 for size in dimensions):
            raise SourceError(f"{path}: {shortened(name)!r} is declared as {dimensions}, but has too little data")
    return content


# ---------------------------------------------------------------------- the graph
def _checked_graph(path: Path, content: bytes) -> bytes:
    """The graph without the parts not needed to run it, after every word of it was checked."""
    document = json.loads(content)
    if not isinstance(document, dict) or "graph_module" not in document:
        raise SourceError(f"{path}: its graph is not one that torch.export wrote")
    document["guards_code"] = []  # Python code; our fixed frame size makes guards unnecessary
    _check_value(document, lambda what: _refuse(path, what), "", 0)
    return json.dumps(document).encode()


def _refuse(path: Path, what: str) -> None:
    raise SourceError(f"{path}: {what}; none of its code was run. Export the network again, or {_SAFE_WAY}")


def _check_value(value: Any, refuse: Callable[[str], None], key: str, depth: int) -> None:
    """Check every word of a graph, and empty the descriptive ones (file names, stacks)."""
    if depth > _MOST_DEPTH:
        refuse("its graph is nested too deeply")
    if isinstance(value, list):
        for one in value:
            _check_value(one, refuse, key, depth + 1)
    elif isinstance(value, dict):
        for name in value:
            pattern = _IDENTIFIER if key in _NAMED_BY_KEY else _WORDS
            if not pattern.fullmatch(name):
                refuse(f"its graph has the name {shortened(name)!r}")
        for name, one in value.items():
            if name == "metadata" and isinstance(one, dict):
                value[name] = {}
            else:
                _check_value(one, refuse, name, depth + 1)
    elif isinstance(value, str):
        _check_word(value, refuse, key)


def _check_word(word: str, refuse: Callable[[str], None], key: str) -> None:
    if key == "target":
        if _NOT_OF_A_NETWORK.fullmatch(word) or not any(
            known.fullmatch(word) for known in (_OPERATORS, _SIZES_OPERATORS, _WRAPPERS)
        ):
            refuse(f"its graph calls {shortened(word)!r}, which is not an allowed operator")
    elif key == "expr_str":
        if not _is_expression(word):
            refuse(f"its graph has the size {shortened(word)!r}")
    elif key in {"in_spec", "out_spec"}:
        if word and not _is_tree(word):
            refuse(f"its inputs or outputs have an unknown structure: {shortened(word)!r}")
    elif key in _NAME_KEYS or key == "forward_arg_names":
        if word and not _IDENTIFIER.fullmatch(word):
            refuse(f"its graph has the name {shortened(word)!r}")
    elif not _WORDS.fullmatch(word):
        refuse(f"its graph holds {shortened(word)!r}")


def _is_expression(text: str) -> bool:
    """Whether a size is arithmetic on named sizes: sympy evaluates it as Python."""
    try:
        parsed = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(parsed):
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or node.func.id not in _EXPRESSION_WORDS:
                return False
        elif isinstance(node, ast.Name):
            if node.id not in _EXPRESSION_WORDS and not re.fullmatch(r"[a-z]{1,2}\d+|zuf\d+|oo|int_oo", node.id):
                return False
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                if not _IDENTIFIER.fullmatch(node.value):
                    return False
            elif not isinstance(node.value, int | float | bool) or abs(node.value) > 1 << 62:
                return False
        elif isinstance(node, ast.Pow):
            return False  # 9**9**9
        elif not isinstance(
            node,
            ast.Expression | ast.keyword | ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop | ast.Load | ast.Tuple,
        ):
            return False
    return True


def _is_tree(text: str) -> bool:
    """Whether a pytree's description has only plain containers."""
    try:
        _, tree = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return False

    def plain(node: Any, depth: int) -> bool:
        if not isinstance(node, dict) or depth > _MOST_DEPTH or node.get("type") not in _TREE_TYPES:
            return False
        context = node.get("context")
        if isinstance(context, str):
            try:
                context = json.loads(context)
            except ValueError:
                return False
        names = context if isinstance(context, list) else []
        if context is not None and not isinstance(context, list):
            return False
        if not all(isinstance(name, str) and _PATH.fullmatch(name) for name in names):
            return False
        return all(plain(child, depth + 1) for child in node.get("children_spec", []))

    return plain(tree, 0)
