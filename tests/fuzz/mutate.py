"""Mutations of real files: of bytes and numbers, and of what JSON, ZIP, PNG and text files are made of."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    16,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**20,
    2**31 - 1,
    2**31,
    2**32 - 1,
    -1,
    -2,
)
_TEXT_NUMBERS = (
    *(b"-1", b"0", b"1e308", b"-1e309", b"NaN", b"Infinity", b"1e-320", b"0.5", b"2147483648", b"-9223372036854775809"),
    *(b"99999999999999999999", b"9" * 5000, b"0x10", b"1_000", b"007", b"\xd9\xa3", b"\xc2\xb2"),
)
_BYTES = (
    *(
        b"\0",
        b"\xff",
        b"\n",
        b"\r",
        b"\t",
        b'"',
        b"'",
        b"\\",
        b"/",
        b"../",
        b"/etc/passwd",
        b"%s%n",
        b"\x1b[2J",
        b"\x9b31m",
    ),
    *(
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xc2\x85",
        b"\xe2\x80\xae",
        b"[",
        b"]",
        b"{",
        b"}",
        b"<",
        b">",
        b"&",
        b"*",
        b"#",
    ),
)
_PNG = b"\x89PNG\r\n\x1a\n"

Mutation = Callable[[bytes, random.Random, Sequence[bytes], Sequence[bytes]], bytes]


def mutated(content: bytes, rng: random.Random, *, words: Sequence[bytes] = (), others: Sequence[bytes] = ()) -> bytes:
    """`content` with one to six changes.

    Args:
        content: a real file.
        rng: decides all.
        words: pieces to put in.
        others: files to take pieces from.
    """
    if content.startswith(b"PK\x03\x04") and rng.random() < 0.7:
        changed = _in_zip(content, rng, words)
        if changed is not None:
            return changed
    if content[:1] in b"{[" and rng.random() < 0.5:
        changed = _in_json(content, rng)
        if changed is not None:
            return changed
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        content = rng.choice(_MUTATIONS)(content, rng, words, others)
    if content.startswith(_PNG) and rng.random() < 0.7:
        content = with_checksums(content)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """Somewhere; often near the beginning, where headers are."""
    end = min(len(content), 512) if rng.random() < 0.4 else len(content)
    return rng.randrange(end + 1)


def _flip(content: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    at = _place(content, rng)
    return (
        content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        if at < len(content)
        else content
    )


def _number(content: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    at, size = _place(content, rng), rng.choice((1, 2, 4, 4, 8))
    if rng.random() < 0.5:
        at -= at % size
    value = rng.choice((*_NUMBERS, rng.randrange(1 << 31))) & ((1 << 8 * size) - 1)
    return content[:at] + value.to_bytes(size, rng.choice(("little", "big"))) + content[at + size :]


def _text_number(content: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:65536]))
    if not found:
        return _number(content, rng, words, others)
    match = rng.choice(found)
    return content[: match.start()] + rng.choice(_TEXT_NUMBERS) + content[match.end() :]


def _cut(content: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.choice((1, 2, 4, 16, 256, 1 << 20)) :]


def _repeat(content: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    at = _place(content, rng)
    piece = content[at : at + rng.choice((1, 2, 4, 16, 64))]
    return content[:at] + piece * rng.choice((2, 3, 10, 100, 3000)) + content[at:]


def _put(content: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    at, word = _place(content, rng), rng.choice((*words, *words, *_BYTES))
    over = len(word) if rng.random() < 0.5 else 0
    return content[:at] + word + content[at + over :]


def _splice(content: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else content
    at, start = _place(content, rng), _place(other, rng)
    return content[:at] + other[start : start + rng.choice((4, 32, 512, 1 << 20))] + content[at + rng.choice((0, 32)) :]


def _line(content: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """A line twice, away, or elsewhere."""
    lines = content.splitlines(keepends=True)
    if not 1 < len(lines) < 5000:
        return _cut(content, rng, words, others)
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.choice((0, 1, 2))):
        lines.insert(rng.randrange(len(lines) + 1), line)
    return b"".join(lines)


_MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _number, _number, _text_number, _cut, _repeat, _put, _splice, _line)


# ---------------------------------------------------------------------- forms
def _in_json(content: bytes, rng: random.Random) -> bytes | None:
    """One value of a JSON document replaced, left out, or doubled."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(document))
        if not places:
            return None
        holder, key = rng.choice(places)
        old = holder[key]
        if rng.random() < 0.15:
            del holder[key]
        elif rng.random() < 0.1 and isinstance(holder, list):
            holder.extend([old] * rng.choice((1, 100, 5000)))
        else:
            holder[key] = rng.choice((*_json_values(old, rng), rng.choice(places)[0]))
            if _depth(holder[key], 0) > 50:
                holder[key] = old
    try:
        return json.dumps(document).encode(errors="surrogatepass")
    except (ValueError, RecursionError):  # a value within itself
        return None


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 20_000:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else []
        for key in keys:
            found.append((one, key))
            waiting.append(one[key])
    return found


def _depth(value: Any, depth: int) -> int:
    if depth > 50 or not isinstance(value, dict | list):
        return depth
    return max(
        (_depth(one, depth + 1) for one in (value.values() if isinstance(value, dict) else value)), default=depth
    )


def _json_values(old: Any, rng: random.Random) -> list[Any]:
    values: list[Any] = [
        None,
        True,
        "",
        [],
        {},
        -1,
        0,
        1.5,
        2**63,
        -(2**63),
        1e308,
        "\0",
        "../x",
        "\x1b[31m",
        "a" * 3000,
    ]
    values += ["\ud800", "NaN", float("nan"), float("inf"), [[]], {"": 0}]
    if isinstance(old, str):
        values += [old + "x", old[:-1], old.upper(), old * 2, "/" + old, [old], old.replace("a", "\u202e")] * 2
    elif isinstance(old, bool):
        values += [not old] * 10
    elif isinstance(old, int | float):
        values += [old + 1, -old, old * 2, str(old), float(old), rng.choice(_NUMBERS)] * 3
    elif isinstance(old, list):
        values += [old[:-1], old * 2, old[::-1], old[:1]] * 4
    return values


def _in_zip(content: bytes, rng: random.Random, words: Sequence[bytes]) -> bytes | None:
    """One member of an archive changed, left out or renamed, with the right checksums."""
    written = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(written, "w") as copy:
            members = archive.infolist()
            chosen = rng.choice(members)
            for member in members:
                name, data = member.filename, archive.read(member)
                if member is chosen:
                    how = rng.random()
                    if how < 0.1:
                        continue
                    if how < 0.2:
                        name = rng.choice((name + "x", "../" + name, name.replace("data", "custom_obj"), "extra/x"))
                    elif data:
                        data = mutated(data, rng, words=words, others=[archive.read(rng.choice(members))])
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_STORED
                copy.writestr(info, data)
    except Exception:  # the archive is a mutated one: what can be wrong with it has no end
        return None
    return written.getvalue()


def with_checksums(png: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, as far as its lengths lead."""
    parts, at = [png[: len(_PNG)]], len(_PNG)
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        if at + 12 + length > len(png):
            break
        body = png[at + 8 : at + 8 + length]
        parts.append(struct.pack(">I4s", length, kind) + body + struct.pack(">I", zlib.crc32(kind + body)))
        at += 12 + length
    return b"".join([*parts, png[at:]])
