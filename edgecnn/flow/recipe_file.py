"""Reads a recipe from a TOML file; a wrong key or value is reported before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import Struct

from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.flow.recipe import DEFAULT_WEIGHTS, Recipe
from edgecnn.options.toml import read_toml
from edgecnn.sources.table import is_network_path


def read_recipe(file: str | Path) -> Recipe:
    """A recipe from a TOML file; its paths are relative to the file's folder.

    Raises:
        DataError: the file cannot be read, or is not TOML.
        UnknownNameError: an unknown key; lists the nearest known keys.
        SpecError: a value that is not valid, or two that contradict each other.
    """
    file = Path(file)
    raw = read_toml(file, "a recipe")
    _refuse_unknown(raw, Recipe, f"key of the recipe {file.name}")
    values = {name: value for name, value in raw.items() if not isinstance(value, dict)}
    for name in ("model", "weights"):
        _from_folder(values, name, file.parent)
    for field in msgspec.structs.fields(Recipe):
        kind = _struct_in(field.type)
        if kind is not None and isinstance(raw.get(field.encode_name), dict):
            values[field.encode_name] = _converted(raw[field.encode_name], kind, file, f"[{field.encode_name}] ")
    recipe: Recipe = _converted(values, Recipe, file, "")
    return recipe


def _converted(raw: dict[str, Any], kind: type[Any], file: Path, table: str) -> Any:
    def place(wanted: type, value: Any) -> Any:
        if wanted is Path and isinstance(value, str):
            return file.parent / value
        raise msgspec.ValidationError(f"Expected a path, got `{type(value).__name__}`")

    if kind is Recipe:
        fields = {field.encode_name: field.name for field in msgspec.structs.fields(Recipe)}
        tables = {fields[name]: value for name, value in raw.items() if isinstance(value, Struct)}
        plain = {name: value for name, value in raw.items() if not isinstance(value, Struct)}
    else:
        tables, plain = {}, raw
    try:
        made = msgspec.convert(plain, kind, dec_hook=place)
        return msgspec.structs.replace(made, **tables) if tables else made
    except msgspec.ValidationError as wrong:
        raise SpecError(f"{file}: {table}{wrong}") from wrong
    except UnknownNameError:
        raise
    except SpecError as wrong:
        raise SpecError(f"{file}: {table}{wrong}") from wrong


def _from_folder(values: dict[str, Any], name: str, folder: Path) -> None:
    """Make a path relative to the recipe's folder relative to the working folder."""
    value = values.get(name)
    if not isinstance(value, str):
        return
    is_path = value != DEFAULT_WEIGHTS if name == "weights" else is_network_path(value)
    if is_path:
        values[name] = str(folder / value)


def _refuse_unknown(raw: dict[str, Any], kind: type[Struct], what: str) -> None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, value in raw.items():
        if name not in fields:
            raise UnknownNameError(what, name, fields)
        inner = _struct_in(fields[name].type)
        if inner is not None and isinstance(value, dict):
            place = name if kind is Recipe else f"{what.removeprefix('key of [').removesuffix(']')}.{name}"
            _refuse_unknown(value, inner, f"key of [{place}]")


def _struct_in(kind: Any) -> type[Struct] | None:
    """The Struct type of a field, also inside a union."""
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, Struct):
            return one
    return None
