"""Names beside dots: each where it hides no other name and no dot, or nowhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

LETTER, HEIGHT = 5.6, 12.0  # pixels of a small letter and of a line
DOT, GAP = 5.0, 1.0  # pixels: half a dot, and between it and its name

SIDES = (
    "top center",
    "bottom center",
    "middle right",
    "middle left",
    "top right",
    "top left",
    "bottom right",
    "bottom left",
)
"""As plotly calls them, the best first."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels, upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether both have a point in common."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.top <= other.bottom or other.top <= self.bottom)


@dataclass(frozen=True, slots=True)
class Panel:
    """The axes' ranges (of logarithms where an axis has them) over the pixels that they take at least."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float
    height: float

    def pixels(self, point: tuple[float, float]) -> tuple[float, float]:
        """Where a point is drawn."""
        across, up = ((at - low) / (high - low) for at, (low, high) in zip(point, (self.x, self.y), strict=True))
        return across * self.width, up * self.height


def sides(names: Sequence[str], points: Sequence[tuple[float, float]], panel: Panel) -> list[str | None]:
    """On which side of its point each name stands, None where there is room on none.

    Names with less room choose first; those that found none go before them in another try.
    """
    centres = [panel.pixels(point) for point in points]
    dots = [Box(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in centres]
    whole = Box(0.0, 0.0, panel.width, panel.height)
    free = [
        {side: box for side, box in _around(centre, len(names[index])) if _fits(box, index, dots, whole)}
        for index, centre in enumerate(centres)
    ]
    best: dict[int, str] = {}
    first: set[int] = set()
    while True:
        found = _chosen(free, first)
        best = max(best, found, key=len)
        failed = {index for index, spots in enumerate(free) if spots and index not in found} - first
        if not failed:
            return [best.get(index) for index in range(len(names))]
        first |= failed


def _chosen(free: Sequence[Mapping[str, Box]], first: Collection[int]) -> dict[int, str]:
    """The sides that names take one after the other, those of ``first`` before all others."""
    left = {index: dict(spots) for index, spots in enumerate(free)}
    found: dict[int, str] = {}
    while left:
        index = min(left, key=lambda one: (one not in first, len(left[one])))
        side, taken = next(iter(left.pop(index).items()), ("", None))
        if taken is not None:
            found[index] = side
            left = {
                one: {side: box for side, box in spots.items() if not box.meets(taken)} for one, spots in left.items()
            }
    return found


def _fits(box: Box, own: int, dots: Sequence[Box], whole: Box) -> bool:
    inside = whole.left <= box.left and box.right <= whole.right and whole.bottom <= box.bottom and box.top <= whole.top
    return inside and not any(box.meets(dot) for index, dot in enumerate(dots) if index != own)


def _around(centre: tuple[float, float], letters: int) -> Iterator[tuple[str, Box]]:
    x, y = centre
    width, away = LETTER * letters, DOT + GAP
    columns = {"left": x - away - width, "center": x - width / 2, "right": x + away}
    rows = {"top": y + away, "middle": y - HEIGHT / 2, "bottom": y - away - HEIGHT}
    for side in SIDES:
        row, _, column = side.partition(" ")
        yield side, Box(columns[column], rows[row], columns[column] + width, rows[row] + HEIGHT)
