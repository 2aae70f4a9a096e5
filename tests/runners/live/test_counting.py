"""Each object counts once a crossing, in the direction it went, however its box trembles."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgecnn.errors import SpecError
from edgecnn.results import Detections, LineCount, Point, ZoneCount
from edgecnn.runners.live.tracking.counting import LineCounter, ZoneCounter, check_inside, parse_counters
from edgecnn.tasks import Detect
from edgecnn.tasks.drawing import colour_of

LABELS = ("person", "bicycle")
HEIGHT_PX = 40.0  # of every box: its margin is 2 px
PLACE = st.tuples(st.floats(-200, 200), st.floats(-200, 200))
WAY = st.lists(PLACE, min_size=2, max_size=30)
# never on the line from 0,0 to 100,0, nor at its margin, where rounding would decide
BESIDE = st.integers(-200, 199).map(lambda number: number + 0.5)
CLEAR_WAY = st.lists(st.tuples(BESIDE, BESIDE), min_size=2, max_size=30)


def standing(*places: Point, ids: list[int] | None = None, class_ids: list[int] | None = None) -> Detections:
    """Objects whose boxes' lower edges have their middles here."""
    x, y = np.array(places, np.float64).reshape(-1, 2).T
    boxes = np.stack([x - 10, y - HEIGHT_PX, x + 10, y], axis=1)
    count = len(places)
    return Detections(
        boxes,  # type: ignore[arg-type] # in float64, so that places are what they are said to be
        np.full(count, 0.9, np.float32),
        np.array(class_ids or [0] * count, np.int64),
        LABELS,
        np.array(ids if ids is not None else range(1, count + 1), np.int64),
    )


def crossings(line: LineCounter, way: list[Point]) -> tuple[int, int]:
    for place in way:
        line.update(standing(place))
    return sum(line.count.in_by_class.values()), sum(line.count.out_by_class.values())


def clear_of_the_ends(way: list[Point]) -> bool:
    """Whether a way goes past the ends of the line from 0,0 to 100,0, and not through them."""
    for (x0, y0), (x1, y1) in pairwise(way):
        if (y0 > 0) != (y1 > 0):
            x = x0 + (x1 - x0) * y0 / (y0 - y1)
            if abs(x) < 1e-3 or abs(x - 100) < 1e-3:
                return False
    return True


def across(start: Point = (0, 0), end: Point = (100, 0)) -> LineCounter:
    return LineCounter(start, end, name="door")


def test_downwards_over_a_line_from_left_to_right_is_in_and_upwards_is_out() -> None:
    line = across()
    assert crossings(line, [(50, -30), (50, -10), (50, 10), (50, 30)]) == (1, 0)
    assert crossings(line, [(50, 10), (50, -10)]) == (1, 1)
    assert str(line.count) == "door: 1 in, 1 out"


def test_an_object_counts_however_far_it_goes_between_two_frames() -> None:
    assert crossings(across(), [(50, -500), (50, 500)]) == (1, 0)


def test_classes_count_apart() -> None:
    line = across()
    for y in (-20, 20):
        line.update(standing((10, y), (50, y), (90, -y), class_ids=[0, 1, 1]))
    assert line.count == LineCount("door", (0, 0), (100, 0), {"person": 1, "bicycle": 1}, {"bicycle": 1})


def test_who_goes_round_the_lines_end_crosses_nothing() -> None:
    assert crossings(across(), [(50, -30), (150, -30), (150, 30), (50, 30)]) == (0, 0)


def test_who_comes_back_round_the_end_crosses_again() -> None:
    lap = [(50.0, -30.0), (50.0, 30.0), (150.0, 30.0), (150.0, -30.0)]
    assert crossings(across(), lap * 3) == (3, 0)


def test_a_box_that_trembles_on_the_line_counts_once_when_it_has_passed() -> None:
    trembling = [(50.0, y) for y in (-30, -1, 1, -1.5, 1.9, -0.5, 1, -1, 1)]
    assert crossings(across(), [*trembling, (50, 30)]) == (1, 0)
    assert crossings(across(), [*trembling, (50, -30)]) == (0, 0)


def test_boxes_without_an_id_dont_count_and_detections_without_ids_are_refused() -> None:
    line = across()
    for y in (-20, 20):
        line.update(standing((50, y), ids=[-1]))
    assert line.count.in_by_class == {}
    untracked = standing((50, 20))
    with pytest.raises(SpecError, match="Tracker"):
        line.update(Detections(untracked.boxes_xyxy_px, untracked.scores, untracked.class_ids, LABELS))


@given(way=WAY, start=PLACE, end=PLACE)
def test_what_went_in_and_hasnt_come_out_is_on_the_other_side_of_an_endless_line(
    way: list[Point], start: Point, end: Point
) -> None:
    assume(math.dist(start, end) > 1)
    far = 1e5 / math.dist(start, end)
    away = (end[0] - start[0]) * far, (end[1] - start[1]) * far
    line = across((start[0] - away[0], start[1] - away[1]), (end[0] + away[0], end[1] + away[1]))
    entered, left = crossings(line, way)
    assert abs(entered - left) <= 1
    assert entered + left <= len(way) - 1


@given(way=CLEAR_WAY)
def test_the_line_drawn_the_other_way_round_swaps_in_and_out(way: list[Point]) -> None:
    assume(clear_of_the_ends(way))
    assert crossings(across(), way) == crossings(across((100, 0), (0, 0)), way)[::-1]


