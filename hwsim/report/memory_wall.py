"""The memory wall: bytes in use against capacities, time bound by memory, and how devices grew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import log10

import pandas as pd
import plotly.graph_objects as go

from hwsim.card import Card
from hwsim.device import load_device
from hwsim.errors import HwsimError
from hwsim.registry import data_files
from hwsim.report.bound_share import bound_share_figure
from hwsim.report.frames import count_text, finished
from hwsim.report.growth import growth_figure
from hwsim.report.panels import Grid, grid
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
MAX_PANELS = 9
DEPTH = 30  # how far below the smallest total the axis goes
REACH = 64  # how many times beyond the last simulated size a line is drawn


def memory_wall_figures(cases: pd.DataFrame, kernels: pd.DataFrame, cards: Mapping[str, Card]) -> dict[str, go.Figure]:
    """The three faces of the wall by name: capacity, bound-share, growth (of all shipped cards and the given ones)."""
    return {
        "capacity": capacity_figure(cases, cards),
        "bound-share": bound_share_figure(cases, kernels, cards),
        "growth": growth_figure([*cards.values(), *shipped_cards()]),
    }


def shipped_cards() -> Iterator[Card]:
    """Every card that ships as a file and whose family loads."""
    for name in data_files("hwsim.devices", "cards"):
        with suppress(HwsimError):
            yield load_device(name).card


def capacity_figure(cases: pd.DataFrame, cards: Mapping[str, Card]) -> go.Figure:
    """Bytes by role against the swept size, a panel per model, with the capacity of each memory and what crosses it."""
    done = finished(cases)
    sizes = [column for columns in ROLES.values() for column in columns if column in done]
    if done.empty or not sizes:
        return empty_figure("No finished case: no bytes to draw.")
    axis = axis_of(done)
    models = list(dict.fromkeys(done["model"]))[:MAX_PANELS]
    panels = grid([f"<b>{plain(model)}</b>" for model in models], height=340, columns=3)
    lines = list(_capacities(cards))
    walls: list[_Wall] = []
    for index, model in enumerate(models):
        for other, group in done[done["model"] == model].groupby(axis.other):
            bytes_by_role = _by_role(group, axis)
            for trace in _roles(bytes_by_role, axis, int(str(other))):
                panels.add(index, trace)
            walls.append(_Wall(index, int(str(other)), bytes_by_role.sum(axis=1)))
    if not walls:
        return empty_figure("No finished case: no bytes to draw.")
    _draw_walls(panels, walls, lines, axis)
    for role, colour in colours(ROLES).items():
        style = {"mode": "lines", "line": {"color": colour, "width": 2}}
        panels.figure.add_trace(key_trace(str(role), "legend", **style))
    total = {"mode": "lines", "line": {"color": GREY, "width": 3}}
    panels.figure.add_trace(key_trace("total", "legend", **total))
    return _finished(panels, axis, cases, models)


@dataclass(frozen=True, slots=True)
class _Wall:
    """The total bytes of a model over the swept size, at one value of the other axis."""

    panel: int
    other: int
    total: pd.Series


def _capacities(cards: Mapping[str, Card]) -> Iterator[tuple[str, float]]:
    """Label and bytes of every memory that holds models, those of equal size joined."""
    joined: dict[float, list[str]] = {}
    for device, card in cards.items():
        for memory in card.memories:
            if memory.kind in ("main", "storage") or memory is card.main:
                joined.setdefault(memory.capacity, []).append(f"{device} {memory.name}")
    for capacity, names in sorted(joined.items()):
        yield f"{', '.join(names)} {format_quantity(capacity, 'B')}", capacity


def _by_role(group: pd.DataFrame, axis: Axis) -> pd.DataFrame:
    """Bytes per role over the swept size, the largest of all devices and formats."""
    sized = group.assign(_size=axis.sizes(group))
    roles = {
        role: sized[[column for column in columns if column in sized]].fillna(0.0).sum(axis=1)
        for role, columns in ROLES.items()
    }
    return pd.DataFrame({**roles, "_size": sized["_size"]}).groupby("_size").max()


def _roles(bytes_by_role: pd.DataFrame, axis: Axis, other: int) -> Iterator[go.Scatter]:
    hues = colours(ROLES)
    for role in ROLES:
        values = bytes_by_role[role]
        if (values > 0).any():
            yield _line(role, values, axis, other, {"color": hues[role], "width": 2})
    yield _line("total", bytes_by_role.sum(axis=1), axis, other, {"color": GREY, "width": 3})


def _line(name: str, values: pd.Series, axis: Axis, other: int, line: dict[str, object]) -> go.Scatter:
    texts = [
        hover(f"{name}: {format_quantity(float(nbytes), 'B')}", axis.facts(float(str(size)), other))
        for size, nbytes in values.items()
    ]
    return go.Scatter(
        x=list(values.index),
        y=values.to_numpy(),
        mode="lines+markers",
        line=line,
        marker={"size": 5},
        name=f"{name}, {axis.other} {count_text(other)}",
        legendgroup=f"legend:{name}",
        showlegend=False,
        hovertext=texts,
        hovertemplate=HOVERED,
        meta={"choice": other},
    )


def _draw_walls(panels: Grid, walls: list[_Wall], lines: list[tuple[str, float]], axis: Axis) -> None:
    """Totals continued along their last slope until they meet the capacities, the capacities, and both axes."""
    highest = max(float(wall.total.max()) for wall in walls)
    lowest = min(float(wall.total.min()) for wall in walls)
    near = [(label, capacity) for label, capacity in lines if lowest / 3 < capacity < 30 * highest]
    start = min(float(min(wall.total.index)) for wall in walls)
    found = {id(wall): {label: crossing(wall.total, capacity) for label, capacity in near} for wall in walls}
    sizes = [size for met in found.values() for size in met.values() if size is not None]
    end = 2 * max([*sizes, *(float(max(wall.total.index)) for wall in walls)])
    middle = (start * end) ** 0.5
    for wall in walls:
        met = [(label, capacity, found[id(wall)][label]) for label, capacity in near]
        crossed = [(label, capacity, size) for label, capacity, size in met if size is not None]
        reached = max([float(max(wall.total.index)), *(1.3 * size for _, _, size in crossed)])
        beyond = _beyond(wall, reached)
        if beyond is not None:
            panels.add(wall.panel, beyond)
        if crossed:
            panels.add(wall.panel, _crossings(crossed, axis, wall.other))
        for order, (label, capacity, size) in enumerate(met):
            full = capacity < float(wall.total.iloc[0])
            right = full or (size is not None and size < middle)
            crowded = order + 1 < len(met) and met[order + 1][1] < 1.6 * capacity
            place = f"{'bottom' if crowded else 'top'} {'left' if right else 'right'}"
            panels.add(wall.panel, _capacity_line(label, capacity, (start, end), place, wall.other))
    top = max([highest, *(capacity for _, capacity in near)])
    figure = panels.figure
    figure.update_xaxes(axis.ticks(start, end), range=[log10(start / 1.15), log10(end * 1.05)])
    figure.update_yaxes(log_axis("Bytes in use (B)"), range=[log10(lowest / DEPTH), log10(2.5 * top)])


def crossing(total: pd.Series, capacity: float) -> float | None:
    """The size at which ``total`` (bytes over size, linear between its points and beyond) passes ``capacity``."""
    sizes, values = [float(size) for size in total.index], [float(value) for value in total]
    for (left, low), (right, high) in zip(
        zip(sizes, values, strict=True), zip(sizes[1:], values[1:], strict=True), strict=False
    ):
        if low <= capacity < high:
            return left + (capacity - low) / (high - low) * (right - left)
    if len(sizes) < 2 or values[-1] > capacity:
        return None
    slope = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    met = sizes[-1] + (capacity - values[-1]) / slope if slope > 0 else float("inf")
    return met if met <= REACH * sizes[-1] else None


def _beyond(wall: _Wall, reached: float) -> go.Scatter | None:
    sizes = [float(size) for size in wall.total.index]
    if len(sizes) < 2 or reached <= sizes[-1]:
        return None
    last, before = float(wall.total.iloc[-1]), float(wall.total.iloc[-2])
    slope = (last - before) / (sizes[-1] - sizes[-2])
    return go.Scatter(
        x=[sizes[-1], reached],
        y=[last, last + slope * (reached - sizes[-1])],
        mode="lines",
        line={"color": GREY, "width": 2, "dash": "dot"},
        name="continued beyond the simulated sizes",
        legendgroup="legend:total",
        showlegend=False,
        hovertemplate="continued linearly beyond the simulated sizes<extra></extra>",
        meta={"choice": wall.other},
    )


def _crossings(met: Iterable[tuple[str, float, float]], axis: Axis, other: int) -> go.Scatter:
    met = list(met)
    return go.Scatter(
        x=[size for _, _, size in met],
        y=[capacity for _, capacity, _ in met],
        mode="markers+text",
        marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": PALETTE[1]}},
        text=[axis.short(size) for _, _, size in met],
        textposition="bottom right",
        textfont={"size": 11, "color": PALETTE[1]},
        name="capacity crossed",
        showlegend=False,
        hovertext=[hover(f"full from here: {label}", axis.facts(size, other)) for label, _, size in met],
        hovertemplate=HOVERED,
        meta={"choice": other},
    )


def _capacity_line(label: str, capacity: float, span: tuple[float, float], place: str, other: int) -> go.Scatter:
    """A dashed line, its name at the end where no curve runs."""
    name = plain(label)
    return go.Scatter(
        x=list(span),
        y=[capacity, capacity],
        mode="lines+text",
        line={"color": GREY, "width": 1, "dash": "dash"},
        text=["", name] if place.endswith("left") else [name, ""],
        textposition=place,
        textfont={"size": 10.5, "color": GREY},
        name=f"capacity of {name}",
        showlegend=False,
        hovertemplate=f"capacity of {name}<extra></extra>",
        meta={"choice": other},
    )


def _finished(panels: Grid, axis: Axis, cases: pd.DataFrame, models: list[object]) -> go.Figure:
    figure = panels.figure
    labels = {str(value): f"{axis.other} {count_text(value)}" for value in axis.others}
    figure.update_layout(updatemenus=toggle_menu(figure, labels, str(axis.others[-1])))
    notes = [
        "Resident bytes of weights and state, and the most bytes of activations alive; the largest over the devices. "
        "A cross marks the size from which a memory alone no longer holds the model; dotted: continued linearly."
    ]
    count = cases["model"].nunique()
    if count > len(models):
        notes.append(f"{len(models)} of {count} models drawn.")
    return finish(figure, panels.height, notes, {"Bytes": [*ROLES, "total"]})
