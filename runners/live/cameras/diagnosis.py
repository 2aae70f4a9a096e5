"""Finds out why a stream doesn't open: OpenCV doesn't report it, so the server is asked directly."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from typing import Final, Literal
from urllib.parse import SplitResult, unquote, urlsplit

TIMEOUT_S = 2.0
_RTSP_PORTS: Final = {"rtsp": 554, "rtsps": 322}
_LONGEST_ANSWER = 1 << 16
_ESCAPES: Final = "in a login, write @ as %40, : as %3A, / as %2F, # as %23, ? as %3F"


@dataclass(frozen=True)
class Diagnosis:
    """Why a stream doesn't open.

    text: the reason in a few words, without the login.
        text: in a few words, without the login.
        about_login: True if the server refuses the login: waiting won't change that.
    """

    text: str
    about_login: bool = False


def why_closed(url: str, *, advice: str) -> Diagnosis:
    """The reason given by a stream's server; takes at most a few seconds.

    Args:
        url: the rtsp://, rtsps://, http:// or https:// address that did not open.
        otherwise: text to add where the server answers without an error.
    """
    found = _diagnosis(url, advice, _status_of)
    assert found is not None  # only a check for silence finds nothing
    return found


def why_silent(url: str) -> Diagnosis | None:
    """Why nothing answers at an address; None where something does. Takes at most a few seconds.

    FFmpeg would wait longer, and it opens one stream at a time: a missing one would delay all others.
    """
    return _diagnosis(url, "", _connects)


def _diagnosis(
    url: str, advice: str, ask: Callable[[SplitResult, str], int | Literal["answered"] | None]
) -> Diagnosis | None:
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port
    except ValueError:
        return Diagnosis("its address is not valid; " + _ESCAPES)
    where = host if port is None else f"{host}:{port}"
    if "@" in (address.path + address.query + address.fragment):  # "host" may be a part of the login
        where, advice = "the server", f"{advice} or else, {_ESCAPES}"
    try:
        status = ask(address, host)
    except socket.gaierror:
        name = repr(host) if where.startswith(host) else "so"
        return Diagnosis(f"no machine is called {name} here: check the address and the network")
    except ConnectionRefusedError:
        return Diagnosis(f"{where} refuses the connection: check that the server is running, and the port")
    except TimeoutError:
        return Diagnosis(f"{where} does not answer: check that it is switched on and in this network")
    except OSError as failed:
        return Diagnosis(f"{where} can't be reached: {failed.strerror or failed}")
    except (HTTPException, ValueError):
        status = None
    if status == "answered":
        return None
    if status == HTTPStatus.OK:
        return Diagnosis(f"{where} answers, but sends no readable video, {advice}")
    refused = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return Diagnosis(_status_in_words(status, where, login=address.username is not None), about_login=refused)


def _status_in_words(status: int | None, where: str, *, login: bool) -> str:
    if status is None:
        return f"{where} accepts connections, but does not speak this protocol"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        if login:
            return f"{where} refuses the login: check the user's name and password"
        return f"{where} needs a login: give it as USER:PASSWORD@ before the host"
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return f"{where} has no stream of that name: check the path"
    return f"{where} answers with the error {status}"


def _status_of(address: SplitResult, host: str) -> int | None:
    return _describe(address, host) if address.scheme.lower() in _RTSP_PORTS else _get(address)


def _connects(address: SplitResult, host: str) -> Literal["answered"]:
    """Connect; for an RTSP server, wait until it answers."""
    scheme = address.scheme.lower()
    port = address.port or {**_RTSP_PORTS, "http": 80, "https": 443}[scheme]
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        if scheme == "rtsp":
            with contextlib.suppress(ConnectionError):  # `why_closed` finds the reason
                connection.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
                connection.recv(1)
    return "answered"


def _describe(address: SplitResult, host: str) -> int | None:
    """Status of RTSP's DESCRIBE (RFC 2326, 10.2); None where another protocol answers."""
    public = address._replace(netloc=address.netloc.rpartition("@")[2], fragment="").geturl()
    port = address.port or _RTSP_PORTS[address.scheme.lower()]
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        if address.scheme.lower() == "rtsps":
            return HTTPStatus.OK  # something listens; its answer is encrypted
        header = _ask(connection, f"DESCRIBE {public} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n")
        status = _status(header)
        if status != HTTPStatus.UNAUTHORIZED or address.username is None:
            return status
        user, password = unquote(address.username), unquote(address.password or "")
        answer = _authorization(header, public, user, password)
        if answer is None:
            return status
        request = f"DESCRIBE {public} RTSP/1.0\r\nCSeq: 2\r\nAccept: application/sdp\r\nAuthorization: {answer}\r\n\r\n"
        return _status(_ask(connection, request))


def _ask(connection: socket.socket, request: str) -> str:
    """The header of the answer."""
    connection.sendall(request.encode())
    received = b""
    while b"\r\n\r\n" not in received and len(received) < _LONGEST_ANSWER:
        more = connection.recv(4096)
        if not more:
            break
        received += more
    return received.partition(b"\r\n\r\n")[0].decode(errors="replace")


def _status(header: str) -> int | None:
    protocol, _, rest = header.partition(" ")
    code = rest[:3]
    return int(code) if protocol.startswith("RTSP/") and code.isdecimal() else None


def _authorization(header: str, url: str, user: str, password: str) -> str | None:
    """The login in the form that the server asks for: Digest (RFC 2069, as RTSP uses it) or Basic; None for others."""
    schemes = {}
    for line in header.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "www-authenticate":
            scheme, _, rest = value.strip().partition(" ")
            with contextlib.suppress(ValueError, IndexError):  # what is no list of names and values tells nothing
                schemes[scheme.lower()] = urllib.request.parse_keqv_list(urllib.request.parse_http_list(rest))
    if "digest" in schemes:
        realm, nonce = schemes["digest"].get("realm", ""), schemes["digest"].get("nonce", "")
        secret, method = _md5(f"{user}:{realm}:{password}"), _md5(f"DESCRIBE:{url}")
        response = _md5(f"{secret}:{nonce}:{method}")
        return f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="{url}", response="{response}"'
    if "basic" in schemes:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return None


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _get(address: SplitResult) -> int:
    """Status of a GET request; only its header is read."""
    public = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
    logins = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if address.username is not None:
        logins.add_password(None, public, unquote(address.username), unquote(address.password or ""))
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(logins), urllib.request.HTTPDigestAuthHandler(logins)
    )
    try:
        with opener.open(public, timeout=TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code
    except (ValueError, IndexError):  # urllib's, of a login that is asked for in words that it doesn't know
        return HTTPStatus.UNAUTHORIZED
    except urllib.error.URLError as failed:
        if isinstance(failed.reason, OSError):
            raise failed.reason from None
        raise OSError(str(failed.reason)) from None
