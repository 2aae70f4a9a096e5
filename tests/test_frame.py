"""Pictures into frames and answers back, against independent references."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgecnn.errors import SpecError
from edgecnn.frame import Fit, FrameFitter, FrameSpec, Placement, nearest_lines, placement
from edgecnn.resampling import Filter, Resampler, bands
from edgecnn.results import UInt8Array

sides = st.integers(1, 400)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def specs(draw: st.DrawFn, fits: tuple[Fit, ...] = ("letterbox", "stretch", "centre-crop")) -> FrameSpec:
    fit = draw(st.sampled_from(fits))
    height, width = draw(st.integers(4, 300)), draw(st.integers(4, 300))
    short = draw(st.integers(max(height, width), 400)) if fit == "centre-crop" else None
    return FrameSpec(
        height_px=height,
        width_px=width,
        fit=fit,
        resize_short_px=short,
        alignment=draw(st.sampled_from(["centre", "top-left"])),
        pad_value=draw(st.integers(0, 255)),
        antialias=draw(st.booleans()),
    )


def picture_of(height: int, width: int, seed: int = 0) -> UInt8Array:
    """A picture with edges and slopes."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.ascontiguousarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@quick
@given(specs(), sides, sides, st.data())
def test_boxes_go_to_the_frame_and_come_back(spec: FrameSpec, height: int, width: int, data: st.DataObject) -> None:
    place = placement(spec, height, width)
    corner = st.floats(0, 1, width=32)
    left, right = sorted((data.draw(corner) * width, data.draw(corner) * width))
    top, bottom = sorted((data.draw(corner) * height, data.draw(corner) * height))
    boxes = np.array([[left, top, right, bottom]], np.float32)
    back = place.boxes_to_source(place.boxes_to_frame(boxes))
    # float32: the error of a place in the frame, in source pixels
    np.testing.assert_allclose(back, boxes, atol=1e-3 * max(1.0, 1 / place.scale_x, 1 / place.scale_y))


@quick
@given(specs(), sides, sides)
def test_the_whole_picture_is_the_whole_of_what_it_covers(spec: FrameSpec, height: int, width: int) -> None:
    place = placement(spec, height, width)
    whole = np.array([[0, 0, width, height]], np.float32)
    (left, top, right, bottom) = place.boxes_to_frame(whole)[0]
    assert round(float(right - left), 2) == place.resized_width_px
    assert round(float(bottom - top), 2) == place.resized_height_px
    assert (left, top) == (place.offset_x_px, place.offset_y_px)


@quick
@given(specs(), sides, sides)
def test_boxes_come_back_inside_the_picture(spec: FrameSpec, height: int, width: int) -> None:
    place = placement(spec, height, width)
    boxes = np.array([[-50, -50, spec.width_px + 50, spec.height_px + 50], [-9, -9, -8, -8]], np.float32)
    back = place.boxes_to_source(boxes)
    assert back.min() >= 0
    assert back[:, ::2].max() <= width
    assert back[:, 1::2].max() <= height
    assert back.dtype == np.float32


@quick
@given(specs(), sides, sides)
def test_what_a_picture_covers_lies_in_the_frame_and_has_the_resized_size(
    spec: FrameSpec, height: int, width: int
) -> None:
    place = placement(spec, height, width)
    rows, columns = place.covered
    assert 0 <= rows.start < rows.stop <= spec.height_px
    assert 0 <= columns.start < columns.stop <= spec.width_px
    shown = (rows.stop - rows.start, columns.stop - columns.start)
    if spec.fit == "centre-crop":
        assert shown == (spec.height_px, spec.width_px)
        assert min(place.resized_height_px, place.resized_width_px) == spec.resize_short_px
    else:
        assert shown == (place.resized_height_px, place.resized_width_px)
    if spec.fit == "stretch":
        assert shown == (spec.height_px, spec.width_px)


