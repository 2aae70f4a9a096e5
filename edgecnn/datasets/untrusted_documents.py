"""Reads YAML, XML and JSON from untrusted files with limits: a small file can't use much memory or time.

YAML with PyYAML's parser: every scalar stays text (`no` is a class name, `2e9` is not a number), and size,
depth and the expansion of aliases are limited. XML with expat: a document with a DTD, which can define entities, is
refused. JSON with msgspec, into the requested types: errors name the place of a wrong value.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from xml.etree import ElementTree
from xml.parsers import expat

import msgspec

from edgecnn.bounded import read_bounded
from edgecnn.errors import DataError, MissingDependencyError

T = TypeVar("T")
Yaml: TypeAlias = "str | list[Yaml] | dict[str, Yaml]"

MAX_YAML_BYTES = 1_000_000
MAX_XML_BYTES = 4_000_000  # of one picture
MAX_LABEL_BYTES = 4_000_000  # of one picture
MAX_TEXT_BYTES = 50_000_000
_MAX_LINES = 2_000_000  # each takes 50 bytes and more
MAX_JSON_BYTES = 2_000_000_000  # COCO's own has 450 MB
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_MAX_DEPTH = 32
_MAX_NODES = 200_000  # including expanded aliases


def read_text(path: Path, *, limit_bytes: int = MAX_TEXT_BYTES) -> str:
    """The content of a text file.

    Raises:
        DataError: it cannot be read, isn't text, or is larger than any such file should be.
    """
    try:
        text = _read(path, limit_bytes).decode("utf-8-sig")
        if len(text) > _MAX_LINES and sum(map(text.count, _LINE_ENDS)) > _MAX_LINES:
            raise DataError(f"{path} has more than {_MAX_LINES} lines")
        return text
    except UnicodeDecodeError as failed:
        raise DataError(f"{path} is not UTF-8 text: {failed}") from failed


def read_yaml(path: Path) -> Yaml:
    """A YAML document as texts, lists and mappings; every scalar stays text.

    Raises:
        DataError: it isn't YAML, has a key twice, or is larger or deeper than any list of classes should be.
        MissingDependencyError: PyYAML is not installed.
    """
    return parse_yaml(read_text(path, limit_bytes=MAX_YAML_BYTES), str(path))


def parse_yaml(text: str, name: str) -> Yaml:
    """See `read_yaml`; `name` is for messages."""
    try:
        import yaml
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("reading YAML", "yaml", extra="eval") from missing
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        events = _bounded(yaml.parse(text, Loader=loader), yaml, name)
        return _YamlBuilder(events, yaml, name).document()
    except yaml.YAMLError as broken:
        message = " ".join(str(broken).split())
        raise DataError(f"{name} is broken YAML: {message[:300]}") from broken


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML document.

    Raises:
        DataError: broken, too large or too deep, or with a DTD.
    """
    data = _read(path, MAX_XML_BYTES)
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise DataError(f"{path} is nested deeper than {_MAX_DEPTH} elements, which labels are not")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise DataError(f"{path} has a DTD (<!DOCTYPE …>), which can define entities: remove it")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
        root = builder.close()
    except (expat.ExpatError, AssertionError, ValueError, LookupError) as broken:
        raise DataError(f"{path} is broken XML: {broken}; copy or export it again") from broken
    return root


def read_json(path: Path, kind: type[T]) -> T:
    """A JSON document as `kind`; fields that `kind` doesn't have are skipped.

    Raises:
        DataError: broken, nested too deep, or with a value of the wrong type; says where.
    """
    data = _read(path, MAX_JSON_BYTES)
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    try:
        return msgspec.json.decode(data, type=kind, strict=False)
    except msgspec.ValidationError as wrong:
        raise DataError(f"{path}: {wrong}") from wrong
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        raise DataError(f"{path} is broken JSON: {broken}; copy or export it again") from broken
    except RecursionError as deep:
        raise DataError(f"{path} is nested too deep for labels") from deep


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        return read_bounded(path, limit_bytes)
    except OSError as failed:
        raise DataError(f"{path} cannot be read: {failed.strerror or failed}") from failed


def _bounded(events: Iterator[Any], yaml: Any, name: str) -> Iterator[Any]:
    """The parser's events, with limits on number and depth, because composing them would recurse."""
    depth = 0
    for count, event in enumerate(events):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH or count > 2 * _MAX_NODES:
            raise DataError(f"{name} is nested too deep or too long for a description of a data set")
        yield event


class _YamlBuilder:
    """Builds one document from the parser's events."""

    def __init__(self, events: Iterator[Any], yaml: Any, name: str) -> None:
        self._events, self._yaml, self._name = events, yaml, name
        self._anchors: dict[str, tuple[Yaml, int]] = {}
        self._nodes = 0

    def document(self) -> Yaml:
        for event in self._events:
            if isinstance(event, self._yaml.DocumentStartEvent):
                return self._node(next(self._events))
        return ""

    def _node(self, event: Any) -> Yaml:
        yaml, before = self._yaml, self._nodes
        self._count(1)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise DataError(f"{self._name} uses &{event.anchor}, which is not defined before")
            value, size = self._anchors[event.anchor]
            self._count(size)
            return value
        if isinstance(event, yaml.ScalarEvent):
            value = str(event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence()
        else:
            value = self._mapping()
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._nodes - before
        return value

    def _sequence(self) -> list[Yaml]:
        items = []
        while not isinstance(event := next(self._events), self._yaml.SequenceEndEvent):
            items.append(self._node(event))
        return items

    def _mapping(self) -> dict[str, Yaml]:
        found: dict[str, Yaml] = {}
        while not isinstance(event := next(self._events), self._yaml.MappingEndEvent):
            key = self._node(event)
            line = event.start_mark.line + 1
            if not isinstance(key, str):
                raise DataError(f"{self._name}, line {line}: a key that is a list or a mapping")
            if key in found:
                raise DataError(f"{self._name}, line {line}: the key {key[:60]!r} occurs twice")
            found[key] = self._node(next(self._events))
        return found

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > _MAX_NODES:
            raise DataError(f"{self._name} has more than {_MAX_NODES} values: too many for a description of a data set")
