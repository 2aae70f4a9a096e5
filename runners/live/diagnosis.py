"""Why a stream doesn't open: OpenCV doesn't say, so the server is asked once more, in its own protocol."""

from __future__ import annotations

import base64
import hashlib
import socket
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

TIMEOUT_S = 2.0
_RTSP_PORTS: Final = {"rtsp": 554, "rtsps": 322}
_LONGEST_ANSWER = 1 << 16


def why_closed(url: str, *, otherwise: str) -> str:
    """What a stream's server says, in a few words and without the login; waits at most a few seconds.

    Args:
        url: rtsp://, rtsps://, http:// or https://, that was tried in vain.
        otherwise: what to say beside, where the server answers as if all were well.
    """
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port
    except ValueError:
        return "its address can't be understood; in a login, write @ as %40, : as %3A, / as %2F, # as %23, ? as %3F"
    where = host if port is None else f"{host}:{port}"
    try:
        status = _describe(address, host) if address.scheme.lower() in _RTSP_PORTS else _get(address)
    except socket.gaierror:
        return f"no machine is called {host!r} here: is the address right, the network up?"
    except ConnectionRefusedError:
        return f"{where} refuses the connection: is the server running, the port right?"
    except TimeoutError:
        return f"{where} does not answer: is it on, and in this network?"
    except OSError as failed:
        return f"{where} can't be reached: {failed.strerror or failed}"
    except (HTTPException, UnicodeError):
        status = None
    if status == HTTPStatus.OK:
        return f"{where} answers, but gives no video that can be read, {otherwise}"
    return _in_words(status, where, login=address.username is not None)


def _in_words(status: int | None, where: str, *, login: bool) -> str:
    if status is None:
        return f"{where} accepts connections, but does not speak this protocol"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        if login:
            return f"{where} refuses the login: is the user's name and password right?"
        return f"{where} asks for a login: give it as USER:PASSWORD@ before the host"
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return f"{where} has nothing of that name: is the path right?"
    return f"{where} answers with the error {status}"


def _describe(address: SplitResult, host: str) -> int | None:
    """Status of RTSP's DESCRIBE (RFC 2326, 10.2); None where something else answers."""
    public = address._replace(netloc=address.netloc.rpartition("@")[2], fragment="").geturl()
    port = address.port or _RTSP_PORTS[address.scheme.lower()]
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        if address.scheme.lower() == "rtsps":
            return HTTPStatus.OK  # something listens; what it says is encrypted
        head = _ask(connection, f"DESCRIBE {public} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n")
        status = _status(head)
        if status != HTTPStatus.UNAUTHORIZED or address.username is None:
            return status
        user, password = unquote(address.username), unquote(address.password or "")
        answer = _authorization(head, public, user, password)
        if answer is None:
            return status
        request = f"DESCRIBE {public} RTSP/1.0\r\nCSeq: 2\r\nAccept: application/sdp\r\nAuthorization: {answer}\r\n\r\n"
        return _status(_ask(connection, request))


def _ask(connection: socket.socket, request: str) -> str:
    """The head of the answer."""
    connection.sendall(request.encode())
    received = b""
    while b"\r\n\r\n" not in received and len(received) < _LONGEST_ANSWER:
        more = connection.recv(4096)
        if not more:
            break
        received += more
    return received.partition(b"\r\n\r\n")[0].decode(errors="replace")


def _status(head: str) -> int | None:
    protocol, _, rest = head.partition(" ")
    code = rest[:3]
    return int(code) if protocol.startswith("RTSP/") and code.isdecimal() else None


def _authorization(head: str, url: str, user: str, password: str) -> str | None:
    """The login as the server wants it: Digest (RFC 2069, as RTSP uses it), else Basic; None for another scheme."""
    schemes = {}
    for line in head.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == "www-authenticate":
            scheme, _, rest = value.strip().partition(" ")
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
    """Status of a GET, of which nothing is read but the head."""
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
    except urllib.error.URLError as failed:
        if isinstance(failed.reason, OSError):
            raise failed.reason from None
        raise OSError(str(failed.reason)) from None
