"""JSON of names that are no UTF-8."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edgecnn.cli._main import main
from edgecnn.json_text import encode_json

STRANGE = "red\udcff"
PICTURE = cv2.imencode(".png", np.full((40, 60, 3), 90, np.uint8))[1].tobytes()


class Seen(msgspec.Struct):
    path: str
    counts: dict[str, int]


def test_bytes_that_are_no_text_stand_as_python_shows_them() -> None:
    assert json.loads(encode_json(Seen(STRANGE, {STRANGE: 2}))) == {"path": "red\\udcff", "counts": {"red\\udcff": 2}}


def test_text_stays_as_msgspec_writes_it() -> None:
    value = {"a": ["ü", 1.5, None]}
    assert encode_json(value) == msgspec.json.encode(value)
    assert encode_json(value, indent=1).count(b"\n") > 3


def test_a_data_set_with_such_a_name_is_told_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (STRANGE, "green"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(PICTURE)
    main(["data", str(tmp_path), "--json"])
    assert "red\\udcff" in json.loads(capsys.readouterr().out)["parts"][0]["per_class"]


@pytest.mark.runtime
def test_json_lines_hold_nothing_that_commands_a_terminal(tmp_path: Path) -> None:
    picture, lines = tmp_path / "a\x9b31m\udcfe.png", tmp_path / "lines.jsonl"
    picture.write_bytes(PICTURE)
    assert main(["run", "default-detector", str(picture), "--jsonl", str(lines)]) == 0
    text = lines.read_bytes().decode()
    assert "\x9b" not in text and json.loads(text)["source"].endswith("a\x9b31m\\udcfe.png")
