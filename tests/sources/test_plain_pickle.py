"""What torch.save wrote is read in a time that its size bounds, whatever words it holds."""

from __future__ import annotations

import io
import pickle
import time
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import torch

from edgecnn.errors import WeightsError
from edgecnn.sources.plain_pickle import load_plain
from edgecnn.sources.weights import read_weights

pytestmark = pytest.mark.torch

LONG = b"x" * 400_000  # torch's own search for a word in its message takes minutes for these


def in_archive(pickled: bytes, member: str = "net/data.pkl") -> bytes:
    """An archive like those of torch.save, with this in place of the object."""
    saved, written = io.BytesIO(), io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, saved)
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as copy:
        for info in archive.infolist():
            folder, _, name = info.filename.partition("/")
            if name == "data.pkl":
                copy.writestr(f"{folder}/{member.partition('/')[2]}", pickled)
            else:
                copy.writestr(info.filename, archive.read(info))
    return written.getvalue()


def in_old_form(pickled: bytes) -> bytes:
    """A file as torch.save wrote it before version 1.6, with this in place of the object."""
    before = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(value, protocol=2) for value in before) + pickled


def a_global(name: bytes) -> bytes:
    return b"\x80\x02c" + name + b"\nf\n."


def a_call_of(text: bytes) -> bytes:
    """A pickle that calls a text: torch quotes it in its refusal."""
    return b"\x80\x02X" + len(text).to_bytes(4, "little") + text + b")R."


HOSTILE = {
    "a class's name": a_global(LONG),
    "a blocked module's name": a_global(b"os." + LONG),
    "a text that is called": a_call_of(LONG),
    "a text of unprintable characters": a_call_of(b"\x00" * 100_000),
}


@pytest.mark.parametrize("pickled", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("form", ["archive", "archive in capitals", "old", "with an archive behind it", "plain"])
def test_a_word_that_would_keep_torch_busy_is_refused_at_once(tmp_path: Path, pickled: bytes, form: str) -> None:
    content = {
        "archive": in_archive(pickled),
        "archive in capitals": in_archive(pickled, "net/DATA.PKL"),
        "old": in_old_form(pickled),
        "with an archive behind it": pickled + in_archive(pickle.dumps({}, protocol=2)),
        "plain": pickled,
    }[form]
    (tmp_path / "net.pth").write_bytes(content)
    start_s = time.process_time()
    with pytest.raises(WeightsError):
        read_weights(tmp_path / "net.pth")
    assert time.process_time() - start_s < 10


@pytest.mark.parametrize("old", [False, True])
def test_long_texts_of_a_checkpoint_are_no_reason_to_refuse_it(old: bool) -> None:
    notes = "one word after another, as in a log. " * 5000
    file = io.BytesIO()
    torch.save({"notes": notes, "weight": torch.ones(3)}, file, _use_new_zipfile_serialization=not old)
    assert load_plain(file)["notes"] == notes
