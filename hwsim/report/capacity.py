"""What fills the memories: bytes by role over a growing context or batch, and where they cross a capacity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10

import pandas as pd
import plotly.graph_objects as go

from hwsim.card import Card
from hwsim.report.frames import count_text, finished
from hwsim.report.panels import grid
from hwsim.report.sweep import Axis, axis_of
from hwsim.report.theme import (
    GREY,
    HOVERED,
    PALETTE,
    colours,
    empty_figure,
    finish,
    hover,
    key_trace,
    log_axis,
    plain,
    toggle_menu,
)
from hwsim.units import format_quantity

ROLES = {
    "weights": ("weight_bytes", "buffer_bytes"),
    "KV cache and state": ("state_bytes",),
    "activations": ("activation_bytes",),
}
LINES = {
    **{role: {"color": hue, "width": 2} for role, hue in colours(ROLES).items()},
    "total": {"color": GREY, "width": 3},
}
MAX_PANELS = 9
DEPTH = 1000  # how far below the smallest total the axis may go
HEIGHT = 30  # times the largest total; larger memories are not drawn
REACH = 64  # how many times beyond the last simulated size a total is continued
BETWEEN = "simulated sizes"
STEPS = 8  # drawn points between two simulated ones
CLOSE = 1.6  # ratio below which the names of two capacities would overlap


@dataclass(frozen=True, slots=True)
class _Capacity:
    """A memory's size in bytes, and the size of the job from which the total no longer fits (None: it always does)."""

    label: str
    nbytes: float
    crossed: float | None = None


@dataclass(frozen=True, slots=True)
class _Wall:
    """The bytes of a model by role over the swept size, in one phase and at one value of the other axis."""

    panel: int
    phase: str
    other: int
    roles: pd.DataFrame
    total: pd.Series
    capacities: tuple[_Capacity, ...]

    @property
    def choice(self) -> dict[str, str]:
        """Which button shows it."""
        return {"choice": f"{self.phase} {self.other}"}

    @property
    def end(self) -> float:
        """The size up to which the total is drawn: simulated, or a little beyond the last crossing."""
        beyond = [1.3 * memory.crossed for memory in self.capacities if memory.crossed is not None]
        return max([float(self.total.index.max()), *beyond])


def capacity_figure(cases: pd.DataFrame, cards: Mapping[str, Card]) -> go.Figure:
    """Bytes by role against the swept size, a panel per model, with the capacity of each memory and what crosses it."""
    done = finished(cases)
    if done.empty:
        return empty_figure("No finished case: no bytes to draw.")
    axis = axis_of(done)
    models = list(dict.fromkeys(done["model"]))[:MAX_PANELS]
    walls = list(_walls(done, models, axis, cards))
    start = min(float(wall.total.index.min()) for wall in walls)
    end = 2 * max(wall.end for wall in walls)
    panels = grid([f"<b>{plain(model)}</b>" for model in models], height=320, columns=2)
    for wall in walls:
        for trace in _traces(wall, axis, (start, end)):
            panels.add(wall.panel, trace)
    for name, line in LINES.items():
        panels.figure.add_trace(key_trace(name, "legend", mode="lines", line=line))
    figure = panels.figure
    figure.update_xaxes(axis.ticks(start, end), range=[log10(start / 1.15), log10(end * 1.05)])
    figure.update_yaxes(log_axis("Bytes in use (B)"), range=_heights(walls))
    labels = _labels(done, axis)
    figure.update_layout(updatemenus=toggle_menu(figure, labels, list(labels)[-1]))
    return finish(figure, panels.height, _notes(done, models), {"Bytes": LINES})


def crossing(total: pd.Series, capacity: float) -> float | None:
    """The size at which ``total`` (bytes over size, linear between its points and beyond) passes ``capacity``."""
    points = [(float(size), float(value)) for size, value in zip(total.index, total, strict=True)]
    for (left, low), (right, high) in pairwise(points):
        if low <= capacity < high:
            return left + (capacity - low) / (high - low) * (right - left)
    last, value = points[-1]
    slope = _slope(total)
    if value > capacity or slope <= 0:
        return None
    met = last + (capacity - value) / slope
    return met if met <= REACH * last else None


