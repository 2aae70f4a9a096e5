"""Addresses, wheels, packages and parcels of `--on`, without a connection."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgecnn
from edgecnn.bundle import Bundle
from edgecnn.datasets import open_dataset
from edgecnn.errors import BoardError, MissingDependencyError, SpecError
from edgecnn.runners.remote.address import BoardAddress
from edgecnn.runners.remote.agent import Agent, answer, platform_of_programs
from edgecnn.runners.remote.connection import explain
from edgecnn.runners.remote.packages import fetch_wheels, missing_on, needed, platform_tags
from edgecnn.runners.remote.parcel import bundle_items, dataset_items
from edgecnn.runners.remote.wheel import own_wheel, wheel_name


# ---------------------------------------------------------------------- addresses
@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("ssh://pi@192.168.1.20", "192.168.1.20", "pi", None),
        ("ssh://pi@raspberrypi.local:2222", "raspberrypi.local", "pi", 2222),
        ("ssh://Kitchen-Pi", "Kitchen-Pi", None, None),
        ("ssh://pi@[fe80::1]:22", "fe80::1", "pi", 22),
    ],
)
def test_an_address_is_read_and_written_back(text: str, host: str, user: str | None, port: int | None) -> None:
    address = BoardAddress.parse(text)
    assert (address.host, address.user, address.port) == (host, user, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "pi@192.168.1.20",
        "ssh://",
        "http://pi@board",
        "ssh://pi@board:port",
        "ssh://pi@board/home",
        "ssh://pi:secret@board",
        "ssh://-oProxyCommand=evil",
        "ssh://a b",
    ],
)
def test_anything_but_an_address_is_refused_without_repeating_a_password(text: str) -> None:
    with pytest.raises(SpecError, match="expected a board such as ssh://pi@") as refused:
        BoardAddress.parse(text)
    assert "secret" not in str(refused.value)


def test_a_board_is_named_once() -> None:
    with pytest.raises(SpecError, match="named twice"):
        edgecnn.devices_on(["ssh://pi@a", "ssh://pi@a"])


# ---------------------------------------------------------------------- what ssh says
@pytest.mark.parametrize(
    ("code", "said", "meant"),
    [
        (96, "found: Python 3.9.2", r"no Python 3.11 or newer there \(Python 3.9.2\)"),
        (96, "sh: 1: python3: not found", "no Python 3.11 or newer there"),
        (255, "ssh: connect to host b port 22: Connection refused", "cannot be reached.*Connection refused"),
        (255, "ssh: Could not resolve hostname b: Name or service not known", "cannot be reached.*resolve"),
        (255, "Host key verification failed.", "host key is not known here: run ssh -p 22 pi@b"),
        (255, "pi@b: Permission denied (publickey).", "refuses the login.*ssh-copy-id -p 22 pi@b"),
        (127, "bash: sh: command not found", "its shell ended with code 127"),
    ],
)
def test_what_ssh_says_becomes_what_to_do(code: int, said: str, meant: str) -> None:
    with pytest.raises(BoardError, match=meant):
        raise explain(BoardAddress("b", "pi", 22), code, said)


# ---------------------------------------------------------------------- packages
def test_a_board_lacks_what_it_has_not_or_has_too_old() -> None:
    wanted = needed(["onnx"])
    board = {"numpy": "1.24.2", "opencv-python-headless": "4.10.0", "rich": "12.0", "click": "8.5"}
    assert missing_on(board, wanted) == ["msgspec>=0.19", "onnxruntime>=1.20", "rich>=13.7"]


def test_a_board_without_opencv_gets_the_one_without_a_screen() -> None:
    assert "opencv-python-headless>=4.8" in missing_on({}, needed([]))


def test_of_an_extra_only_the_needed_packages_are_requested() -> None:
    names = [requirement.name for requirement in needed(["eval"], only={"eval": frozenset({"faster-coco-eval"})})]
    assert "faster-coco-eval" in names
    assert "matplotlib" not in names


def test_without_the_extra_its_name_is_reported(without: Callable[..., None]) -> None:
    without("packaging")
    with pytest.raises(MissingDependencyError, match=r"edgecnn\[remote\]"):
        needed([])


def test_tags_of_wheels_are_those_that_the_c_library_runs() -> None:
    tags = platform_tags("linux-aarch64", "glibc 2.36")
    assert tags[0] == "manylinux_2_36_aarch64"
    assert "manylinux_2_17_aarch64" in tags and "manylinux2014_aarch64" in tags
    assert "manylinux_2_37_aarch64" not in tags


def test_a_32_bit_system_on_a_64_bit_kernel_is_a_32_bit_one() -> None:
    assert platform_of_programs("linux-aarch64", 2**31 - 1) == "linux-armv7l"
    assert platform_of_programs("linux-aarch64", 2**63 - 1) == "linux-aarch64"


@pytest.mark.parametrize(
    ("platform", "libc", "why"),
    [
        ("linux-armv7l", "glibc 2.36", "32-bit"),
        ("linux-aarch64", "", "glibc"),
        ("linux-aarch64", "glibc 2.12", "2.17 or newer"),
        ("macosx-14.0-arm64", "", "boards must run Linux"),
    ],
)
def test_a_system_without_wheels_is_refused(platform: str, libc: str, why: str) -> None:
    with pytest.raises(BoardError, match=why):
        platform_tags(platform, libc)


def test_a_package_without_a_wheel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # as on a machine whose index has none
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    tags = platform_tags("linux-aarch64", "glibc 2.36")
    with pytest.raises(BoardError, match=r"no wheel of onnxruntime\S* for Python 3.13.1 on aarch64"):
        fetch_wheels(["onnxruntime>=1.20"], into=tmp_path, python="3.13.1", tags=tags, board={})


# ---------------------------------------------------------------------- our own wheel
def test_our_wheel_contains_the_files_that_run() -> None:
    content = own_wheel()
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        names = set(wheel.namelist())
        assert {"edgecnn/__init__.py", "edgecnn/runners/runner.py", "edgecnn/converters/base.py"} <= names
        assert not [name for name in names if "__pycache__" in name]
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(io.StringIO(wheel.read(record).decode())))
        assert {row[0] for row in rows} == names
        here = Path(edgecnn.__file__).parent / "frame.py"
        assert wheel.read("edgecnn/frame.py") == here.read_bytes()


def test_our_wheel_is_the_same_whenever_it_is_made() -> None:
    first = own_wheel()
    own_wheel.cache_clear()
    assert hashlib.sha256(own_wheel()).digest() == hashlib.sha256(first).digest()


def test_pip_installs_our_wheel(tmp_path: Path) -> None:
    (tmp_path / wheel_name()).write_bytes(own_wheel())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target"]
    subprocess.run([*pip, str(tmp_path / "there"), str(tmp_path / wheel_name())], check=True)
    assert (tmp_path / "there" / "edgecnn" / "py.typed").is_file()
    assert (tmp_path / "there" / "bin" / "edgecnn").is_file()


# ---------------------------------------------------------------------- parcels
def test_of_pictures_that_take_no_part_only_the_names_go(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("cat", "dog"):
        (data / name).mkdir(parents=True)
        for index in range(4):
            cv2.imwrite(str(data / name / f"{name}{index}.png"), np.full((4, 4, 3), index, np.uint8))
    (data / "readme.txt").write_text("pictures")
    dataset = open_dataset(data, task="classify", labels=("cat", "dog"))
    used = dataset.limited(2)
    items, place = dataset_items(data, dataset, used, folder="data")
    assert place == "data"
    assert len(items) == 9
    whole = {item.name for item in items if item.size}
    assert whole == {"data/readme.txt", *(f"data/{s.path.relative_to(data).as_posix()}" for s in used)}


def test_labels_and_pictures_that_lie_apart_keep_their_places(tmp_path: Path) -> None:
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    cv2.imwrite(str(tmp_path / "val2017" / "1.png"), np.zeros((4, 4, 3), np.uint8))
    labels = tmp_path / "annotations" / "instances_val2017.json"
    labels.write_text(
        '{"images": [{"id": 1, "file_name": "1.png"}], "categories": [{"id": 1, "name": "cat"}],'
        '"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}]}'
    )
    dataset = open_dataset(labels, task="detect", labels=("cat",))
    items, place = dataset_items(labels, dataset, dataset, folder="data")
    assert place == "data/annotations/instances_val2017.json"
    assert {item.name for item in items} == {place, "data/val2017/1.png"}


# ---------------------------------------------------------------------- the agent's answers
@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """An agent with a job, in this process; without a keeper."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    agent = Agent()
    agent.job = agent.root / "jobs" / "one"
    for name in ("incoming", "tmp"):
        (agent.job / name).mkdir(parents=True)
    (agent.job / "lease").touch()
    return agent


