"""Addresses with logins: how to keep them out of the command line, and how to show them without secrets."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Final

from edgecnn.errors import SpecError

HIDDEN: Final = "***"
_LONGEST_FILE_BYTES: Final = 1 << 16

# Patterns for text of others must not be searched again and again from each character of a long word.
_LONGEST_TEXT: Final = 8000
_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]{0,31}"
_URL: Final = re.compile(rf"(?P<scheme>{_SCHEME})://(?P<rest>\S*)")
_BEGIN: Final = re.compile(rf"\s*({_SCHEME})://")
_IN_QUOTES: Final = re.compile(rf"\\?([\"'])(?P<url>{_SCHEME}://.*?)\\?\1")
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.~%-]+)?\]|[\w.~%-]+)?(?::(?P<port>\d{0,5}))?")
_UNQUOTED_WORD: Final = re.compile(r"[^\s\"']+")
# Some cameras take the login in the path, rtsp://host/user=admin&password=secret&channel=1 or
# rtsp://host/user=admin_password=secret_channel=1, and pipelines as properties, user-pw="secret".
_WORD: Final = (
    r"(?:(?:passw|passphrase|secret|token|credential|cookie|authoriz|api[_-]?key)[\w-]*|(?<=[_-])(?:pw|pwd|pass|key)|"
    r"(?<![A-Za-z0-9])(?:user(?:[_-]?(?:name|id|pw|pass))?|usr|login|pass|pwd|psw|pw|key|"
    r"auth\w*|sig\w*|sid|session\w*|jwt|pin))"
)
_SECRET: Final = re.compile(
    rf"(?i)({_WORD})(\s*[=:]\s*)"
    r"(\\?\"(?:[^\"\\]|\\.)*\"?|'[^']*'?|(?:Basic|Bearer|Digest) \S+|[^\s&/;]+)"
)
# GStreamer: could not set property "user-pw" in element "rtspsrc0" to "secret"
_SET_TO: Final = re.compile(r"(?i)(property \"[^\"]*\".*? to )(\"(?:[^\"\\]|\\.)*\"|.*)")
_QUERY_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_OPAQUE: Final = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9]{16,}")  # a key used as a login


def redacted(text: str) -> str:
    """The text without logins, passwords, tokens and query values, so that it may be printed, logged and served.

    It may be an address, a pipeline, or a message that contains one. Where an address is ambiguous (an "@" or "#" in a
    password that is not written as %40), everything that could be part of the login is removed too. Of a text that is
    longer than any address, the end is left out.
    """
    if len(text) > _LONGEST_TEXT:
        text = text[:_LONGEST_TEXT]
        text = text[: max(map(text.rfind, " \n")) + 1] + "…"  # no half address
    begin = _BEGIN.match(text)
    if begin and re.search(r"\s", text.strip()) and "@" in text.strip().split(maxsplit=1)[1]:
        return f"{begin[1]}://{HIDDEN}"  # a space within the login
    found_no_url = "://" not in text
    text = _IN_QUOTES.sub(lambda quoted: quoted[0].replace(quoted["url"], _quoted(quoted["url"])), text)
    text = _URL.sub(lambda url: _without_secrets(url["scheme"], url["rest"]), text)
    if found_no_url:
        text = _UNQUOTED_WORD.sub(lambda word: HIDDEN if "@" in word[0].partition(":")[2] else word[0], text)
    text = _SET_TO.sub(rf'\1"{HIDDEN}"', text)
    return _SECRET.sub(rf"\1\2{HIDDEN}", text)


def check_address(url: str) -> None:
    """Refuse an address with an ambiguous login, which could be sent to another host.

    Raises:
        SpecError: it has a "#", a space or a bracket where none is allowed, or a port that is not a number.
    """
    scheme, _, rest = url.partition("://")
    authority, tail = _split(rest)
    host = authority.rpartition("@")[2]
    wrong_login = "#" in tail and "@" in tail.partition("#")[2]
    if wrong_login or re.search(r"\s", url) or not _is_host(host):
        raise SpecError(
            f"{redacted(url)}: this {scheme.lower()} address is not valid; expected {scheme.lower()}://"
            f"USER:PASSWORD@HOST:PORT/PATH, and in a login @ is written as %40, : as %3A, / as %2F, # as %23, ? as %3F"
        )


def resolved_secret(source: str, *, holds: str = "a URL") -> str:
    """The value that "env:NAME" or "file:PATH" refers to; any other text unchanged. Errors call the value `holds`.

    This keeps a login out of the process list, the shell's history and service files.

    Raises:
        SpecError: the variable is not set, the file can't be read or has more than one line; the value isn't quoted.
    """
    kind, colon, name = source.partition(":")
    if not colon or kind not in ("env", "file"):
        return source
    if kind == "env":
        value = os.environ.get(name, "").strip()
        if not value:
            raise SpecError(f"{source}: the environment variable {name!r} is not set or empty; it must hold {holds}")
        return value
    if name.startswith("//"):
        raise SpecError(f"{redacted(source)}: give a recording's path without file://; file:PATH reads {holds} from it")
    try:
        with Path(os.path.expandvars(name)).expanduser().open("rb") as there:
            lines = there.read(_LONGEST_FILE_BYTES).decode().split("\n")
    except OSError as failed:
        raise SpecError(f"{source}: {name} cannot be read: {failed.strerror or failed}; it must hold {holds}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{source}: {name} is not a text file; it must hold {holds} on a single line") from None
    values = [line.strip() for line in lines if line.strip()]
    if len(values) != 1:
        raise SpecError(f"{source}: {name} has {len(values)} lines; it must hold {holds} on a single line")
    return values[0]


def _split(rest: str) -> tuple[str, str]:
    """The part before the path, and the rest with its first character."""
    end = next((index for index, sign in enumerate(rest) if sign in "/?#"), len(rest))
    return rest[:end], rest[end:]


def _quoted(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{HIDDEN}" if re.search(r"\s", rest) else _without_secrets(scheme, rest)


def _without_secrets(scheme: str, rest: str) -> str:
    authority, tail = _split(rest)
    if "@" not in tail:
        return _shown(scheme, authority, tail)
    before, _, after = rest.rpartition("@")
    _, has_login, host = authority.rpartition("@")
    if not _is_host(host) or has_login:
        # the login may continue after a character that usually ends it; text after "=" or "?" may be another secret
        several = "@" in before
        if several and re.search(r"[?=;]", before):
            return f"{scheme}://{HIDDEN}"
        return _shown(scheme, f"{HIDDEN}@{_split(after)[0]}", _split(after)[1])
    if _is_address(host) or ":" not in host:
        return f"{scheme}://{host}/{HIDDEN}"
    return f"{scheme}://{HIDDEN}"  # host and port, or a user whose password begins with digits


def _shown(scheme: str, authority: str, tail: str) -> str:
    _, has_login, host = authority.rpartition("@")
    if not _is_host(host):
        return f"{scheme}://{HIDDEN}"
    return f"{scheme}://{f'{HIDDEN}@' if has_login else ''}{host}{_tail_without_secrets(tail)}"


def _tail_without_secrets(tail: str) -> str:
    tail, has_fragment, _ = tail.partition("#")
    path, has_query, query = tail.partition("?")
    parts = [_segment_without_secrets(part) for part in path.split("/")]
    shown = "/".join(parts)
    if has_query:
        shown += "?" + "&".join(_value_hidden(part) for part in re.split(r"[&;]", query))
    return shown + (f"#{HIDDEN}" if has_fragment else "")


def _segment_without_secrets(segment: str) -> str:
    if _OPAQUE.fullmatch(segment):
        return HIDDEN
    if ":" in segment:  # rtsp://host/user:password/1
        return HIDDEN
    secret = _SECRET.search(segment.replace("_", "&"))
    return segment[: secret.start(2)] + f"={HIDDEN}" if secret else segment


def _value_hidden(part: str) -> str:
    name, has_value, _ = part.partition("=")
    return f"{name}={HIDDEN}" if has_value and _QUERY_NAME.fullmatch(name) else HIDDEN


def _is_host(text: str) -> bool:
    return bool(text) and (_HOST.fullmatch(text) is not None or _is_address(text))


def _is_address(host: str) -> bool:
    found = _HOST.fullmatch(host)
    name = (found["host"] or "").strip("[]") if found else host
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
