"""Reads a verb's options from its signature, for the command line, files and reference pages."""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from edgecnn.options import kinds
from edgecnn.options.kinds import Kind
from edgecnn.options.option import Fields, Option

_BY_TYPE: dict[type, Kind] = {
    bool: kinds.FLAG,
    int: kinds.WHOLE,
    float: kinds.NUMBER,
    Path: kinds.PATH,
    str: kinds.TEXT,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One option with all its properties.

    Attributes:
        parameter: name of the function's parameter.
        field: field of the record that this parameter is; "" where it is the value itself.
        record: the record's "package.module:Class".
        option: how it is given.
        kind: type of its value.
        help: what it does.
        default: default in the signature; `inspect.Parameter.empty` where it is required.
    """

    parameter: str
    field: str = ""
    record: str = ""
    option: Option
    kind: Kind
    help: str
    default: Any

    @property
    def name(self) -> str:
        """The name in a file: "max-drop"."""
        return self.option.name or (self.field or self.parameter).replace("_", "-")

    @property
    def key(self) -> str:
        """A Python name, unique among a verb's options."""
        return self.name.replace("-", "_")

    @property
    def spelling(self) -> str:
        """The name in messages: "--max-drop", "BUNDLE"."""
        return self.metavar if self.option.positional else f"--{self.name}"

    @property
    def metavar(self) -> str:
        """Placeholder for its value."""
        if self.option.metavar or not self.option.positional:
            return self.option.metavar or self.kind.metavar
        return self.name.upper()

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty

    @property
    def default_text(self) -> str:
        """Description of the default in the help; "" where there is none."""
        if self.option.default:
            return self.option.default
        value = self.default
        if self.required or value is None or value is False or value == () or value == "":
            return ""
        if self.kind is kinds.PICTURE_SIZE:
            return "x".join(map(str, value))
        if value is True:
            return "on"
        return f"{value:g}" if isinstance(value, float) else str(value)


def settings_of(function: Callable[..., Any]) -> tuple[Setting, ...]:
    """The options among a function's parameters, in order; parameters without an `Option` exist only in Python."""
    descriptions = docstring_arguments(function)
    return tuple(_settings(function, descriptions))


def _settings(function: Callable[..., Any], descriptions: Mapping[str, str]) -> Iterator[Setting]:
    names = vars(sys.modules[inspect.unwrap(function).__module__])
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            for name, annotation in _unpacked(parameter.annotation, names).items():
                yield from _setting(name, annotation, None, descriptions)
            continue
        annotation = _evaluated(parameter.annotation, names)
        record = next((each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, Fields)), None)
        if record is not None:
            yield from _fields(parameter.name, record.home)
        else:
            yield from _setting(parameter.name, annotation, parameter.default, descriptions)


def _setting(name: str, annotation: Any, default: Any, descriptions: Mapping[str, str]) -> Iterator[Setting]:
    option = _merged(annotation)
    if option is None:
        return
    kind = option.kind or _kind(get_args(annotation)[0])
    text = option.help or _sentence(descriptions.get(name, ""))
    yield Setting(parameter=name, option=option, kind=kind, help=text, default=default)


def _fields(parameter: str, home: str) -> Iterator[Setting]:
    record = load(home)
    descriptions = docstring_arguments(record)
    names = vars(sys.modules[record.__module__])
    annotations = inspect.get_annotations(record)
    for field in inspect.signature(record).parameters.values():
        annotation = _evaluated(annotations.get(field.name), names)  # None for a field of a base class: Python only
        for setting in _setting(field.name, annotation, field.default, descriptions):
            yield replace(setting, parameter=parameter, field=field.name, record=home)


def _unpacked(annotation: Any, names: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the TypedDict in `**options: Unpack[…]`."""
    found = re.fullmatch(r"Unpack\[([\w.]+)\]", annotation) if isinstance(annotation, str) else None
    if found is None:
        return {}
    table = eval(found[1], dict(names))
    module = vars(sys.modules[table.__module__])
    return {name: _evaluated(each.__forward_arg__, module) for name, each in table.__annotations__.items()}


def _evaluated(annotation: Any, names: Mapping[str, Any]) -> Any:
    """An annotation that may be a string, and may use names imported only for type checking."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, dict(names))
    except (NameError, AttributeError, TypeError):
        if "Option(" in annotation or "Fields(" in annotation:
            raise
        return None


def _merged(annotation: Any) -> Option | None:
    """The option in an annotation; where a verb refines a shared one, the last values are used."""
    if get_origin(annotation) is not Annotated:
        return None
    options = [each for each in get_args(annotation)[1:] if isinstance(each, Option)]
    plain = Option()
    more = {
        f.name: value
        for each in options
        for f in fields(each)
        if (value := getattr(each, f.name)) != getattr(plain, f.name)
    }
    return replace(plain, **more) if options else None


def _kind(annotation: Any) -> Kind:
    """The type of values for a plain Python type."""
    held = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    for each, kind in _BY_TYPE.items():
        if each in held:
            return kind
    raise TypeError(f"an option of type {annotation} must give its kind")


def _sentence(text: str) -> str:
    """A docstring's text as a complete sentence."""
    text = text.strip().replace("`", "")
    begun = text[:1].upper() + text[1:]
    return begun if begun.endswith((".", "!", "?")) or not begun else f"{begun}."


def load(home: str) -> Any:
    """The object that "package.module:attribute" names."""
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute)


def docstring_arguments(documented: Any) -> dict[str, str]:
    """A Google-style docstring's text for each parameter (or attribute)."""
    descriptions: dict[str, str] = {}
    inside, names = False, []
    for line in inspect.cleandoc(documented.__doc__ or "").splitlines():
        if re.fullmatch(r"(Args|Attributes):", line):
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        elif inside and (begins := re.match(r"    (\w[\w, *]*): (.*)", line)):
            names = [name.strip(" *") for name in begins[1].split(",")]
            descriptions.update(dict.fromkeys(names, begins[2]))
        elif inside and line.strip():
            descriptions.update({name: f"{descriptions[name]} {line.strip()}" for name in names})
    return descriptions
