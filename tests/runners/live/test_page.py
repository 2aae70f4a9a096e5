"""The live page in a browser: the picture moves, the figures change, and every control does what it says."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'edgecnn[test]'")
pytest.importorskip("starlette", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")
pytest.importorskip("uvicorn", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")

from playwright.sync_api import Page, expect, sync_playwright

from edgecnn._verbs.run import run
from edgecnn.photographs import photographs
from edgecnn.runners.live.cameras.reconnect import Reconnect
from edgecnn.runners.live.run_summary import RunStart, RunSummary
from edgecnn.runners.live.sinks import Annotated, EndOfRun

from .conftest import StreamServer

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]


class MovingCat(StreamServer):
    """A stream of a photograph that is pushed to the right."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        super().__init__(folder, port=port)
        self.fps = 15.0
        picture = cv2.resize(photographs()["cat"], (480, 360))
        jpegs = [cv2.imencode(".jpg", np.roll(picture, 12 * index, axis=1))[1].tobytes() for index in range(40)]
        head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n"
        self.parts = [head % (len(jpeg), jpeg) for jpeg in jpegs]


@dataclass
class Shown:
    """A run that a browser shows."""

    page: Page
    server: MovingCat
    start: RunStart
    stop: threading.Event
    thread: threading.Thread
    summaries: list[RunSummary]
    complaints: list[str] = field(default_factory=list)

    def expect(self, selector: str) -> Any:
        return expect(self.page.locator(selector))

    def picture(self) -> str:
        """The canvas's pixels, and which picture it is."""
        return str(self.page.evaluate("document.getElementById('picture').toDataURL('image/png')"))

    def number(self) -> int:
        return int(self.page.locator("#picture").get_attribute("data-number") or 0)

    def until(self, true: str, given: Any = None) -> None:
        """Wait for what must come; Playwright's own way of waiting for a word of JavaScript is against our policy."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(f"given => {true}", given):
            assert time.monotonic() < end, f"waited in vain for {true}"
            self.page.wait_for_timeout(20)

    def end_run(self) -> RunSummary:
        self.stop.set()
        self.thread.join(60)
        return self.summaries[0]


class Stop:
    """Ends the run when it is told to."""

    shows_only = True

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def deliver(self, frame: Any, result: Any, annotated: Annotated) -> None:
        if self.stop.is_set():
            raise EndOfRun("stopped")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Shown]:
    server = MovingCat(tmp_path)
    server.start()
    stop, started = threading.Event(), threading.Event()
    starts: list[RunStart] = []
    summaries: list[RunSummary] = []

    def on_start(start: RunStart) -> None:
        starts.append(start)
        started.set()

    def work() -> None:
        try:
            summaries.append(
                run(
                    "default-detector",
                    server.url("stream", login="admin:geheim@"),
                    threads=1,
                    web="0.0.0.0:0",
                    sinks=[Stop(stop)],
                    on_start=on_start,
                    reconnect=Reconnect(stall_s=1.0, first_wait_s=0.1, longest_wait_s=0.2),
                )
            )
        finally:
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(120) and starts
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1280, "height": 800},
            accept_downloads=True,
        )
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page = context.pages[0]
        shown = Shown(page, server, starts[0], stop, thread, summaries)
        page.on("pageerror", lambda error: shown.complaints.append(str(error)))
        page.on("console", lambda told: shown.complaints.append(told.text) if told.type == "error" else None)
        page.goto(re.sub(r"//[^:/]+:", "//127.0.0.1:", str(shown.start.page_login_url)))
        try:
            shown.until("Number(document.getElementById('picture').dataset.number) > 0")
            yield shown
        finally:
            stop.set()
            context.close()
            server.kill() if not server.closed else None
            thread.join(60)


def test_a_browser_shows_the_run_and_steers_it(shown: Shown, tmp_path: Path) -> None:
    page = shown.page
    assert "token" not in page.url  # it was handed over, and is gone from the address

    # the picture moves
    first, number = shown.picture(), shown.number()
    shown.until(f"Number(document.getElementById('picture').dataset.number) > {number + 3}")
    assert shown.picture() != first

    # the figures change
    shown.expect("#state").to_have_text("live")
    shown.expect("#sees").to_contain_text("cat")
    shown.expect("#rate").to_have_text(re.compile(r"^[1-9]\d*\.\d$"))
    results = page.locator("#run").inner_text()
    shown.until("document.getElementById('run').textContent !== given", results)
    shown.expect("#latency tbody tr:nth-child(3) td:nth-child(2)").to_have_text(re.compile(r"^\d+\.\d$"))
    charts = "[...document.querySelectorAll('figure canvas')].map(canvas => canvas.toDataURL())"
    before = page.evaluate(charts)
    shown.until(f"[0, 1, 2, 3].every(chart => {charts}[chart] !== given[chart])", before)

    # the slider changes what the run answers
    shown.expect("#score-now").to_have_text("0.40")
    page.locator("#score").fill("1")
    shown.expect("#score-now").to_have_text("1.00")
    shown.expect("#sees").to_have_text("nothing")
    task: Any = shown.start.runner.task
    assert task.score_threshold == 1.0
    page.locator("#score").fill("0.3")
    shown.expect("#sees").to_contain_text("cat")

    # pause holds the picture, and not the run; the snapshot is then what is seen
    page.get_by_role("button", name="Pause").click()
    shown.expect("#held").to_be_visible()
    held, results = shown.picture(), page.locator("#run").inner_text()
    shown.until("document.getElementById('run').textContent !== given", results)
    assert shown.picture() == held
    with page.expect_download() as download:
        page.locator("#snapshot").click()
    download.value.save_as(tmp_path / "held.jpg")
    assert re.fullmatch(rf"edgecnn-paused-{shown.number()}\.jpg", download.value.suggested_filename)
    saved = cv2.imread(str(tmp_path / "held.jpg"))
    assert saved is not None and saved.shape == (360, 480, 3)
    page.get_by_role("button", name="Go on").click()
    shown.until(f"Number(document.getElementById('picture').dataset.number) > {shown.number()}")
    with page.expect_download() as download:
        page.locator("#snapshot").click()
    download.value.save_as(tmp_path / "live.jpg")
    assert re.fullmatch(r"edgecnn-\d{8}T\d{6}Z-\d+\.jpg", download.value.suggested_filename)
    saved = cv2.imread(str(tmp_path / "live.jpg"))
    assert saved is not None and saved.shape == (360, 480, 3)

    # dark, light, wide and narrow
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    shown.until(f"{ground} === 'rgb(16, 22, 28)'")
    page.get_by_role("button", name="Light").click()
    shown.until(f"{ground} === 'rgb(243, 245, 247)'")
    page.reload()  # and it is remembered
    shown.until(f"{ground} === 'rgb(243, 245, 247)'")
    for width, height in ((1280, 800), (768, 1024), (390, 844), (320, 640)):
        page.set_viewport_size({"width": width, "height": height})
        shown.until("innerWidth >= document.documentElement.scrollWidth")

    # the source goes away: the picture says so, and is not shown as if it were new
    shown.server.kill()
    shown.expect("#state").to_have_text(re.compile("connecting|stalled"))
    shown.expect("#notice").to_be_visible()
    shown.expect("#notice").to_have_text(re.compile(r"^No result for \d+ s\."))
    again = MovingCat(tmp_path, port=shown.server.server_address[1])
    shown.server = again
    again.start()
    shown.expect("#state").to_have_text("live")
    shown.expect("#notice").to_be_hidden()

    # no login of the camera, anywhere
    assert "geheim" not in page.content() and "***@127.0.0.1" in page.content()

    # the end
    assert shown.complaints == []
    assert shown.end_run().ended == "stopped"
    shown.expect("#state").to_have_text("no answer")
    shown.expect("#notice").to_contain_text("The run has ended")
