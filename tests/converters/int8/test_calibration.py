"""Calibration pictures: what is wrong with them is said, with what it does to the result."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn.converters.int8.search.calibration import load_calibration
from edgecnn.errors import DataError
from edgecnn.frame import FrameFitter, FrameSpec
from edgecnn.photographs import photographs

SPEC = FrameSpec(height_px=96, width_px=128)


def write(folder: Path, pictures: list[np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{index:03}.png"), picture)
    return folder


def crops(count: int) -> list[np.ndarray]:
    """Different parts of the photographs that come with edgecnn."""
    sources = list(photographs().values())
    rng = np.random.default_rng(0)
    found = []
    for index in range(count):
        picture = sources[index % len(sources)]
        top, left = rng.integers(0, picture.shape[0] - 160), rng.integers(0, picture.shape[1] - 160)
        found.append(picture[top : top + 160, left : left + 160])
    return found


def test_good_pictures_are_fitted_as_the_runner_fits_them_and_give_no_warning(tmp_path: Path) -> None:
    pictures = crops(20)
    calibration = load_calibration(write(tmp_path / "street", pictures), SPEC)
    assert calibration.warnings == ()
    assert calibration.record.source == "street"
    assert calibration.record.count == 20
    assert len(set(calibration.record.images)) == 20
    np.testing.assert_array_equal(calibration.frames[0], FrameFitter(SPEC)(pictures[0])[0])
    first, second = calibration.halves()
    assert len(first) == len(second) == 10
    assert not any(np.array_equal(a, b) for a in first for b in second)


def test_the_seed_chooses_the_pictures_and_the_record_keeps_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "street", crops(40))
    one, same, other = (load_calibration(folder, SPEC, count=16, seed=seed) for seed in (1, 1, 2))
    assert one.record == same.record
    assert one.record.images != other.record.images
    assert (one.record.count, one.record.seed) == (16, 1)


def test_another_frame_has_another_hash(tmp_path: Path) -> None:
    folder = write(tmp_path / "street", crops(2))
    hashes = {
        load_calibration(folder, spec).record.preprocess_sha256 for spec in (SPEC, FrameSpec(height_px=64, width_px=64))
    }
    assert len(hashes) == 2


def test_noise_is_recognised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (120, 160, 3), dtype=np.uint8) for _ in range(20)]
    (warning,) = load_calibration(write(tmp_path / "noise", noise), SPEC).warnings
    assert warning.startswith("20 of 20 calibration pictures look like noise")
    assert "ranges will be wrong" in warning


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", crops(1))
    for source in (folder, folder / "000.png"):
        (warning,) = load_calibration(source, SPEC).warnings
        assert warning.startswith("only 1 different calibration picture:")


def test_copies_of_one_picture_are_one_picture(tmp_path: Path) -> None:
    (warning,) = load_calibration(write(tmp_path / "copies", crops(1) * 30), SPEC).warnings
    assert warning.startswith("only 1 different calibration picture:")


def test_pictures_of_one_colour_add_nothing(tmp_path: Path) -> None:
    black = np.zeros((100, 100, 3), np.uint8)
    (warning,) = load_calibration(write(tmp_path / "some", [*crops(18), black]), SPEC).warnings
    assert warning.startswith("1 of 19 calibration pictures have one colour")
    with pytest.raises(DataError, match="all 2 calibration pictures have one colour"):
        load_calibration(write(tmp_path / "all", [black, black]), SPEC)


def test_thumbnails_have_no_detail(tmp_path: Path) -> None:
    tiny = [cv2.resize(picture, (24, 24), interpolation=cv2.INTER_AREA) for picture in crops(20)]
    (warning,) = load_calibration(write(tmp_path / "tiny", tiny), SPEC).warnings
    assert "times smaller than the frame of 128x96 px" in warning


def test_an_empty_folder_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        load_calibration(tmp_path / "empty", SPEC)
    with pytest.raises(DataError, match="does not exist"):
        load_calibration(tmp_path / "absent", SPEC)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "street", crops(3))
    (folder / "001.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"001\.png"):
        load_calibration(folder, SPEC)
