"""The demo's footage: a camera that moves over photographs, gently, and never beside them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.demonstration import footage as footage_module
from edgecnn.demonstration.footage import FRAMES_EACH, SIZE_PX, footage, view, write_footage
from edgecnn.errors import StorageError

sides = st.integers(1, 5000)
shares = st.floats(0, 1)


@given(size=st.tuples(sides, sides), share=shares, nearing=st.booleans())
def test_the_camera_never_leaves_the_picture(size: tuple[int, int], share: float, nearing: bool) -> None:
    left, top, wide = view(size, share, nearing=nearing)
    high = wide * SIZE_PX[1] / SIZE_PX[0]
    assert wide > 0
    assert left >= 0 and top >= 0
    assert left + wide <= size[0] * (1 + 1e-9) and top + high <= size[1] * (1 + 1e-9)


@given(size=st.tuples(sides, sides), nearing=st.booleans())
def test_the_camera_moves_gently(size: tuple[int, int], nearing: bool) -> None:
    at = np.array([view(size, step / (FRAMES_EACH - 1), nearing=nearing) for step in range(FRAMES_EACH)])
    steps = np.abs(np.diff(at, axis=0)) / max(size)
    assert steps.max() < 0.03  # of the picture's side, in a frame
    assert steps[[0, -1]].max() < 0.005  # it starts and stops slowly
    assert np.ptp(at[:, 2]) > 0  # and goes nearer or farther


def test_the_middle_of_a_picture_is_seen_where_it_is() -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:, 320:] = 255
    left, _, wide = view((640, 480), 0.0, nearing=True)
    first = next(footage({"half": picture}))
    edge = int(np.argmax(first[240, :, 0] > 127))
    assert edge == pytest.approx((320 - left) * 640 / wide, abs=1)


def test_each_photograph_gets_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footage_module, "FRAMES_EACH", 3)
    pictures = {"tall": np.full((90, 30, 3), 40, np.uint8), "wide": np.full((20, 99, 3), 200, np.uint8)}
    frames = list(footage(pictures))
    assert [frame.shape for frame in frames] == [(480, 640, 3)] * 6
    assert [int(frame.mean()) for frame in frames] == [40] * 3 + [200] * 3


def test_what_is_written_can_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footage_module, "FRAMES_EACH", 2)
    calls: list[tuple[int, int]] = []
    assert write_footage(tmp_path / "footage.mp4", progress=lambda done, total: calls.append((done, total))) == 8
    assert calls == [(n, 8) for n in range(1, 9)]
    capture = cv2.VideoCapture(str(tmp_path / "footage.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 20
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == 8


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"footage\.mp4 cannot be written"):
        write_footage(tmp_path / "absent" / "footage.mp4")