@quick
@given(specs(("letterbox",)), sides, sides)
def test_a_letterbox_touches_two_sides_and_keeps_the_aspect(spec: FrameSpec, height: int, width: int) -> None:
    place = placement(spec, height, width)
    free = spec.height_px - place.resized_height_px, spec.width_px - place.resized_width_px
    assert min(free) <= 1, "rounding down may leave one pixel free"
    ratio = min(spec.height_px / height, spec.width_px / width)
    assert abs(place.resized_height_px - height * ratio) <= 1
    assert abs(place.resized_width_px - width * ratio) <= 1
    middle = (free[0] // 2, free[1] // 2) if spec.alignment == "centre" else (0, 0)
    assert (place.offset_y_px, place.offset_x_px) == middle


@few
@given(specs(("letterbox",)), st.integers(1, 120), st.integers(1, 120))
def test_the_border_has_the_pad_value_also_after_another_picture(spec: FrameSpec, height: int, width: int) -> None:
    fitter = FrameFitter(spec)
    fitter(np.full((width, height, 3), 7, np.uint8))  # another geometry leaves nothing behind
    frame, place = fitter(np.full((height, width, 3), 200, np.uint8))
    border = np.ones(frame.shape[1:3], np.bool_)
    border[place.covered] = False
    assert (frame[0][border] == spec.pad_value).all()
    assert (frame[0][place.covered] == 200).all()


@few
@given(specs())
def test_a_picture_of_the_covered_size_is_copied_as_it_is(spec: FrameSpec) -> None:
    if spec.fit == "centre-crop":
        assert spec.resize_short_px is not None
        size = (spec.resize_short_px, spec.resize_short_px)
    else:
        size = (spec.height_px, spec.width_px)
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    frame, place = FrameFitter(spec)(picture)
    top, left = place.cut_px
    expected = picture[top : top + spec.height_px, left : left + spec.width_px]
    np.testing.assert_array_equal(frame[0], expected)
    assert frame.shape == (1, spec.height_px, spec.width_px, 3)


@few
@given(specs(), st.integers(1, 150), st.integers(1, 150))
def test_a_map_comes_back_in_the_pictures_size(spec: FrameSpec, height: int, width: int) -> None:
    place = placement(spec, height, width)
    frame_map = np.full((spec.height_px, spec.width_px), 9, np.uint8)
    frame_map[place.covered] = 3
    back = place.map_to_source(frame_map, fill=5)
    assert back.shape == (height, width)
    assert back.dtype == np.uint8
    assert back.flags.c_contiguous
    assert set(np.unique(back)) <= {3, 5}, "the border's answer does not leak into the picture"
    if place.cut_px == (0, 0) and spec.fit != "centre-crop":
        assert (back == 3).all()


def test_a_map_comes_back_where_it_was() -> None:
    spec = FrameSpec(height_px=40, width_px=40, fit="letterbox")
    place = placement(spec, 20, 40)
    frame_map = np.zeros((40, 40), np.uint8)
    frame_map[15:20, 8:16] = 1  # the picture starts at row 10
    back = place.map_to_source(frame_map)
    expected = np.zeros((20, 40), np.uint8)
    expected[5:10, 8:16] = 1
    np.testing.assert_array_equal(back, expected)


@given(st.integers(1, 2000), st.integers(1, 2000))
def test_a_map_has_the_nearest_lines_and_so_has_opencv_5(length: int, resized: int) -> None:
    lines = nearest_lines(length, resized)
    centres = (np.arange(resized) + 0.5) * length / resized
    assert (np.abs(lines + 0.5 - centres) <= 0.5 + 1e-9 * length).all()
    if cv2.__version__.startswith("5."):  # 4 finds others, because it rounds steps to 16 bits
        numbered = np.arange(length, dtype=np.float32)[None]
        theirs = cv2.resize(numbered, (resized, 1), interpolation=cv2.INTER_NEAREST_EXACT)
        np.testing.assert_array_equal(theirs[0], lines)


def test_a_map_of_the_pictures_own_size_is_a_copy() -> None:
    place = placement(FrameSpec(height_px=8, width_px=8), 8, 8)
    frame_map = np.zeros((8, 8), np.uint8)
    back = place.map_to_source(frame_map)
    frame_map[:] = 1
    assert not back.any(), "the runtime's memory is overwritten by the next frame"


@few
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 200), st.integers(1, 200), st.booleans())
def test_the_antialiased_resize_agrees_with_pillow(
    height: int, width: int, new_height: int, new_width: int, cubic: bool
) -> None:
    image_module = pytest.importorskip("PIL.Image", reason="needs Pillow")
    picture = picture_of(height, width, seed=height * 1000 + width)
    kernel: Filter = "cubic" if cubic else "triangle"
    method = image_module.Resampling.BICUBIC if cubic else image_module.Resampling.BILINEAR
    # In two steps: newer Pillows choose the order of the passes by the sizes, and round between them.
    narrow = image_module.fromarray(picture).resize((new_width, height), method)
    expected = np.asarray(narrow.resize((new_width, new_height), method))
    found = np.empty((new_height, new_width, 3), np.uint8)
    size = (new_height, new_width)
    resampler = Resampler((height, width), size, cut_px=(0, 0), shown=size, kernel=kernel)
    resampler(255 - picture, found)  # nothing of an earlier picture stays
    resampler(picture, found)
    difference = np.abs(found.astype(int) - expected)
    # One level in each pass, where a value lies halfway: the first one's goes through the second, about whole.
    assert difference.max() <= 2


