"""The roofline of each device, with one dot per group of kernels (Williams et al., CACM 2009)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log10
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from hwsim.card import Card, Memory
from hwsim.report.frames import detailed, finished, spread, workload_text
from hwsim.report.panels import Grid, grid
from hwsim.report.roofs import Roofs, intensity_text, rate_of
from hwsim.report.theme import (
    GREY,
    HOVERED,
    colours,
    empty_figure,
    finish,
    hover,
    log_axis,
    marker_keys,
    plain,
    symbols,
    toggle_menu,
)
from hwsim.units import format_quantity, format_seconds

CASES_PER_PAIR = 4  # of a model on a device
MIN_SHARE = 0.01  # of a case's time; smaller groups are not drawn
BEYOND = 100  # times the last ridge point; kernels of higher intensity hardly touch the memory
PANEL_HEIGHT = 400
LEVELS = {"main": "main memory", "cache": "cache", "scratchpad": "scratchpad", "storage": "storage"}
GROUP = ["case", "phase", "category"]


@dataclass(frozen=True, slots=True)
class _Dot:
    """A group of kernels of one case, phase and kind as one memory sees it."""

    device: str
    model: str
    phase: str
    level: str
    intensity: float
    achieved: float
    share: float
    text: str


def roofline_figure(cases: pd.DataFrame, kernels: pd.DataFrame, cards: Mapping[str, Card]) -> go.Figure:
    """One panel per device: roofs per memory and number format, dots per kernel kind, model and phase."""
    frame = detailed(cases, kernels)
    devices = [str(device) for device in dict.fromkeys(frame.get("device", [])) if device in cards]
    if not devices:
        return empty_figure("No kernels on a device with a known card: no roofline.")
    shown = spread(finished(cases), CASES_PER_PAIR)
    drawn = frame[frame["case"].isin(shown["case"])]
    roofs = {device: Roofs.of(cards[device], drawn[drawn["device"] == device], MIN_SHARE) for device in devices}
    groups = _groups(drawn)
    dots, outside = _within(list(_dots(groups, cards, shown)), roofs)
    window = _window(dots, roofs)
    panels = grid([_panel_title(cards[device], device) for device in devices], height=PANEL_HEIGHT, columns=2)
    for index, device in enumerate(devices):
        for trace in roofs[device].traces(window):
            panels.add(index, trace)
        _write_roofs(panels, index, roofs[device])
    hues, marks = colours(drawn["model"]), symbols(drawn["phase"])
    _add_dots(panels, dots, devices, hues, marks)
    figure = panels.figure
    figure.update_xaxes(log_axis("Arithmetic intensity (FLOP/B)", prefixed=False), range=_span(*window[:2]))
    figure.update_yaxes(log_axis("Performance (FLOP/s)"), range=_span(*window[2:]))
    labels = {level: f"bytes of the {name}" for level, name in LEVELS.items()}
    figure.update_layout(updatemenus=toggle_menu(figure, labels, "main"))
    notes = [*_notes(finished(cases), shown, groups), *_outside_notes(outside), *_unknown_notes(drawn, cards)]
    return finish(figure, panels.height, notes, {"Model": hues, "Phase": marks})


def _span(low: float, high: float) -> list[float]:
    return [log10(low), log10(high)]


def _panel_title(card: Card, device: str) -> str:
    mark = " · first form: peaks only" if card.first_form else ""
    return f"<b>{plain(device)}</b>{mark}"


def _groups(drawn: pd.DataFrame) -> pd.DataFrame:
    """Kernels of one case, phase and kind joined, with the one that takes longest as their lead."""
    traffic = [name for name in drawn.columns if name.endswith("_traffic")]
    sums = ["seconds", "busy_seconds", "share", "flops", "matmul_flops", *traffic]
    joined = drawn.groupby(GROUP, sort=False)[sums].sum()
    lead = drawn.sort_values("seconds", ascending=False, kind="stable").drop_duplicates(GROUP).set_index(GROUP)
    joined[["device", "model", "kernel", "path", "dtype", "bound"]] = lead[
        ["device", "model", "kernel", "path", "dtype", "bound"]
    ]
    return joined.assign(members=drawn.groupby(GROUP, sort=False).size()).reset_index()


def _dots(groups: pd.DataFrame, cards: Mapping[str, Card], shown: pd.DataFrame) -> Iterator[_Dot]:
    workloads = {row["case"]: workload_text(row) for _, row in shown.iterrows()}
    for group in groups[(groups["share"] >= MIN_SHARE) & (groups["flops"] > 0)].to_dict("records"):
        card = cards.get(group["device"])
        for memory in card.memories if card else ():
            if card and group.get(f"{memory.name}_traffic", 0.0) > 0:
                yield _dot(card, memory, group, workloads[group["case"]])


def _dot(card: Card, memory: Memory, group: Mapping[Any, Any], workload: str) -> _Dot:
    """The dot of a group; FLOPs that a mask spares are taken off down to what the device can execute in the time."""
    moved, seconds, counted = group[f"{memory.name}_traffic"], group["busy_seconds"], group["flops"]
    rate = rate_of(card, group["dtype"], "matmul" if group["matmul_flops"] > 0 else "vector")
    flops = min(counted, rate * seconds) if group["category"] == "attention" else counted
    intensity, achieved = flops / moved, flops / seconds
    roof = min(rate, intensity * memory.bandwidth)
    others = f" and {group['members'] - 1} more" if group["members"] > 1 else ""
    facts = {
        "model": group["model"],
        "phase": group["phase"],
        "workload": workload,
        "longest kernel": f"{group['kernel']}{others}",
        "path": group["path"],
        "time": f"{format_seconds(group['seconds'])}, {group['share']:.1%} of the case",
        f"intensity at {memory.name}": intensity_text(intensity),
        "achieved": format_quantity(achieved, "FLOP/s"),
        f"bandwidth of {memory.name}": format_quantity(moved / seconds, "B/s"),
        "of the roof": f"{achieved / roof:.0%} of {format_quantity(roof, 'FLOP/s')}",
        "masked": f"{counted / flops:.3g} times these FLOPs are counted" if flops < counted else "",
        "bound by": group["bound"],
    }
    level = "main" if memory.name == card.main.name else memory.kind
    names = group["device"], group["model"], group["phase"], level
    return _Dot(*names, intensity, achieved, group["share"], hover(group["category"], facts))


def _within(dots: list[_Dot], roofs: Mapping[str, Roofs]) -> tuple[list[_Dot], list[_Dot]]:
    """Dots that belong on a roofline, and those whose kernels hardly touch the memory."""
    last = BEYOND * max((roof.last_ridge for roof in roofs.values()), default=1.0)
    return [dot for dot in dots if dot.intensity <= last], [dot for dot in dots if dot.intensity > last]


def _window(dots: list[_Dot], roofs: Mapping[str, Roofs]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of all panels: every dot, every ridge point, and room for the roofs' names."""
    peak = max(roof.peak for roof in roofs.values())
    left = min([0.2, *(dot.intensity for dot in dots)])
    right = max([8 * max(roof.last_ridge for roof in roofs.values()), *(dot.intensity for dot in dots)])
    bottom = min([peak * 1e-4, *(dot.achieved for dot in dots)])
    names = max(len(list(roof.names())) for roof in roofs.values())
    return left / 2, right * 2, bottom / 2, peak * 10 ** (0.25 + 0.3 * names)


