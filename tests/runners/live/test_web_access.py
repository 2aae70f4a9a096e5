"""The live page: who may ask, and for what."""

from __future__ import annotations

import hmac
import re
import socket
import sys
import threading
from typing import Any

import pytest

from edgecnn.errors import SpecError
from edgecnn.runners.live.sinks.web import access

from .web_page import ROUTES, TOKEN, Page, served

pytestmark = pytest.mark.server


def test_this_machine_s_names_are_answered(page: Page) -> None:
    for host in ("127.0.0.1", "localhost:9", "LOCALHOST", "[::1]:8088", "localhost."):
        assert page.ask("/", host=host).status == 200, host


def test_another_name_that_leads_here_is_not(page: Page) -> None:
    page.deliver()
    for host in ("evil.example", "127.0.0.1.evil.example", "192.0.2.7", "localhost@evil.example", ""):
        for path in (*ROUTES, "/video.mjpeg", "/nowhere"):
            assert page.ask(path, host=host).status == 403, (host, path)
        assert page.set_score(0.9, host=host).status == 403
    assert page.score == [0.3]


def test_another_page_s_requests_are_refused(page: Page) -> None:
    page.deliver()
    ours = f"http://127.0.0.1:{page.port}"
    for origin in ("https://evil.example", "null", f"http://localhost:{page.port}", "http://127.0.0.1:1", "127.0.0.1"):
        assert page.set_score(0.9, origin=origin).status == 403, origin
        assert page.ask("/status", origin=origin).status == 403, origin
    for site in ("cross-site", "same-site"):
        assert page.set_score(0.9, sec_fetch_site=site).status == 403
        for path in (*ROUTES, "/video.mjpeg"):
            embedded = page.ask(path, sec_fetch_site=site, sec_fetch_mode="no-cors", sec_fetch_dest="image")
            assert embedded.status == 403, path
    visit: Any = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert page.ask("/", **visit).status == 200  # somebody followed a link
    assert page.ask("/snapshot.jpg", **visit).status == 403
    assert page.score == [0.3]
    assert page.set_score(0.9, origin=ours, sec_fetch_site="same-origin").status == 200
    assert page.score == [0.9]


def test_a_websocket_from_another_page_opens_nothing(page: Page) -> None:
    words = "Host: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    for origin, status in (("https://evil.example", b"403"), (f"http://127.0.0.1:{page.port}", b"403")):
        with page.connect(f"GET /status HTTP/1.1\r\n{words}{key}Origin: {origin}\r\n\r\n") as viewer:
            assert viewer.recv(1024).split(b" ")[1] == status


def test_without_the_token_no_route_answers() -> None:
    with served(token=TOKEN) as page:
        page.deliver()
        for path in (*ROUTES, "/video.mjpeg", "/score", "/nowhere", "/login", f"/status?token={TOKEN}"):
            assert page.ask(path).status == 401, path
            assert page.ask(path, cookie=f"edgecnn_{page.port}={TOKEN}; a=b").status == 401, path
        assert page.set_score(0.9).status == 401
        for wrong in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", f"Basic {TOKEN}", "Bearer \xe9"):
            assert page.ask("/status", authorization=wrong).status == 401, wrong
        assert page.score == [0.3]
        for path in ROUTES:
            assert page.ask(path, authorization=f"Bearer {TOKEN}").status == 200, path
        assert page.set_score(0.9, authorization=f"Bearer {TOKEN}").status == 200
        assert page.score == [0.9]
        assert page.ask("/status", authorization=f"Bearer {TOKEN}", host="evil.example").status == 403


def test_the_token_is_handed_over_once_and_not_kept() -> None:
    with served(token=TOKEN) as page:
        wrong = page.ask("/?token=guess", accept="text/html")
        assert wrong.status == 401 and "set-cookie" not in wrong.headers
        form = f"token={TOKEN}".encode()
        for answer in (page.ask(f"/?token={TOKEN}"), page.ask("/login", method="POST", body=form)):
            assert (answer.status, answer.headers["location"]) == (303, "/")
            cookie, *words = answer.headers["set-cookie"].split("; ")
            assert {"httponly", "samesite=strict", "path=/"} == {word.lower() for word in words}
            assert cookie.startswith(f"edgecnn_{page.port}=") and TOKEN not in cookie
            assert page.ask("/status", cookie=f"other=1; {cookie}").status == 200
            assert page.set_score(0.5, cookie=cookie, origin="https://evil.example").status == 403
        assert page.ask("/login", method="POST", body=form, origin="https://evil.example").status == 403
        assert page.ask("/login", method="POST", body=b"token=" + b"x" * 10_000).status == 401
        ask_for_it = page.ask("/", accept="text/html")
        assert (ask_for_it.status, ask_for_it.headers["www-authenticate"]) == (401, "Bearer")
        assert b'type="password"' in ask_for_it.body and b'action="/login"' in ask_for_it.body