def _slope(total: pd.Series) -> float:
    """Bytes per unit of size at the end; 0 where a single size was simulated."""
    if len(total) < 2:
        return 0.0
    sizes = [float(size) for size in total.index[-2:]]
    return float(total.iloc[-1] - total.iloc[-2]) / (sizes[1] - sizes[0])


def _walls(done: pd.DataFrame, models: Sequence[object], axis: Axis, cards: Mapping[str, Card]) -> Iterator[_Wall]:
    sized = done.assign(_size=axis.sizes(done))
    for role, columns in ROLES.items():
        sized[role] = sized[[column for column in columns if column in sized]].fillna(0.0).sum(axis=1)
    highest = float(sized[list(ROLES)].sum(axis=1).max())
    memories = [memory for memory in _memories(cards) if memory.nbytes < HEIGHT * highest]
    for panel, model in enumerate(models):
        for (phase, other), group in sized[sized["model"] == model].groupby(["phase", axis.other], sort=False):
            roles = group.groupby("_size")[list(ROLES)].max()
            total = roles.sum(axis=1)
            met = tuple(_Capacity(m.label, m.nbytes, crossing(total, m.nbytes)) for m in memories)
            yield _Wall(panel, str(phase), int(str(other)), roles, total, met)


def _labels(done: pd.DataFrame, axis: Axis) -> dict[str, str]:
    """The buttons in order: every phase, where there are several, with every value of the other axis."""
    phases = list(dict.fromkeys(done["phase"]))
    prefix = "{}, " if len(phases) > 1 else ""
    return {
        f"{phase} {value}": f"{prefix.format(phase)}{axis.other} {count_text(value)}"
        for phase in phases
        for value in axis.others
    }


def _memories(cards: Mapping[str, Card]) -> Iterator[_Capacity]:
    """Every memory that holds models, the smallest first, those of equal size joined."""
    joined: dict[float, list[str]] = {}
    for device, card in cards.items():
        for memory in card.memories:
            if memory.kind in ("main", "storage") or memory is card.main:
                joined.setdefault(memory.capacity, []).append(f"{device} {memory.name}")
    for nbytes, names in sorted(joined.items()):
        others = f" and {len(names) - 2} more" if len(names) > 2 else ""
        yield _Capacity(f"{', '.join(names[:2])}{others} {format_quantity(nbytes, 'B')}", nbytes)


def _traces(wall: _Wall, axis: Axis, span: tuple[float, float]) -> Iterator[go.Scatter]:
    """Capacities below, then the roles, the total and its continuation, and the crossings on top."""
    for index in range(len(wall.capacities)):
        yield _capacity_line(wall, index, span)
    for role in ROLES:
        if (wall.roles[role] > 0).any():
            yield _line(role, wall.roles[role], axis, wall)
    yield _line("total", wall.total, axis, wall)
    yield _beyond(wall)
    yield _crossings(wall, axis)


def _line(name: str, values: pd.Series, axis: Axis, wall: _Wall) -> go.Scatter:
    """Simulated bytes as dots, on a line that is straight between them; on logarithmic axes that takes more points."""
    points = [(float(str(size)), float(value)) for size, value in values.items()]
    simulated = {size for size, _ in points}
    drawn = [point for left, right in pairwise(points) for point in _straight(left, right)] + points[-1:]
    texts = [
        hover(
            f"{name}: {format_quantity(nbytes, 'B')}",
            {"phase": wall.phase, **axis.facts(size, wall.other), "between": "" if size in simulated else BETWEEN},
        )
        for size, nbytes in drawn
    ]
    return go.Scatter(
        x=[size for size, _ in drawn],
        y=[nbytes for _, nbytes in drawn],
        mode="lines+markers",
        line=LINES[name],
        marker={"size": [6 if size in simulated else 0 for size, _ in drawn], "opacity": 1},
        name=f"{name}, {wall.phase}, {axis.other} {count_text(wall.other)}",
        legendgroup=f"legend:{name}",
        showlegend=False,
        hovertext=texts,
        hovertemplate=HOVERED,
        meta=wall.choice,
    )


