"""Types of option values: how they are read from the command line and from a file, and what errors say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

from edgecnn.errors import SpecError


class SizePx(NamedTuple):
    """A picture's size, width first."""

    width_px: int
    height_px: int


def parse_size(text: str, *, square: bool = False, what: str = "a size") -> SizePx:
    """Width and height from "1280x720".

    Args:
        text: WIDTHxHEIGHT in px.
        square: one number is allowed, as in "320".
        what: name of the size in the error.

    Raises:
        SpecError: another form.
    """
    width, cross, height = str(text).lower().partition("x")
    if square and not cross:
        height = width
    sides = (width, height)
    if not all(side.isascii() and side.isdecimal() and len(side) <= 6 and int(side) > 0 for side in sides):
        one, both = "WIDTHxHEIGHT in px, such as 1280x720", "a number or WIDTHxHEIGHT, such as 320 or 512x256"
        wanted = both if square else one
        raise SpecError(f"{what} must be {wanted}, got {text!r}")
    return SizePx(int(width), int(height))


@overload
def one_or_more(given: str | Sequence[str]) -> list[str]: ...
@overload
def one_or_more(given: str | Path | Sequence[str | Path]) -> list[str | Path]: ...
@overload
def one_or_more(given: object) -> list[Any]: ...


def one_or_more(given: object) -> list[Any]:
    """The values given in Python for an option that takes several: a text or a path alone is one, not its letters."""
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | Path):
        return list(given)
    return [given]


@dataclass(frozen=True)
class Kind:
    """A type of option values.

    Attributes:
        expected: for messages: "must be a whole number".
        metavar: placeholder for the value in the help.
        read: converts text from the command line; raises ValueError for a wrong one.
        plain: types that a file may give directly; text is read as on the command line.
        is_flag: True if it has no value on the command line.
        is_list: True for several values with commas between; a file may give a list.
        words: all possible values, where there are few.
    """

    expected: str
    metavar: str
    read: Callable[[str], Any]
    plain: tuple[type, ...] = ()
    is_flag: bool = False
    is_list: bool = False
    words: tuple[str, ...] = ()

    def from_file(self, value: Any) -> Any:
        """The value for one from a TOML file.

        Raises:
            ValueError: it has the wrong type.
        """
        if self.is_flag:
            if isinstance(value, bool):
                return value
            raise ValueError
        if isinstance(value, bool):
            raise ValueError
        if isinstance(value, str) and (str in self.plain or self.is_list):
            return self.read(value)
        if isinstance(value, list) and self.is_list:
            if any(isinstance(each, bool | list | dict) for each in value) or not value:
                raise ValueError
            if any(isinstance(each, str) is not (str in self.plain) for each in value):
                raise ValueError
            return self.read(",".join(str(each) for each in value))
        if type(value) in self.plain:
            return self.read(str(value))
        raise ValueError


def _whole(text: str) -> int:
    if not text.strip().lstrip("+-").isascii() or "_" in text or len(text) > 18:
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if "_" in text:
        raise ValueError
    return float(text)


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError
    return words


def _integers(text: str) -> list[int]:
    return [_whole(word) for word in text.split(",")]


def _integer_or_word(text: str) -> int | str:
    return _whole(text) if text.strip().lstrip("+-").isdecimal() else text


def _three(text: str) -> tuple[float, ...]:
    values = tuple(_number(word) for word in text.replace(",", " ").split())
    if len(values) not in (1, 3):
        raise ValueError
    return values * 3 if len(values) == 1 else values


def _frame_size(text: str) -> tuple[int, int]:
    try:
        size = parse_size(text, square=True)
    except SpecError as wrong:
        raise ValueError from wrong
    return size.height_px, size.width_px  # the order of `load_model`


def _picture_size(text: str) -> SizePx:
    try:
        return parse_size(text)
    except SpecError as wrong:
        raise ValueError from wrong


TEXT = Kind("text", "TEXT", str, (str,))
PATH = Kind("a path", "PATH", Path, (str,))
FLAG = Kind("true or false", "", lambda text: text == "true", is_flag=True)
WHOLE = Kind("a whole number", "N", _whole, (int,))
NUMBER = Kind("a number", "X", _number, (int, float))
WORDS = Kind("names with commas between", "A,B,…", _words, (str,), is_list=True)
WHOLES = Kind("whole numbers with commas between, such as 1,2,4", "N,N,…", _integers, (int,), is_list=True)
THREE = Kind("three numbers such as 0.485,0.456,0.406, or one", "R,G,B", _three, (int, float), is_list=True)
FRAME_SIZE = Kind("a number or WIDTHxHEIGHT, such as 320 or 512x256", "N|WxH", _frame_size, (int, str))
PICTURE_SIZE = Kind("WIDTHxHEIGHT in px, such as 1280x720", "WxH", _picture_size, (str,))
SOURCE = Kind("text, or a camera's number", "SOURCE", str, (int, str))
ADDRESS = Kind("[HOST:]PORT", "[HOST:]PORT", str, (int, str))
COUNT_OR_NAME = Kind("a whole number, or a name", "N|NAME", _integer_or_word, (int, str))


def one_of(*words: str) -> Kind:
    """One of these words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return Kind(f"one of {', '.join(words)}", "|".join(words), read, (str,), words=words)


def integer_between(low: int, high: int) -> Kind:
    """A whole number in a range, both ends included."""

    def read(text: str) -> int:
        if not low <= (number := _whole(text)) <= high:
            raise ValueError
        return number

    return Kind(f"a whole number from {low} to {high}", "N", read, (int,))