def test_wrong_tokens_wait_for_each_other_and_delay_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(token=TOKEN) as page:
        page.deliver()
        monkeypatch.setattr(access, "WRONG_TOKEN_S", 60.0)
        guesses = [page.connect("GET /?token=guess HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") for _ in range(5)]
        assert page.ask("/status", authorization=f"Bearer {TOKEN}").status == 200
        assert page.ask("/status").status == 401  # nothing was guessed
        for guess in guesses:
            guess.settimeout(0.1)
            with pytest.raises(TimeoutError):
                guess.recv(1)
            guess.close()


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    same = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or same(a, b))  # type: ignore[func-returns-value]
    with served(token=TOKEN) as page:
        page.ask("/status", authorization="Bearer guess")
        page.ask("/status", cookie=f"edgecnn_{page.port}=guess")
    assert (b"guess", TOKEN.encode()) in compared
    assert len(compared) == 2


def test_a_page_that_others_can_reach_makes_its_own_token() -> None:
    with served("0.0.0.0:0") as page:
        assert page.sink.login_url is not None and page.sink.url is not None
        address, token = page.sink.login_url.split("?token=")
        assert address == page.sink.url and len(token) >= 32
        page.deliver()
        assert page.ask("/status").status == 401
        assert page.ask("/status", authorization=f"Bearer {token}").status == 200
        # by any address, which no rebinding can use, and by this machine's own names
        own = (socket.gethostname(), f"{socket.gethostname().partition('.')[0]}.local", "192.0.2.7:80", "[2001:db8::1]")
        for host in own:
            assert page.ask("/status", host=host, authorization=f"Bearer {token}").status == 200, host
        assert page.ask("/status", host="evil.example", authorization=f"Bearer {token}").status == 403
        assert token.encode() not in page.ask("/status", authorization=f"Bearer {token}").body
    with served("0.0.0.0:0") as again:
        assert str(again.sink.login_url).partition("?")[2] != f"token={token}"
    with served("0.0.0.0:0", token=TOKEN) as given:
        assert TOKEN not in str(given.sink.login_url)  # whoever gave it has it
        assert given.ask("/status", authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize("token", ["", "two words", "schlüssel", "line\nbreak"])
def test_a_token_that_cannot_be_shown_is_refused(token: str) -> None:
    with pytest.raises(SpecError, match="ASCII"), served(token=token):
        pass


def test_every_answer_tells_browsers_what_they_may(page: Page) -> None:
    page.deliver()
    with served(token=TOKEN) as locked:
        answers = [
            *(page.ask(path) for path in (*ROUTES, "/nowhere")),
            page.ask("/score"),
            page.ask("/status", host="evil.example"),
            locked.ask("/"),
            locked.ask("/", accept="text/html"),
            locked.ask(f"/?token={TOKEN}"),
        ]
    assert {answer.status for answer in answers} == {200, 303, 401, 403, 404, 405}
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers and "access-control-allow-origin" not in answer.headers


def test_the_page_sends_requests_only_to_its_server(page: Page) -> None:
    for path in ("/", "/page.js", "/page.css"):
        text = page.ask(path).body.decode()
        assert "://" not in text, path
    html = page.ask("/").body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", html)  # nothing inline


_opened: list[str] = []
_listening = threading.Event()


def _note(event: str, words: tuple[object, ...]) -> None:
    reads = event in {"open", "os.listdir", "os.scandir"}
    if reads and _listening.is_set() and threading.current_thread().name == "web":
        _opened.append(f"{event} {words[0]!r}")


def test_no_part_of_a_request_reaches_the_file_system(page: Page) -> None:
    sys.addaudithook(_note)
    page.deliver()
    _listening.set()
    try:
        for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/../__init__.py", "/..%2fpage.html",
                     "//etc/passwd", "/page.html", "/login.html", "/%00", "/picture?after=../../x"):  # fmt: skip
            wanted = 200 if path.startswith("/picture") else 404
            assert page.ask(path).status == wanted, path
        for path in ROUTES:
            assert page.ask(path).status == 200
        assert page.set_score(0.4).status == 200
    finally:
        _listening.clear()
    assert _opened == []


def test_only_a_score_is_a_score(page: Page) -> None:
    for body, kind, status in (
        (b'{"score": 0.75}', "text/plain", 415),
        (b"score=0.75", "application/x-www-form-urlencoded", 415),
        (b'{"score": 1.5}', "application/json", 400),
        (b'{"score": "0.75"}', "application/json", 400),
        (b'{"score": 0.75, "x": 1}', "application/json", 400),
        (b'{"score": NaN}', "application/json", 400),
        (b"{" * 100_000, "application/json", 400),
        (b'{"sco\xffe": 0.5}', "application/json", 400),
        (b"", "application/json", 400),
    ):
        assert page.ask("/score", method="POST", body=body, content_type=kind).status == status, body
    assert page.score == [0.3]
    good = page.ask("/score", method="POST", body=b'{"score": 0.75}', content_type="application/json; charset=utf-8")
    assert (good.status, page.score) == (200, [0.75])
