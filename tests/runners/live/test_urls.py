"""No login is ever shown, however its address is written, and a login needn't stand on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import SpecError
from edgecnn.runners.live.cameras.urls import check_address, redacted, resolved_secret

# An address, and what of it is still to be seen. Every secret holds "heim".
SHOWN = [
    ("rtsp://admin:geheim@cam/1", "***@cam/1"),
    ("rtsp://admin:geheim@cam:554/live/ch0", "***@cam:554/live/ch0"),
    ("RTSP://admin:geheim@cam/1", "RTSP://***@cam/1"),
    ("rtsps://admin:geheim@cam/1", "cam/1"),
    ("rtsp://admin:ge@heim@cam/1", "***@cam/1"),
    ("rtsp://admin:ge%40heim@cam/1", "***@cam/1"),
    ("rtsp://admin:x/geheim#@cam/1", "cam/"),
    ("rtsp://admin:ge?heim@cam/1", "cam/1"),
    ("rtsp://admin:ge:heim@cam/1", "***@cam/1"),
    ("rtsp://geheim@cam/1", "***@cam/1"),
    ("rtsp://:geheim@cam/1", "***@cam/1"),
    ("rtsp://u:p@heim#1@cam/1", "cam/1"),
    ("rtsp://u:geheim@[fe80::1%25eth0]:554/1", "[fe80::1%25eth0]:554/1"),
    ("rtsp://u:ge]heim[@[2001:db8::1]/1", "[2001:db8::1]/1"),
    ("rtsp://192.168.1.9/user=admin&password=geheim&channel=1.sdp", "192.168.1.9/user="),
    ("rtsp://192.168.1.9/user=admin_password=geheim_channel=1_stream=0.sdp?real_stream", "192.168.1.9/user="),
    ("rtsp://cam/admin:geheim/stream", "cam/***/stream"),
    ("rtsps://nvr:7441/heimAbc123def456Gh?enableSrtp", "nvr:7441/***"),
    ("http://cam/video?user=me&password=geheim", "cam/video?user=***&password=***"),
    ("http://cam/video?usr=me&pwd=ge;heim", "cam/video?usr=***&pwd=***"),
    ("http://cam/cgi-bin/mjpg?loginuse=admin&loginpas=geheim", "cam/cgi-bin/mjpg?"),
    ("https://cam/live?apikey=geheim", "cam/live?apikey=***"),
    ("https://cam/live?token=geheim#frag", "cam/live"),
    ("https://cam/live#access_token=geheim", "cam/live#***"),
    ("http://cam.local/video?password=ge@heim", "cam.local/***"),
    ("http://192.168.1.9:8080/video?user=a&password=ge@heim", "192.168.1.9:8080/***"),
    ("http://cam/video?geheim", "cam/video?***"),
    ("mqtt://user:geheim@broker:1883/topic/prefix", "***@broker:1883/topic/prefix"),
    ("mqtts://user:ge/heim@broker/topic", "broker/topic"),
    ("http://proxy/?url=rtsp://u:geheim@cam/1", "proxy"),
    ("rtsp://пользователь:geheim@камера/1", "***@камера/1"),
    ("http://user:geheim@пример.рф/1", "пример.рф/1"),
    ("gst: rtspsrc location=rtsp://u:geheim@cam/1 latency=0 ! fakesink", "***@cam/1 latency=0 ! fakesink"),
    ('gst: rtspsrc location="rtsp://u:geheim@cam/1" ! fakesink', "cam/1"),
    ('gst: rtspsrc location="rtsp://u:ge heim@cam/1" ! fakesink', "! fakesink"),
    ("gst: rtspsrc location=rtsp://cam/1 user-id=admin user-pw=geheim ! fakesink", "cam/1"),
    ('gst: rtspsrc location=rtsp://cam/1 user-pw = "ge heim" ! fakesink', "! fakesink"),
    ('gst: souphttpsrc proxy-pw=geheim cookies="sid=geheim" ! fakesink', "! fakesink"),
    ('could not set property "user-pw" in element "rtspsrc0" to "ge heim"', "rtspsrc0"),
    ("cannot open rtsp://u:geheim@cam/1 : refused", "***@cam/1 : refused"),
    ("tried rtsp://a:geheim@one/1, rtsp://b:geheim@two/2", "two/2"),
    ("Authorization: Bearer geheim", "Authorization"),
    ("Authorization: Basic geheim==", "Authorization"),
]
# What can't be understood is not quoted at all.
NEVER_QUOTED = [
    "rtsp://admin:geheim",
    "rtsp://admin:geheim/1",
    "rtsp://admin:ge%40heim%40cam/1",
    "rtsp://admin:ge heim@cam/1",
    "rtsp://admin:12/heim@cam/1",
    "rtsp://admin:12?x=heim@cam/1",
    "rtsp://u:p@cam/video?password=ge@heim",
    "rtsp://admin:geheim@[::1",
    "rtsp:/admin:geheim@cam/1",
    "rtsp:admin:geheim@cam/1",
    "//admin:geheim@cam/1",
    "admin:geheim@cam/1",
    "admin:p@cam/?password=ge@heim",
    "http://cam:8080/video?password=ge@heim",
    "rtsp://admin:geheim\\@cam",
]


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_no_credential_survives_redaction_and_the_rest_does(text: str, shown: str) -> None:
    assert "heim" not in redacted(text)
    assert shown in redacted(text)
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize("text", NEVER_QUOTED)
def test_what_can_be_understood_in_two_ways_is_not_quoted(text: str) -> None:
    assert "heim" not in redacted(text)


@pytest.mark.parametrize(
    "plain", ["camera 0", "/videos/a b.mp4", "rtsp://cam:554/live/ch0/main", "csi:1", "img@2x.png"]
)
def test_what_holds_no_login_is_left_as_it_is(plain: str) -> None:
    assert redacted(plain) == plain


SIGNS = st.text(st.sampled_from("abc019@:/?#&=;%[]\\ \"'!.ü"), min_size=0, max_size=4)


@given(user=SIGNS, before=SIGNS, after=SIGNS, path=st.sampled_from(["", "/1", "/live?channel=1", "/a/b.sdp"]))
def test_of_a_password_with_any_signs_nothing_is_shown(user: str, before: str, after: str, path: str) -> None:
    assert "geheim" not in redacted(f"rtsp://{user}:{before}geheim{after}@cam.example{path}")


@pytest.mark.parametrize("url", ["rtsp://u:p@ss#1@cam/1", "rtsp://u:p ss@cam/1", "rtsp://u:p/1", "rtsp://u:p@[::1/1"])
def test_an_address_that_means_another_machine_is_refused_unquoted(url: str) -> None:
    with pytest.raises(SpecError, match="%40") as caught:
        check_address(url)
    assert "ss" not in str(caught.value).replace("address", "").replace("USER:PASSWORD", "")


@pytest.mark.parametrize("url", ["rtsp://u:p%40ss@cam:554/a@b?x=1", "http://[::1]:80/v", "rtsp://cam", "http://ü.de/1"])
def test_an_address_that_has_one_meaning_is_let_through(url: str) -> None:
    check_address(url)


def test_an_address_may_stand_in_a_file_or_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "front"
    secret.write_text("\nrtsp://admin:geheim@cam/1\n")
    monkeypatch.setenv("FRONT_CAMERA", "rtsp://admin:geheim@cam/1")
    assert resolved_secret(f"file:{secret}") == resolved_secret("env:FRONT_CAMERA") == "rtsp://admin:geheim@cam/1"
    assert resolved_secret("rtsp://cam/1") == "rtsp://cam/1"


@pytest.mark.parametrize("content", [b"", b"rtsp://a:geheim@b\nrtsp://c:geheim@d\n", b"\xff\xfegeheim"])
def test_a_file_that_holds_no_address_is_refused_unquoted(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "front").write_bytes(content)
    with pytest.raises(SpecError, match="on a single line") as caught:
        resolved_secret(f"file:{tmp_path / 'front'}")
    assert "heim" not in str(caught.value)


def test_a_missing_file_or_variable_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRONT_CAMERA", raising=False)
    with pytest.raises(SpecError, match="FRONT_CAMERA"):
        resolved_secret("env:FRONT_CAMERA")
    with pytest.raises(SpecError, match="No such file"):
        resolved_secret(f"file:{tmp_path / 'absent'}")
    with pytest.raises(SpecError, match="without file://"):
        resolved_secret("file:///videos/a.mp4")


LONG_WORDS = """
import resource

from edgecnn.runners.live.cameras.urls import redacted

resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for piece in ("a", "a:", "-", "_-", "pass-", "key_", "secret", "a://", "'a://", 'property "', "_pw", "passw", " "):
    for length in (4000, 8000, 100_000):
        redacted(piece * (length // len(piece)))
"""


def test_long_words_of_a_hostile_camera_cost_no_time() -> None:
    """One of 4000 characters took 72 s; all together may take 20 s of a processor."""
    done = subprocess.run([sys.executable, "-c", LONG_WORDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("before", ["", "see ", "word " * 1000])
@pytest.mark.parametrize("filler", ["a", "1", ":", "/", "user:"])
def test_of_a_text_longer_than_any_address_no_half_login_is_shown(before: str, filler: str) -> None:
    for scheme in ("", "rtsp://"):
        for length in (7000, 7900, 7990, 8000, 9000):
            login = f"{scheme}{filler}:{'geheim' * (length // 6)}@cam/1"
            assert "geheim" not in redacted(before + login)
