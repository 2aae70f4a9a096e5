"""Our run-length codes are those of COCO's own tools, and come back as the same mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgecnn import rle
from edgecnn.errors import DataError
from edgecnn.results import BoolArray, UInt8Array

masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))
maps = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 3))


@given(masks)
def test_a_mask_comes_back(mask: BoolArray) -> None:
    code = rle.encode(mask)
    assert np.array_equal(rle.decode(code), mask)
    assert rle.area_px(code) == mask.sum()


@given(masks)
def test_the_code_is_that_of_cocos_tools(mask: BoolArray) -> None:
    coco = pytest.importorskip("faster_coco_eval.core.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle.encode(mask) == {"size": theirs["size"], "counts": theirs["counts"].decode()}
    assert np.array_equal(coco.decode(dict(rle.encode(mask))), mask)


@given(maps)
@settings(max_examples=60)
def test_a_class_maps_codes_are_those_of_its_masks(classes: UInt8Array) -> None:
    codes = rle.encode_classes(classes)
    assert list(codes) == np.unique(classes).tolist()
    assert all(code == rle.encode(classes == class_id) for class_id, code in codes.items())


@pytest.mark.parametrize("shape", [(1080, 1920), (3, 100_000)])
def test_large_masks_come_back(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.bool_)
    mask[1:3, shape[1] // 3 : -1] = True
    mask[0, -1] = mask[-1, -1] = mask[0, 0] = True
    assert np.array_equal(rle.decode(rle.encode(mask)), mask)


def test_known_code_of_a_small_mask() -> None:
    mask = np.array([[0, 1], [1, 1]], np.bool_)
    assert rle.encode(mask) == {"size": [2, 2], "counts": "13"}


@pytest.mark.parametrize("counts", ["", "1", "o", "é", "999999", "P" * 40 + "0"])
def test_damaged_codes_are_refused(counts: str) -> None:
    with pytest.raises(DataError, match="mask's runs"):
        rle.decode({"size": [2, 2], "counts": counts})
