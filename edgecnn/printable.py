"""Makes text from other sources safe to show: characters that control a terminal are shown instead of executed.

A label, a file name, a board's answer or a package's error may contain escape sequences (which move the cursor, rename
the window or hide a line), line separators, characters that change the direction of writing, or invalid bytes.
"""

from __future__ import annotations

import hashlib
import re

# Control characters (C0 except tab and line feed; DEL; C1), surrogates of invalid bytes, line and paragraph
# separators, and characters that change or isolate the direction of writing. Joiners stay: several scripts need them.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: object, *, lines: bool = True) -> str:
    r"""The text with each character that a terminal would execute shown as in Python: "\x1b", "\u202e".

    Args:
        text: any object; converted with `str`.
        lines: keep tabs and line feeds; False shows them too, so that one line stays one.
    """
    shown = _COMMANDS.sub(_escaped, str(text))
    return shown if lines else shown.replace("\n", "\\n").replace("\t", "\\t")


def printable_json(text: str) -> str:
    r"""An equivalent JSON document that is safe for a terminal: "\u009b" for the character itself.

    Args:
        text: a JSON document; outside its strings there are no such characters except line feeds.
    """
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(text: object, *, length: int = 200) -> str:
    """One printable line of at most `length` characters."""
    line = printable(text, lines=False)
    return line if len(line) <= length else line[: length - 1] + "…"


def distinct_name(text: str, as_is: str, *, longest: int = 200) -> str:
    """A text in letters, digits, - and _, for an id or a file's name: different texts give different, stable names.

    Args:
        text: any.
        as_is: pattern of the texts that need no hash, because nothing else becomes what they become.
        longest: characters, of a name with a hash its last ones.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", text)
    if re.fullmatch(as_is, text) and len(plain) <= longest and not re.search(r"_[0-9a-f]{8}$", plain):
        return plain
    return f"{plain[9 - longest :]}_{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