@given(way=CLEAR_WAY, turn=st.floats(0, 6.28), shift=PLACE)
def test_counts_dont_depend_on_where_the_scene_lies_in_the_picture(way: list[Point], turn: float, shift: Point) -> None:
    assume(clear_of_the_ends(way))

    def moved(point: Point) -> Point:
        cosine, sine = math.cos(turn), math.sin(turn)
        return (
            cosine * point[0] - sine * point[1] + shift[0],
            sine * point[0] + cosine * point[1] + shift[1],
        )

    turned = across(moved((0, 0)), moved((100, 0)))
    assert crossings(turned, [moved(place) for place in way]) == crossings(across(), way)


@given(way=st.lists(st.tuples(st.floats(0, 100), st.floats(-1.99, 1.99)), max_size=40), side=st.sampled_from([-30, 30]))
def test_trembling_alone_is_not_counted(way: list[Point], side: float) -> None:
    assert crossings(across(), [(50, side), *way, (50, side)]) == (0, 0)


def test_a_zone_counts_who_is_in_it_and_who_came_in() -> None:
    zone = ZoneCounter([(0, 0), (100, 0), (100, 100), (0, 100)], name="yard")
    zone.update(standing((50, 50), (150, 50), class_ids=[0, 1]))
    assert zone.count == ZoneCount("yard", zone.points_px, {"person": 1}, {}, 1)  # the first was always there
    zone.update(standing((50, 50), (90, 50), class_ids=[0, 1]))
    assert zone.count.inside_by_class == {"person": 1, "bicycle": 1}
    assert zone.count.entered_by_class == {"bicycle": 1}
    zone.update(standing((150, 50), ids=[2], class_ids=[1]))  # the first is not seen
    assert zone.count == ZoneCount("yard", zone.points_px, {}, {"bicycle": 1}, 2)
    assert str(zone.count) == "yard: 0 inside, 1 entered"


def test_who_trembles_at_a_zones_edge_enters_once() -> None:
    zone = ZoneCounter([(0, 0), (100, 0), (100, 100), (0, 100)])
    for x in (120, 101, 99, 101, 98.5, 101.5, 90, 99, 101, 50):
        zone.update(standing((x, 50)))
    assert zone.count.entered_by_class == {"person": 1}


@given(way=WAY)
def test_who_enters_a_zone_is_inside_it_or_has_left(way: list[Point]) -> None:
    zone = ZoneCounter([(-50, -50), (50, -50), (80, 50), (-50, 80)])
    inside = []
    for place in way:
        count = zone.update(standing(place))
        inside.append(sum(count.inside_by_class.values()))
    came = sum(1 for before, now in pairwise(inside) if now > before)
    assert sum(zone.count.entered_by_class.values()) == came
    assert zone.count.most_inside == max(inside)


def test_a_camera_may_count_for_months() -> None:
    line = across()
    for track_id in range(5000):
        line.update(standing((50, -20), ids=[track_id]))
    assert len(line._paths._states) == 4096
    line.update(standing((50, 20), ids=[4999]))
    assert line.count.in_by_class == {"person": 1}


def test_words_become_lines_and_zones() -> None:
    line, named, zone = parse_counters(["1,2,3.5,4", "main door=0,0,5,5"], ["yard=0,0,9,0,9,9"])
    assert (line.name, line.points_px) == ("line 1", ((1, 2), (3.5, 4)))
    assert named.name == "main door"
    assert (zone.name, zone.points_px) == ("yard", ((0, 0), (9, 0), (9, 9)))


@pytest.mark.parametrize(
    ("lines", "zones", "message"),
    [
        (["1,2,3"], [], r"count-line: expected x1,y1,x2,y2 in pixels .* or NAME=x1,y1,x2,y2; got '1,2,3'"),
        (["a,b,c,d"], [], "got 'a,b,c,d'"),
        ([""], [], "got ''"),
        (["=1,2,3,4"], [], "NAME="),
        (["1,2,3,4,5,6"], [], "two points, .*got 3 points"),
        (["1,2,1,2"], [], "two different ends"),
        (["1,2,nan,4"], [], "finite"),
        ([], ["0,0,5,5"], r"zone: expected x1,y1,x2,y2,x3,y3,… in pixels"),
        ([], ["0,0,5,5,9,9"], "enclose an area"),
        (["a=0,0,5,5"], ["a=0,0,9,0,9,9"], "2 lines and zones are called 'a'"),
    ],
)
def test_words_that_cant_be_understood_say_what_was_expected(lines: list[str], zones: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_counters(lines, zones)


def test_edges_of_the_picture_belong_to_it() -> None:
    check_inside([across((0, 0), (160, 120))], width_px=160, height_px=120)
    with pytest.raises(SpecError, match="'door' extends to -1,0"):
        check_inside([across((-1, 0), (10, 10))], width_px=160, height_px=120)


def test_lines_zones_and_their_counts_are_drawn_below_the_boxes() -> None:
    counts: tuple[Any, ...] = (
        LineCount("door", (20, 100), (300, 100), {"person": 2}, {}),
        ZoneCount("yard", ((200, 120), (300, 120), (300, 220), (200, 220)), {}, {}, 0),
    )
    image = np.full((240, 320, 3), 90, np.uint8)
    box = np.array([[90, 80, 130, 140]], np.float32)
    found = Detections(box, np.array([0.9], np.float32), np.array([0]), LABELS, np.array([7]), counts)
    picture = Detect(labels=LABELS).draw(image, found)
    assert picture[100, 50].tolist() == pytest.approx([0, 255, 255], abs=20)  # its edges are smooth
    assert picture[220, 250].tolist() == pytest.approx([255, 255, 0], abs=20)
    assert picture[108, 160].tolist() == pytest.approx([0, 255, 255], abs=20)  # the arrow points to where "in" is
    assert (picture[92, 160] == 90).all()
    assert picture[100, 90].tolist() == list(colour_of(0))  # the box's outline is above
    assert (picture[:20, :60] != 90).any()  # the counts
