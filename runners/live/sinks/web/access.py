"""Access rules of the page: allowed host names, origins and tokens; and the security headers of every answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import logging
import secrets
import socket
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgecnn.errors import SpecError
from edgecnn.older_python import timeout

KNOWN: Final = "edgecnn.known"  # set in a request's scope once it is authorised
_MOST_BODY_BYTES: Final = 4096
_BODY_S: Final = 5.0
WRONG_TOKEN_S: Final = 0.3  # delay for each wrong token, one after the other: at most three guesses per second
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src {style}; img-src 'self' blob:; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not "no-referrer": with that, a browser hides the origin of our own form
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

_log = logging.getLogger(__name__)


def checked_token(token: str) -> str:
    """A token that is allowed in a header and a URL.

    Raises:
        SpecError: it is not.
    """
    if not token or any(not "!" <= letter <= "~" for letter in token):
        raise SpecError("page token: expected ASCII letters, digits and punctuation without spaces; choose another")
    return token


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


class Access:
    """The access rules.

    Args:
        host: the host as given by the user; one of the page's names.
        address: the IP address that the server listens on.
        port: part of the cookie's name, because a browser sends a cookie to every port of a host.
        token: the token that must be given; None needs none.
    """

    def __init__(self, *, host: str, address: str, port: int, token: str | None) -> None:
        self._token = token
        self._session = secrets.token_urlsafe(32)
        self._cookie = f"edgecnn_{port}"
        self._names = {"localhost", "127.0.0.1", "::1", host.lower(), address}
        self._any_address = not is_loopback(address)
        if self._any_address:
            name = socket.gethostname().lower()
            self._names |= {name, f"{name.partition('.')[0]}.local"}

    def why_refused(self, scope: Scope, headers: Headers) -> str | None:
        """Why a request is refused even with the right token; None where it is not.

        An unknown host name was pointed at this machine by somebody else (DNS rebinding); a request from another page
        comes from a browser that has that page open too, and may carry our cookie.
        """
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return "this page has no such name: use its address, or run with --web NAME:PORT"
        origins = headers.getlist("origin")
        if origins and (len(origins) > 1 or urlsplit(origins[0]).netloc.lower() != hosts[0].lower()):
            return "another page's request"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _is_visit(scope, headers):
            return "another page's request"
        return None

    def is_known(self, headers: Headers) -> bool:
        """Whether the request has the token, or the cookie that was set for it."""
        return self._token is None or self._has_cookie(headers) or self.is_token(_bearer(headers))

    def is_token(self, given: str | None) -> bool:
        """Whether this is the token; compared in constant time."""
        return given is not None and self._token is not None and _same(given, self._token)

    @property
    def asks_for_token(self) -> bool:
        """Whether a token is needed."""
        return self._token is not None

    def log_in(self) -> Response:
        """Sets the cookie and redirects to the page's address without the token."""
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(self._cookie, self._session, path="/", httponly=True, samesite="strict")
        return response

    def _has_cookie(self, headers: Headers) -> bool:
        for header in headers.getlist("cookie"):
            for pair in header.split(";"):
                name, _, value = pair.strip().partition("=")
                if name == self._cookie and _same(value, self._session):
                    return True
        return False

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host).lower().removesuffix(".")
        return name in self._names or (self._any_address and _is_address(name))


class Guard:
    """Checks requests before the page gets them, and adds security headers to every answer.

    Args:
        app: the page.
        access: the access rules.
        login: the HTML of the login form, with all its styles in one <style>.
    """

    def __init__(self, app: ASGIApp, access: Access, login: str) -> None:
        self.failure: Exception | None = None
        self._app, self._access, self._login = app, access, login
        style = login.partition("<style>")[2].partition("</style>")[0]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self._login_policy = _POLICY.format(style=f"'sha256-{digest}'")
        self._policy = _POLICY.format(style="'self'")
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", self._policy)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            answer = await self._answer(scope, receive) or self._app
            await answer(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass
        except Exception as failure:
            if self.failure is None:  # only the first is logged; a picture that can't be drawn fails with every frame
                self.failure = failure
                _log.error("the page cannot answer %s: %s", scope["path"], failure, exc_info=failure)
            if not started:
                await PlainTextResponse("failed", 500)(scope, receive, send_with_headers)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """The answer instead of the page's, where there is one."""
        headers, access = Headers(scope=scope), self._access
        why = access.why_refused(scope, headers)
        if why is not None:
            return PlainTextResponse(f"{why}\n", 403)
        if not access.asks_for_token:
            scope[KNOWN] = True
            return None
        path, method = scope["path"], scope["method"]
        given: str | None = None
        if path == "/login" and method == "POST":
            given = _field(await body_of(Request(scope, receive)), "token") or ""
        elif path == "/" and method == "GET":
            given = _field(scope["query_string"], "token")
        if given is not None and access.is_token(given):
            return access.log_in()
        if given is None and access.is_known(headers):
            scope[KNOWN] = True
            return None
        if given is not None or _bearer(headers) is not None:
            async with self._one_at_a_time:
                await asyncio.sleep(WRONG_TOKEN_S)
        refused = {"WWW-Authenticate": "Bearer"}
        if "text/html" in headers.get("accept", ""):
            refused["Content-Security-Policy"] = self._login_policy
            return Response(self._login, 401, headers=refused, media_type="text/html")
        return PlainTextResponse("give the token: Authorization: Bearer TOKEN\n", 401, headers=refused)


async def body_of(request: Request) -> bytes:
    """The body of a request; truncated if it is longer than any of ours, or doesn't arrive."""
    body = b""
    with contextlib.suppress(TimeoutError):
        async with timeout(_BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST_BODY_BYTES:
                    break
    return body[:_MOST_BODY_BYTES]


def _field(encoded: bytes, name: str) -> str | None:
    values = parse_qs(encoded.decode("latin-1"), max_num_fields=8, keep_blank_values=True).get(name)
    return values[0] if values else None


def _bearer(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_visit(scope: Scope, headers: Headers) -> bool:
    """Whether somebody follows a link to the page, which reveals nothing to the linking page."""
    return (
        scope["method"] == "GET"
        and scope["path"] == "/"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
