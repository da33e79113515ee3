"""Names beside dots hide nothing, wherever the dots are."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from hwsim.report.labelling import DOT, GAP, HEIGHT, LETTER, SIDES, Panel, sides

PANEL = Panel((0.0, 10.0), (-2.0, 2.0), 400, 300)
places = st.tuples(st.floats(0, 10), st.floats(-2, 2))


def rectangle(side: str, point: tuple[float, float], letters: int) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a name in pixels."""
    x, y = point[0] * 40, (point[1] + 2) * 75
    row, column = side.split()
    width, away = letters * LETTER, DOT + GAP
    left = {"left": x - away - width, "center": x - width / 2, "right": x + away}[column]
    bottom = {"bottom": y - away - HEIGHT, "middle": y - HEIGHT / 2, "top": y + away}[row]
    return left, left + width, bottom, bottom + HEIGHT


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    across = min(one[1], other[1]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[2], other[2])
    return across > 1e-6 and up > 1e-6


@given(st.lists(st.tuples(places, st.integers(1, 25)), max_size=25))
def test_no_name_hides_another_or_a_dot_or_leaves_the_panel(drawn):
    points = [point for point, _ in drawn]
    found = sides(["x" * letters for _, letters in drawn], points, PANEL)
    boxes = {
        index: rectangle(side, points[index], drawn[index][1]) for index, side in enumerate(found) if side is not None
    }
    assert not any(overlap(one, other) for one, other in combinations(boxes.values(), 2))
    for index, box in boxes.items():
        assert box[0] >= -1e-6
        assert box[1] <= 400 + 1e-6
        assert box[2] >= -1e-6
        assert box[3] <= 300 + 1e-6
        for other, point in enumerate(points):
            x, y = point[0] * 40, (point[1] + 2) * 75
            assert other == index or not overlap(box, (x - DOT, x + DOT, y - DOT, y + DOT))


def test_a_dot_by_itself_has_its_name_above():
    assert sides(["nvidia-h200"], [(5.0, 0.0)], PANEL) == [SIDES[0]]


def test_a_name_without_room_is_left_out():
    assert sides(["x" * 100], [(5.0, 0.0)], PANEL) == [None]


def test_of_two_close_dots_both_have_names():
    assert None not in sides(["one", "other"], [(5.0, 0.0), (5.0, 0.1)], PANEL)
