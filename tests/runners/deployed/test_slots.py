"""Versions of a bundle on a board: one of them whole at every moment, whatever ends what."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from edgecnn.errors import BundleError, SignatureError, SpecError, StorageError
from edgecnn.runners.deployed import slots as module
from edgecnn.runners.deployed.slots import KEPT, Slots


def version(folder: Path, text: str) -> Path:
    """What a bundle's folder looks like from here: plain files, a manifest among them."""
    bundle = folder / f"sent-{text}" / "street.edge"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text(text)
    (bundle / "network.onnx").write_text(text * 100)
    return bundle


def deploy(slots: Slots, bundle: Path) -> str:
    with slots.changing():
        slot = slots.add(bundle)
        slots.switch(slot, what="deployed")
    return slot


def runs(slots: Slots) -> str:
    """What a run that opens the link would read."""
    manifest, network = (slots.link / name for name in ("manifest.json", "network.onnx"))
    assert network.read_text() == manifest.read_text() * 100
    return manifest.read_text()


def test_the_link_leads_to_what_was_deployed_last_and_back(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "there", "street.edge")
    assert (slots.current, slots.previous, slots.history()) == ("", "", [])
    first = deploy(slots, version(tmp_path, "one"))
    second = deploy(slots, version(tmp_path, "two"))
    assert (runs(slots), slots.current, slots.previous) == ("two", second, first)
    with slots.changing():
        slots.switch(slots.previous, what="rolled back", why="no frames")
    assert (runs(slots), slots.current, slots.previous) == ("one", first, second)
    assert [(each.what, each.slot, each.before, each.why) for each in slots.history()] == [
        ("deployed", first, "", ""),
        ("deployed", second, first, ""),
        ("rolled back", first, second, "no frames"),
    ]
    assert not os.path.isabs(os.readlink(slots.link))  # the folder may be mounted elsewhere


def test_a_power_cut_between_the_link_and_the_history_leaves_a_way_back(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "there", "street.edge")
    first = deploy(slots, version(tmp_path, "one"))
    history = tmp_path / "there" / "street.edge.slots" / "history.jsonl"
    before = history.read_bytes()
    second = deploy(slots, version(tmp_path, "two"))
    history.write_bytes(before)
    assert (slots.current, slots.previous) == (second, first)


def test_the_same_bundle_is_one_version_and_a_damaged_one_is_written_anew(tmp_path: Path) -> None:
    slots, bundle = Slots(tmp_path / "there", "street.edge"), version(tmp_path, "one")
    first = deploy(slots, bundle)
    assert slots.add(bundle) == first
    (slots.link / "network.onnx").write_text("worn")
    again = deploy(slots, bundle)
    assert again == f"{first}-2"
    assert runs(slots) == "one"


def test_old_versions_go_and_never_the_one_that_runs_or_the_one_before(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "there", "street.edge")
    made = [deploy(slots, version(tmp_path, str(number))) for number in range(KEPT + 4)]
    assert (slots.current, slots.previous) == (made[-1], made[-2])
    assert len(slots.all()) == KEPT + 1
    with slots.changing():
        slots.switch(made[-2], what="rolled back")
    assert (runs(slots), slots.previous) == (str(KEPT + 2), made[-1])


class Killed(BaseException):
    """Stands for SIGKILL at a system call; what runs in `finally` after it is undone by hand below."""


CALLS = ("mkdir", "copy_plain", "fsync", "replace", "symlink_to", "_note")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("which", [1, 2])
def test_what_is_killed_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, which: int
) -> None:
    slots = Slots(tmp_path / "there", "street.edge")
    deploy(slots, version(tmp_path, "old"))
    bundle, times = version(tmp_path, "new"), 0
    owner = {"mkdir": Path, "symlink_to": Path, "fsync": os, "replace": os, "copy_plain": module, "_note": Slots}[call]
    true = getattr(owner, call)

    def killed(*given: object, **words: object) -> object:
        nonlocal times
        times += 1
        if times == which:
            monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # nobody tidies up
            raise Killed
        return true(*given, **words)

    monkeypatch.setattr(owner, call, killed)
    try:
        deploy(slots, bundle)
    except Killed:
        assert runs(slots) in ("old", "new")
    monkeypatch.undo()
    anew = Slots(tmp_path / "there", "street.edge")
    assert runs(anew) in ("old", "new")
    deploy(anew, bundle)
    assert runs(anew) == "new"
    left = {path.name for path in (tmp_path / "there" / "street.edge.slots").iterdir()}
    assert left == {*anew.all(), "history.jsonl"}


def test_a_full_disk_leaves_the_old_one_and_nothing_of_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(tmp_path / "there", "street.edge")
    deploy(slots, version(tmp_path, "old"))

    def full(source: Path, target: Path) -> None:
        target.write_text("ha")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(module, "copy_plain", full)
    with pytest.raises(StorageError, match="the disk is full"):
        deploy(slots, version(tmp_path, "new"))
    assert runs(slots) == "old"
    assert len(list((tmp_path / "there" / "street.edge.slots").iterdir())) == 2


def test_a_history_that_a_power_cut_halved_goes_on(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "there", "street.edge")
    deploy(slots, version(tmp_path, "one"))
    with (tmp_path / "there" / "street.edge.slots" / "history.jsonl").open("ab") as file:
        file.write(b'{"at_unix_s": 17')
    deploy(slots, version(tmp_path, "two"))
    assert [each.what for each in slots.history()] == ["deployed", "deployed"]


def test_what_is_no_bundle_or_no_deployment_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "there"
    for name in ("../street.edge", "street", ".edge", "a/b.edge", "-x.edge", "x" * 80 + ".edge", ""):
        with pytest.raises(SpecError, match=r"is called NAME\.edge"):
            Slots(place, name)
    slots = Slots(place, "street.edge")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        slots.add(empty)
    linked = version(tmp_path, "linked")
    (linked / "more.bin").symlink_to("/etc/passwd")
    with pytest.raises(SignatureError, match="not a plain file"):
        slots.add(linked)
    with pytest.raises(SpecError, match="there is no version"):
        slots.switch("../../etc", what="deployed")
    (place / "yard.edge").mkdir()
    with pytest.raises(SpecError, match="was not deployed: move it away"):
        Slots(place, "yard.edge")
    assert slots.all() == []


def test_a_link_that_leads_elsewhere_is_no_version(tmp_path: Path) -> None:
    place = tmp_path / "there"
    slots = Slots(place, "street.edge")
    slots.link.symlink_to("/etc")
    assert slots.current == ""
    deploy(slots, version(tmp_path, "one"))
    assert runs(slots) == "one"