def test_an_interrupted_file_goes_on_where_it_stopped(agent: Agent) -> None:
    content = b"0123456789"
    sha256 = hashlib.sha256(content).hexdigest()
    assert answer(agent, {"do": "put", "sha256": sha256, "offset": 0}, content[:6]) == {"bytes_there": 6}
    # Sent twice, because the answer was lost: it is not there twice.
    assert answer(agent, {"do": "put", "sha256": sha256, "offset": 0}, content[:6]) == {"bytes_there": 6}
    assert answer(agent, {"do": "have", "files": [[sha256, 10]]}, b"") == {"offsets": {sha256: 6}}
    assert answer(agent, {"do": "put", "sha256": sha256, "offset": 6}, content[6:]) == {"bytes_there": 10}
    assert answer(agent, {"do": "store", "sha256": sha256}, b"") == {}
    assert (agent.root / "files" / sha256).read_bytes() == content


def test_a_damaged_file_is_not_kept(agent: Agent) -> None:
    sha256 = hashlib.sha256(b"good").hexdigest()
    answer(agent, {"do": "put", "sha256": sha256, "offset": 0}, b"evil")
    assert answer(agent, {"do": "store", "sha256": sha256}, b"")["refused"] == "damaged"
    assert not (agent.root / "files" / sha256).exists()


def test_nothing_is_laid_outside_the_job(agent: Agent) -> None:
    said = answer(agent, {"do": "make_folder", "files": [["../../../x", ""]]}, b"")
    assert said["refused"] == "outside"


def test_a_request_for_a_job_that_is_gone_says_so(agent: Agent, tmp_path: Path) -> None:
    answer(agent, {"do": "end", "failed": True}, b"")
    assert answer(agent, {"do": "poll", "name": "run"}, b"")["refused"] == "gone"
    assert not (tmp_path / "edgecnn").exists()


@pytest.mark.runtime
def test_a_manifest_is_sent_as_it_was_hashed_though_others_write_to_it(colour_bundle: Bundle) -> None:
    items = bundle_items(colour_bundle, colour_bundle.manifest.artifacts, folder="bundle")
    (colour_bundle.folder / "manifest.json").write_text("{}")
    assert all(hashlib.sha256(item.read()).hexdigest() == item.sha256 for item in items)