@pytest.mark.parametrize(("kernel", "pillows"), [("cubic", "BICUBIC"), ("triangle", "BILINEAR")])
def test_the_antialiased_resize_of_a_photographs_size_is_pillows(kernel: Filter, pillows: str) -> None:
    image_module = pytest.importorskip("PIL.Image", reason="needs Pillow")
    method = image_module.Resampling[pillows]
    picture = picture_of(480, 640)
    found = np.empty((224, 301, 3), np.uint8)
    Resampler((480, 640), (224, 301), cut_px=(0, 0), shown=(224, 301), kernel=kernel)(picture, found)
    expected = image_module.fromarray(picture).resize((301, 480), method).resize((301, 224), method)
    difference = np.abs(found.astype(int) - np.asarray(expected))
    assert difference.max() <= 1
    assert difference.mean() < 0.001


@few
@given(st.data())
def test_a_part_of_the_resize_is_that_part_of_the_whole(data: st.DataObject) -> None:
    picture = picture_of(90, 130)
    size = (data.draw(st.integers(2, 80)), data.draw(st.integers(2, 80)))
    top, left = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    whole = np.empty((*size, 3), np.uint8)
    Resampler((90, 130), size, cut_px=(0, 0), shown=size, kernel="triangle")(picture, whole)
    part = np.empty((size[0] - top, size[1] - left, 3), np.uint8)
    shown = (part.shape[0], part.shape[1])
    Resampler((90, 130), size, cut_px=(top, left), shown=shown, kernel="triangle")(picture, part)
    assert np.abs(part.astype(int) - whole[top:, left:]).max() <= 2  # sums in another order may round otherwise, twice