def _write_roofs(panels: Grid, index: int, roofs: Roofs) -> None:
    """The names of the roofs in the corner above them, where no dot can be."""
    axis = "" if index == 0 else str(index + 1)
    panels.figure.add_annotation(
        text="<br>".join(roofs.names()),
        xref=f"x{axis} domain",
        yref=f"y{axis} domain",
        x=0.012,
        y=0.985,
        xanchor="left",
        yanchor="top",
        align="left",
        showarrow=False,
        font={"size": 11, "color": GREY},
        name="roofs",
    )


def _add_dots(
    panels: Grid, dots: list[_Dot], devices: list[str], hues: Mapping[object, str], marks: Mapping[object, str]
) -> None:
    """A trace per device, model, phase and memory level, and the keys of colours and symbols."""
    traces: dict[tuple[str, str, str, str], list[_Dot]] = {}
    for dot in dots:
        traces.setdefault((dot.device, dot.model, dot.phase, dot.level), []).append(dot)
    for (device, model, phase, level), alike in traces.items():
        trace = _dot_trace(alike, {"color": hues[model], "symbol": marks[phase]}, level)
        panels.add(devices.index(device), trace)
    marker_keys(panels.figure, hues, marks)


def _dot_trace(dots: list[_Dot], style: Mapping[str, object], level: str) -> go.Scatter:
    dots = sorted(dots, key=lambda dot: -dot.share)  # small ones on top
    size = {"size": [dot.share for dot in dots], "sizemode": "area", "sizeref": 1 / 18**2, "sizemin": 3}
    return go.Scatter(
        x=[dot.intensity for dot in dots],
        y=[dot.achieved for dot in dots],
        mode="markers",
        marker={"opacity": 0.75, "line": {"width": 0.6, "color": "#ffffff"}, **size, **style},
        hovertext=[dot.text for dot in dots],
        hovertemplate=HOVERED,
        meta={"choice": level},
        name=plain(f"{dots[0].model}, {dots[0].phase}"),
        legendgroup=f"legend:{dots[0].model}",
        showlegend=False,
    )


def _notes(done: pd.DataFrame, shown: pd.DataFrame, groups: pd.DataFrame) -> Iterator[str]:
    yield "Area of a dot: its share of the time of its case. Ticks on a roof are ridge points (FLOP/B)."
    if len(shown) < len(done):
        yield f"{len(shown)} of {len(done)} cases drawn: at most {CASES_PER_PAIR} per model and device, spread evenly."
    silent, small = groups["flops"] <= 0, groups["share"] < MIN_SHARE
    for chosen, text in (
        (small & ~silent, f"groups of kernels below {MIN_SHARE:.0%} of their case's time are left out"),
        (silent, "groups without arithmetic (copies, gathers, cache writes) have no place in this diagram"),
    ):
        if chosen.any():
            most = groups[chosen].groupby("case")["share"].sum().max()
            yield f"{int(chosen.sum())} {text} (together at most {most:.1%} of a case)."
    if (groups["category"] == "attention").any():
        yield (
            "The FLOPs of attention count all scores; a mask spares some of them, so that its dots are drawn no higher "
            "than the peak rate."
        )


def _outside_notes(outside: list[_Dot]) -> Iterator[str]:
    if outside:
        yield (
            f"Dots beyond {BEYOND} times the last ridge point, {len(outside)} of them, are left out: "
            "their kernels hardly touch that memory."
        )


def _unknown_notes(drawn: pd.DataFrame, cards: Mapping[str, Card]) -> Iterator[str]:
    missing = sorted({str(device) for device in drawn["device"]} - set(cards))
    if missing:
        yield f"No card found for {', '.join(missing)}: no panel."