def _straight(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """Points from ``start`` to just before ``end``, evenly spaced in the logarithm of the size."""
    (left, low), (right, high) = start, end
    sizes = [left * (right / left) ** (step / STEPS) for step in range(STEPS)]
    return [(size, low + (high - low) * (size - left) / (right - left)) for size in sizes]


def _beyond(wall: _Wall) -> go.Scatter:
    """The total continued along its last slope."""
    last, value = float(wall.total.index.max()), float(wall.total.iloc[-1])
    end = (wall.end, value + _slope(wall.total) * (wall.end - last))
    drawn = [*_straight((last, value), end), end] if wall.end > last else []
    return go.Scatter(
        x=[size for size, _ in drawn],
        y=[nbytes for _, nbytes in drawn],
        mode="lines",
        line={**LINES["total"], "width": 2, "dash": "dot"},
        name="continued beyond the simulated sizes",
        legendgroup="legend:total",
        showlegend=False,
        hovertemplate="continued linearly beyond the simulated sizes<extra></extra>",
        meta=wall.choice,
    )


def _crossings(wall: _Wall, axis: Axis) -> go.Scatter:
    met = [(memory.label, memory.nbytes, memory.crossed) for memory in wall.capacities if memory.crossed is not None]
    return go.Scatter(
        x=[size for _, _, size in met],
        y=[nbytes for _, nbytes, _ in met],
        mode="markers+text",
        marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": PALETTE[1]}},
        text=[axis.short(size) for _, _, size in met],
        textposition=["bottom right", "top left"] * (len(met) // 2 + 1),
        textfont={"size": 11, "color": PALETTE[1]},
        name="capacity crossed",
        showlegend=False,
        hovertext=[hover(f"full from here: {label}", axis.facts(size, wall.other)) for label, _, size in met],
        hovertemplate=HOVERED,
        meta=wall.choice,
    )


def _capacity_line(wall: _Wall, index: int, span: tuple[float, float]) -> go.Scatter:
    """A dashed line, its name at the end where no curve runs and on the side where no other name stands."""
    memory = wall.capacities[index]
    name = plain(memory.label)
    below = memory.nbytes < float(wall.total.iloc[0])
    early = memory.crossed is not None and memory.crossed < (span[0] * span[1]) ** 0.5
    following = wall.capacities[index + 1 : index + 2]
    crowded = any(other.nbytes < CLOSE * memory.nbytes for other in following)
    right = below or early
    return go.Scatter(
        x=list(span),
        y=[memory.nbytes, memory.nbytes],
        mode="lines+text",
        line={"color": GREY, "width": 1, "dash": "dash"},
        text=["", name] if right else [name, ""],
        textposition=f"{'bottom' if crowded else 'top'} {'left' if right else 'right'}",
        textfont={"size": 10.5, "color": GREY},
        name=f"capacity of {name}",
        showlegend=False,
        hovertemplate=f"capacity of {name}<extra></extra>",
        meta=wall.choice,
    )


def _heights(walls: Sequence[_Wall]) -> list[float]:
    """The range of the bytes as powers of ten."""
    lowest = min(float(wall.total.min()) for wall in walls)
    least = min(float(wall.roles[wall.roles > 0].min().min()) for wall in walls)
    tops = [memory.nbytes for wall in walls for memory in wall.capacities]
    highest = max([*tops, *(float(wall.total.max()) for wall in walls)])
    return [log10(max(1.0, lowest / DEPTH, least / 2)), log10(2.5 * max(1.0, highest))]


def _notes(done: pd.DataFrame, models: Sequence[object]) -> Iterator[str]:
    yield (
        "Resident bytes of weights and state, and the most bytes of activations alive; the largest over "
        "devices. A cross marks the size from which a memory alone is too small; dotted: continued linearly."
    )
    count = done["model"].nunique()
    if count > len(models):
        yield f"{len(models)} of {count} models drawn."