def yolox_letterbox(picture: UInt8Array, height: int, width: int) -> tuple[UInt8Array, float]:
    """What YOLOX's preproc does, in our own words: top left, floor of the size, 114 around."""
    frame = np.full((height, width, 3), 114, np.uint8)
    ratio = min(height / picture.shape[0], width / picture.shape[1])
    inner_height, inner_width = int(picture.shape[0] * ratio), int(picture.shape[1] * ratio)
    inner = cv2.resize(picture, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    frame[:inner_height, :inner_width] = inner
    return frame, ratio


@few
@given(st.integers(20, 500), st.integers(20, 500), st.sampled_from([(416, 416), (64, 96), (320, 640)]))
def test_the_letterbox_agrees_with_yoloxs(height: int, width: int, size: tuple[int, int]) -> None:
    picture = picture_of(height, width)
    expected, ratio = yolox_letterbox(picture, *size)
    spec = FrameSpec(height_px=size[0], width_px=size[1], alignment="top-left")
    frame, place = FrameFitter(spec)(picture)
    np.testing.assert_array_equal(frame[0], expected)
    boxes = np.array([[3, 4, 15, 16]], np.float32)
    theirs = np.clip(boxes / ratio, 0, [width, height, width, height])
    # YOLOX divides by the ratio before rounding, we by the ratio of the sizes: at most a pixel at the far edge
    assert np.abs(place.boxes_to_source(boxes) - theirs).max() <= 1 / ratio + 1e-3


def test_a_picture_with_strides_is_fitted_as_its_copy() -> None:
    spec = FrameSpec(height_px=50, width_px=60)
    picture = picture_of(120, 200)
    for view in (picture[::2, ::3], picture[:, ::-1], picture[..., ::-1], picture[10:90, 5:77]):
        found = FrameFitter(spec)(view)[0].copy()
        np.testing.assert_array_equal(found, FrameFitter(spec)(np.ascontiguousarray(view))[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"height_px": 0}, "size must be positive, got 64x0"),
        ({"width_px": -1}, "size must be positive"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive on every channel"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": float("nan")}, "scale must be positive"),
        ({"std": (1.0, float("nan"), 1.0)}, "std must be positive"),
        ({"mean": (0.0, float("inf"), 0.0)}, "mean must be finite"),
        ({"pad_value": 256}, r"pad_value must be in 0\.\.255"),
        ({"pad_value": -1}, r"pad_value must be in 0\.\.255"),
        ({"interpolation": "nearest", "antialias": True}, "antialias goes with bilinear or bicubic"),
        ({"fit": "centre-crop"}, "resize_short_px of at least 64"),
        ({"fit": "centre-crop", "resize_short_px": 63}, "got 63"),
        ({"resize_short_px": 80}, "goes with fit 'centre-crop', not with 'letterbox'"),
    ],
)
def test_a_frame_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        FrameSpec(**{"height_px": 64, "width_px": 64, **wrong})


@quick
@given(specs(), sides, sides)
def test_the_resize_keeps_at_least_one_pixel(spec: FrameSpec, height: int, width: int) -> None:
    assume(spec.fit != "centre-crop")
    place: Placement = placement(spec, height, width)
    assert min(place.resized_height_px, place.resized_width_px) >= 1


@pytest.mark.parametrize("kernel", ["triangle", "cubic"])
@pytest.mark.parametrize(("length", "resized"), [(640, 224), (37, 300), (1000, 7), (5, 5), (481, 480)])
def test_weights_are_whole_steps_whose_sums_are_exact_in_any_order(kernel: Filter, length: int, resized: int) -> None:
    level = np.random.default_rng(0).integers(0, 256, length)
    for _, start, stop, weights in bands(length, resized, 0, resized, kernel):
        assert (weights.sum(1, dtype=np.float64) == 1).all()
        products = weights * level[start:stop].astype(np.float32)
        exact = (weights.astype(np.float64) * level[start:stop]).sum(1)
        assert (products.cumsum(1, dtype=np.float32)[:, -1] == exact).all()
        assert (products[:, ::-1].cumsum(1, dtype=np.float32)[:, -1] == exact).all()


def test_bicubic_frames_are_the_same_with_and_without_intels_ipp() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    spec = FrameSpec(height_px=64, width_px=64, interpolation="bicubic", fit="stretch")
    used = cv2.ipp.useIPP()
    frame = FrameFitter(spec)(picture)[0].copy()
    assert cv2.ipp.useIPP() == used  # left as it was
    try:
        cv2.ipp.setUseIPP(False)
        assert (FrameFitter(spec)(picture)[0] == frame).all()
    finally:
        cv2.ipp.setUseIPP(used)


def test_a_map_of_few_cells_is_placed_as_one_of_the_frames_size() -> None:
    placed = placement(FrameSpec(height_px=64, width_px=64), 40, 80)  # letterbox: rows are padded
    coarse = np.arange(64, dtype=np.uint8).reshape(8, 8)
    fine = coarse.repeat(8, axis=0).repeat(8, axis=1)
    assert np.array_equal(placed.map_to_source(coarse), placed.map_to_source(fine))
