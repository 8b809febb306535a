"""Charts of a report that must be read on paper, where nothing can be pointed at."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanvla.report.labels import LETTER, placed, shared_ends, wrap
from leanvla.report.study_charts import CELL_W, Spot, Square, heat_map, pareto
from leanvla.report.svg import mark

THINGS = (
    *("alphabet_soup", "bbq_sauce", "butter", "chocolate_pudding", "cream_cheese", "ketchup"),
    *("milk", "orange_juice", "salad_dressing", "tomato_sauce"),
)
OBJECT = [f"pick_up_the_{thing}_and_place_it_in_the_basket" for thing in THINGS]
LONG = [
    "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it",
    "LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket",
]
FULL = Square(1.0, "100%  6/6", "6 of 6")


def drawn(chart):
    return ElementTree.fromstring(re.search("<svg.*</svg>", chart, re.DOTALL).group())


@pytest.mark.parametrize(
    "names", [OBJECT, LONG, ["pick", "push"], ["x" * 60, "y"], [OBJECT[0]]], ids=len
)
def test_no_head_of_the_heat_map_is_wider_than_its_column(names):
    root = drawn(heat_map(names, {"dense": [FULL] * len(names)}, "x"))
    groups = root.findall("g")
    assert [group.find("title").text for group in groups] == names
    bottom = min(float(square.get("y")) for square in root.findall("rect"))
    for group, square in zip(groups, root.findall("rect"), strict=True):
        left, width = float(square.get("x")), float(square.get("width"))
        for line in group.findall("text"):
            assert len(line.text) * LETTER <= width < CELL_W
            assert float(line.get("x")) == pytest.approx(left + width / 2, abs=0.1)
            assert float(line.get("y")) < bottom


def test_what_all_tasks_share_is_said_once():
    words = [text.text for text in drawn(heat_map(OBJECT, {"a": [FULL] * 10}, "x")).iter("text")]
    assert words.count("pick_up_the_ … _and_place_it_in_the_basket") == 1
    assert "ketchup" in words
    assert sum("basket" in word for word in words) == 1


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        (OBJECT, ("pick_up_the_", "_and_place_it_in_the_basket")),
        (["pick", "push", "stack"], ("", "")),
        (["open-door-v3", "open-drawer-v3"], ("open-", "-v3")),
        (["put_it", "put_it_there"], ("put_", "")),
        (["a_b-c", "a_d_c"], ("a_", "c")),
        (["same_name", "same_name"], ("same_", "")),
        (["pick_up_the_milk"], ("", "")),
    ],
)
def test_shared_ends_by_hand(names, ends):
    assert shared_ends(names) == ends
    head, tail = ends
    assert all(len(name) > len(head + tail) for name in names)


@given(st.text("ab_-/ ", max_size=60), st.integers(1, 200))
def test_wrapping_loses_no_letter_and_never_overflows(label, width):
    lines = wrap(label, width)
    assert all(len(line) <= max(1, int(width / LETTER)) for line in lines)
    assert "".join(lines).replace(" ", "") == label.replace(" ", "")


def test_rungs_stand_beside_their_marks_and_not_on_each_other():
    spots = [Spot("dense", "dense", "dense", 38.0, 0.95, 0.9, 1.0)]
    for number, method in enumerate(("random", "uniform", "fastv", "vla_pruner")):
        spots += [
            Spot(method, f"{method} @ {keep}", f"{keep}", 26.0 + keep * 8, rate, 0.1, 0.9)
            for keep, rate in ((0.25, 0.9), (0.125, 0.8 - number / 30), (0.0625, 0.5))
        ]
    root = drawn(pareto(spots, "ms", "x"))
    words = [text.text for text in root.iter("text")]
    assert [words.count(rung) for rung in ("dense", "0.25", "0.125", "0.0625")] == [2, 4, 4, 4]
    shapes = {shape.get("points").count(",") for shape in root.iter("polygon")}
    assert len(shapes) >= 3  # methods differ in more than colour
    assert pareto(spots[:1], "ms", "x") == ""


def test_labels_of_near_points_keep_apart():
    points = [(400.0, 100.0 + 3 * i) for i in range(6)]
    places = placed(points, ["0.0625"] * 6, 56, 720)
    for one, other in combinations(places, 2):
        assert (
            one.right <= other.left
            or other.right <= one.left
            or (one.bottom <= other.top or other.bottom <= one.top)
        )
    assert all(place.right <= 720 for place in placed([(715.0, 50.0)], ["dense"], 56, 720))


def test_marks_of_the_first_methods_differ_in_shape():
    assert len({re.search('points="([^"]*)"', mark(i, 0, 0)).group() for i in range(7)}) == 7
