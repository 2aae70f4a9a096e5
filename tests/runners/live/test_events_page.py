"""The page's events in a browser: a card each, a clip that plays, and hostile names that stay text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'edgecnn[test]'")
pytest.importorskip("starlette", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")
pytest.importorskip("uvicorn", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")

import cv2
from playwright.sync_api import Page, expect, sync_playwright

from edgecnn.photographs import photographs
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.video import VideoSink
from tests.runners.live.test_kept_events import keep, name_of
from tests.runners.live.test_page import CHROMIUM, FLAGS, PATIENCE_MS
from tests.runners.live.web_page import TOKEN, served

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[tuple[Page, list[str]]]:
    """A browser's page, and what it complains of."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 390, "height": 844},
        )
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        page, complaints = context.pages[0], list[str]()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        yield page, complaints
        context.close()


def keep_real(folder: Path, number: int, *, label: str = "cat", camera: str = "door", clip: bool = True) -> None:
    """An event with a picture and a clip that are ones."""
    objects = [{"label": label, "zone": "gate", "score": 0.91, "seconds": 3.5}] * 2
    event = keep(folder, number, objects=objects, record=None)
    (event / "event.json").write_text(
        (event / "event.json").read_text().replace('"camera": "door"', f'"camera": "{camera}"')
    )
    picture = np.asarray(cv2.resize(photographs()["cat"], (320, 240)), np.uint8)
    cv2.imwrite(str(event / "best.jpg"), picture)
    if not clip:
        (event / "clip.mp4").write_bytes(b"no video")
        return
    (event / "clip.mp4").unlink()
    with VideoSink(event / "clip.mp4", live=True) as sink:
        for index in range(10):
            moved = np.roll(picture, 8 * index, axis=1)
            frame = Frame(moved, index, index * 100_000_000, 0, "door")
            sink.deliver(frame, None, Annotated(lambda moved=moved: moved))  # type: ignore[arg-type, misc]


def test_cards_clips_and_names_that_stay_text(browser: tuple[Page, list[str]], tmp_path: Path) -> None:
    page, complaints = browser
    keep_real(tmp_path / "events", 1, clip=False)
    keep_real(tmp_path / "events", 2, label=HOSTILE, camera=HOSTILE)
    with served(token=TOKEN, events=(tmp_path / "events",)) as run:
        run.deliver()
        page.goto(f"http://127.0.0.1:{run.port}/?token={TOKEN}")
        cards = page.locator("#event-list button")
        expect(cards).to_have_count(2)
        assert page.locator("#event-list img").count() == 2  # ours, and none of a label
        expect(cards.first).to_contain_text(f"2 {HOSTILE} in gate")
        assert page.evaluate("innerWidth >= document.documentElement.scrollWidth")

        cards.first.click()
        expect(page.locator("#event-title")).to_contain_text(HOSTILE)
        expect(page.locator("#event-objects li").first).to_have_text(f"{HOSTILE} 0.91 in gate, 3.5 s")
        if shutil.which("ffmpeg"):  # H.264; what OpenCV writes, no browser plays
            clip = page.locator("#event-clip")
            expect(clip).to_have_js_property("videoWidth", 320)
            clip.evaluate("video => { video.currentTime = 0.5; }")
            expect(clip).to_have_js_property("error", None)
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#event")).to_be_hidden()

        cards.nth(1).click()
        expect(page.locator("#event-wrong")).to_be_visible()
        expect(page.locator("#event-picture")).to_have_js_property("naturalWidth", 320)
        page.keyboard.press("Escape")
        expect(page.locator("#event")).to_be_hidden()

        keep_real(tmp_path / "events", 3)  # comes by itself
        expect(cards).to_have_count(3)
        assert name_of(3) in str(page.locator("#event-list img").first.get_attribute("src"))
    assert [complaint for complaint in complaints if "ERR_CONNECTION_REFUSED" not in complaint] == []


def test_without_events_there_is_no_section(browser: tuple[Page, list[str]]) -> None:
    page, complaints = browser
    with served() as run:
        run.deliver()
        with page.expect_response("**/events"):
            page.goto(f"http://127.0.0.1:{run.port}/")
        expect(page.locator("#events")).to_be_hidden()
    assert [complaint for complaint in complaints if "ERR_CONNECTION_REFUSED" not in complaint] == []
