"""The journal of long work: kills at any byte, full disks, damaged and foreign files, two programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecnn.errors import SpecError, StorageError
from edgecnn.journal import Journal, journal_subject
from tests.builders.processes import start_python


def test_what_was_put_is_there_for_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "net.jsonl"
    journal = Journal(path, about="one")
    journal.put("metric", "a", 0.25)
    journal.put("metric", "b", None)
    journal.put("step", "1", {"macs": 3, "names": ["x"]})
    journal.put("metric", "a", 0.5)
    again = Journal(path, about="one")
    assert again.get("metric", "a") == 0.5
    assert ("metric", "b") in again and again.get("metric", "b") is None
    assert ("metric", "c") not in again and again.get("metric", "c") is None
    assert again.get("step", "1") == {"macs": 3, "names": ["x"]}
    assert dict(again.of("metric")) == {"a": 0.5, "b": None}
    assert journal_subject(path) == "one"


def test_a_different_job_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "net.jsonl"
    Journal(path, about="one").put("metric", "a", 0.25)
    assert ("metric", "a") not in Journal(path, about="other")
    assert journal_subject(path) == "other"
    assert ("metric", "a") not in Journal(path, about="one")


def test_a_kill_at_any_byte_costs_no_more_than_the_line(tmp_path: Path) -> None:
    path = tmp_path / "net.jsonl"
    journal = Journal(path, about="one")
    for number in range(4):
        journal.put("metric", f"{number}", number)
    content = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for length in range(ends[0], len(content) + 1):
        path.write_bytes(content[:length])
        whole = sum(end <= length for end in ends) - 1
        whole += length + 1 in ends  # all but the line's end is there
        cut = Journal(path, about="one")
        assert [of for of, _ in cut.of("metric")] == [f"{number}" for number in range(whole)]
        cut.put("metric", "next", 7)
        assert dict(Journal(path, about="one").of("metric")) == dict(cut.of("metric"))


def test_memory_alone_needs_no_file() -> None:
    journal = Journal()
    journal.put("metric", "a", 1)
    assert journal.get("metric", "a") == 1


def test_infinity_and_nan_are_null_on_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "net.jsonl")
    journal.put("metric", "a", float("nan"))
    assert Journal(tmp_path / "net.jsonl").get("metric", "a") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b'{"about": 3}\n', b"\xff\xfe\n", b"[" * 100_000])
def test_a_file_that_is_not_a_journal_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.jsonl"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=r"net\.jsonl is damaged"):
        journal_subject(path)


def test_lines_of_another_form_count_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "net.jsonl"
    lines = [{"about": "one"}, [], 3, {"what": 1, "of": "a", "value": 1}, {"what": "a", "of": "b"}]
    path.write_text("\n".join(map(json.dumps, lines)) + '\nnull\n{"what":"a","of":"c","value":2}\n')
    assert dict(Journal(path, about="one").of("a")) == {"c": 2}


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        Journal(tmp_path / "file" / "net.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_and_nothing_is_believed_written(tmp_path: Path) -> None:
    path = tmp_path / "net.jsonl"
    journal = Journal(path)
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk is full"):
        journal.put("metric", "a", 1)
    assert ("metric", "a") not in journal


def test_a_killed_program_leaves_everything_that_was_confirmed_as_written(tmp_path: Path) -> None:
    path = tmp_path / "net.jsonl"
    program = (
        "import pathlib, sys\n"
        "from edgecnn.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "for number in range(10_000):\n"
        "    journal.put('number', f'{number}', number)\n"
        "    print('.', end='', flush=True)\n"
    )
    with start_python(program, str(path)) as process:
        assert process.stdout is not None
        confirmed = len(process.stdout.read(100))
        process.kill()
        confirmed += len(process.stdout.read())
    assert confirmed >= 100
    assert {f"{number}" for number in range(confirmed)} <= {of for of, _ in Journal(path).of("number")}
