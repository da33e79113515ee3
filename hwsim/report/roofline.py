"""The roofline of each device, with one dot per group of kernels (Williams et al., CACM 2009)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log10

import pandas as pd
import plotly.graph_objects as go

from hwsim.card import Card, Memory
from hwsim.dtypes import DTYPES
from hwsim.report.frames import (
    detailed,
    finished,
    intensity_text,
    memories_in,
    rate_text,
    spread,
    workload_text,
)
from hwsim.report.panels import Grid, grid
from hwsim.report.theme import (
    GREY,
    HOVERED,
    colours,
    empty_figure,
    finish,
    hover,
    key_trace,
    log_axis,
    plain,
    symbols,
    toggle_menu,
)
from hwsim.units import format_quantity, format_seconds

CASES_PER_PAIR = 4  # of a model on a device
MIN_SHARE = 0.01  # of a case's time; smaller groups are not drawn
PANEL_HEIGHT = 400
LEVELS = {"main": "main memory", "cache": "cache", "scratchpad": "scratchpad", "storage": "storage"}


@dataclass(frozen=True, slots=True)
class _Dot:
    """A group of kernels of one case, phase and kind as one memory sees it."""

    intensity: float
    achieved: float
    share: float
    text: str


def roofline_figure(cases: pd.DataFrame, kernels: pd.DataFrame, cards: Mapping[str, Card]) -> go.Figure:
    """One panel per device: roofs per memory and number format, dots per kernel kind, model and phase."""
    frame = detailed(cases, kernels)
    devices = [device for device in dict.fromkeys(frame.get("device", [])) if device in cards]
    if not devices:
        return empty_figure("No kernels on a device with a known card: no roofline.")
    shown = spread(finished(cases), CASES_PER_PAIR)
    drawn = frame[frame["case"].isin(shown["case"])]
    panels = grid([_panel_title(cards[device], device) for device in devices], height=PANEL_HEIGHT, columns=2)
    dots = _add_dots(panels, drawn, shown, cards)
    window = _window(dots, cards, devices)
    for position, device in enumerate(devices):
        for trace in _roofs(cards[device], drawn[drawn["device"] == device], window):
            panels.add(position, trace)
    figure = panels.figure
    _lay_out(panels, window)
    labels = {level: f"bytes of the {name}" for level, name in LEVELS.items()}
    figure.update_layout(updatemenus=toggle_menu(figure, labels, "main"))
    legends = {"Model": dict.fromkeys(drawn["model"]), "Phase": dict.fromkeys(drawn["phase"])}
    return finish(figure, panels.height, _notes(cases, shown, drawn, cards), legends)


def roof(card: Card, memory: Memory, dtype: str, unit: str, intensity: float) -> float:
    """FLOP/s that the card allows at an intensity: min(rate of the unit, intensity * bandwidth)."""
    return min(rate_of(card, dtype, unit), intensity * memory.bandwidth)


def rate_of(card: Card, dtype: str, unit: str = "matmul") -> float:
    """The peak of a unit in a format, else in the narrowest format of the card that is no narrower."""
    for rates in (card.matmul, card.vector) if unit == "matmul" else (card.vector, card.matmul):
        bits = DTYPES[dtype].bits if dtype in DTYPES else 32
        if dtype in rates:
            return rates[dtype]
        wider = {name: rate for name, rate in rates.items() if name in DTYPES and DTYPES[name].bits >= bits}
        if wider:
            return wider[min(wider, key=lambda name: DTYPES[name].bits)]
    return max([*card.matmul.values(), *card.vector.values()], default=float("nan"))


def _panel_title(card: Card, device: str) -> str:
    mark = " · first form: peaks only" if card.first_form else ""
    return f"<b>{plain(device)}</b>{mark}"


def _groups(frame: pd.DataFrame) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
    """Kernels of one case, phase and kind, with their leading one."""
    for _, group in frame.groupby(["case", "phase", "category"], sort=False):
        yield group.loc[group["seconds"].idxmax()], group


def _add_dots(panels: Grid, drawn: pd.DataFrame, shown: pd.DataFrame, cards: Mapping[str, Card]) -> list[_Dot]:
    """A trace per device, model, phase and memory level; returns all dots."""
    collected: dict[tuple[str, str, str, str], list[_Dot]] = {}
    for lead, group in _groups(drawn):
        device = str(lead["device"])
        if device not in cards or group["share"].sum() < MIN_SHARE:
            continue
        for memory in cards[device].memories:
            dot = _dot(cards[device], memory, lead, group, shown)
            if dot is not None:
                key = (device, str(lead["model"]), str(lead["phase"]), memory.kind)
                collected.setdefault(key, []).append(dot)
    hues, marks = colours(drawn["model"]), symbols(drawn["phase"])
    devices = [device for device in dict.fromkeys(drawn["device"]) if device in cards]
    for (device, model, phase, level), dots in collected.items():
        panels.add(devices.index(device), _dot_trace(dots, hues[model], marks[phase], level, f"legend:{model}"))
    for model, hue in hues.items():
        panels.figure.add_trace(key_trace(str(model), "legend", mode="markers", marker={"color": hue, "size": 9}))
    for phase, symbol in marks.items():
        marker = {"color": GREY, "symbol": symbol, "size": 9}
        panels.figure.add_trace(key_trace(str(phase), "legend2", mode="markers", marker=marker))
    return [dot for dots in collected.values() for dot in dots]


def _dot(card: Card, memory: Memory, lead: pd.Series, group: pd.DataFrame, shown: pd.DataFrame) -> _Dot | None:
    """None where the group calculates nothing or does not touch the memory: it has no place in the diagram."""
    moved = float(group.get(f"{memory.name}_traffic", pd.Series([0.0])).sum())
    flops, seconds = float(group["flops"].sum()), float(group["busy_seconds"].sum())
    if not (moved > 0 and flops > 0 and seconds > 0):
        return None
    intensity, achieved, share = flops / moved, flops / seconds, float(group["share"].sum())
    unit = "matmul" if group["matmul_flops"].sum() > 0 else "vector"
    limit = roof(card, memory, str(lead["dtype"]), unit, intensity)
    case = shown[shown["case"] == lead["case"]].iloc[0]
    others = f" and {len(group) - 1} more" if len(group) > 1 else ""
    facts = {
        "model": lead["model"],
        "phase": lead["phase"],
        "workload": workload_text(case),
        "longest kernel": f"{lead['kernel']}{others}",
        "path": lead["path"],
        "time": f"{format_seconds(float(group['seconds'].sum()))}, {share:.1%} of the case",
        f"intensity at {memory.name}": intensity_text(intensity),
        "achieved": f"{rate_text(achieved)}, {format_quantity(moved / seconds, 'B/s')} of {memory.name}",
        "of the roof": f"{achieved / limit:.0%} of {rate_text(limit)}",
        "bound by": lead["bound"],
    }
    return _Dot(intensity, achieved, share, hover(lead["category"], facts))


def _dot_trace(dots: list[_Dot], colour: object, symbol: object, level: str, group: str) -> go.Scatter:
    dots = sorted(dots, key=lambda dot: -dot.share)  # small ones on top
    return go.Scatter(
        x=[dot.intensity for dot in dots],
        y=[dot.achieved for dot in dots],
        mode="markers",
        marker={
            "color": colour,
            "symbol": symbol,
            "opacity": 0.75,
            "size": [dot.share for dot in dots],
            "sizemode": "area",
            "sizeref": 1 / 18**2,
            "sizemin": 3,
            "line": {"width": 0.6, "color": "#ffffff"},
        },
        hovertext=[dot.text for dot in dots],
        hovertemplate=HOVERED,
        meta={"choice": level},
        legendgroup=group,
        showlegend=False,
    )


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of the plane that is drawn."""

    left: float
    right: float
    bottom: float
    top: float


def _window(dots: list[_Dot], cards: Mapping[str, Card], devices: list[str]) -> _Window:
    """Every dot and every ridge point, on a grid of whole decades; the left is where the dots begin."""
    peak = max(max([*cards[d].matmul.values(), *cards[d].vector.values()], default=1e12) for d in devices)
    ridges = [peak / min(memory.bandwidth for memory in cards[d].memories if memory.kind != "storage") for d in devices]
    left = max(1e-3, min((dot.intensity for dot in dots), default=0.1))
    right = max([4 * max(ridges), *(dot.intensity for dot in dots)])
    bottom = max(peak * 1e-7, min((dot.achieved for dot in dots), default=peak * 1e-4))
    return _Window(left / 2, right * 2, bottom / 2, max([peak, *(dot.achieved for dot in dots)]) * 4)


def _roofs(card: Card, drawn: pd.DataFrame, window: _Window) -> Iterator[go.Scatter]:
    """The slopes of the memories that are used, the flats of the rates that are used, and their ridge points."""
    flats = _flats(card, drawn)
    if not flats:
        return
    highest = max(flats.values())
    used = [card.memory(name) for name in memories_in(drawn) if name in {m.name for m in card.memories}]
    used = sorted((m for m in used if drawn[f"{m.name}_traffic"].sum() > 0), key=lambda m: -m.bandwidth)
    for order, memory in enumerate(used):
        yield _slope(memory, highest, window, below=order == len(used) - 1 and order > 0)
    if used:
        for name, rate in flats.items():
            yield _flat(name, rate, rate / used[0].bandwidth, window)
        yield _ridges(card, used, flats)


def _flats(card: Card, drawn: pd.DataFrame) -> dict[str, float]:
    """Peak rates by label: matrix units in every format used, and the vector lanes where they do all of a kernel."""
    flats: dict[str, float] = {}
    for dtype in dict.fromkeys(drawn.loc[drawn["matmul_flops"] > 0, "dtype"]):
        flats[f"{dtype} matmul"] = rate_of(card, str(dtype))
    alone = drawn[(drawn["matmul_flops"] == 0) & (drawn["flops"] > 0) & (drawn["share"] >= MIN_SHARE)]
    for dtype in dict.fromkeys(alone["dtype"]):
        if str(dtype) in card.vector:
            flats[f"{dtype} vector"] = card.vector[str(dtype)]
    joined: dict[float, list[str]] = {}
    for name, rate in flats.items():
        joined.setdefault(rate, []).append(name)
    return {", ".join(names): rate for rate, names in joined.items() if rate == rate}


def _slope(memory: Memory, highest: float, window: _Window, below: bool) -> go.Scatter:
    left = max(window.left, window.bottom / memory.bandwidth)
    label = f"{plain(memory.name)} {format_quantity(memory.bandwidth, 'B/s')}"
    text = hover(label, {"roof": "intensity times bandwidth", "ridge": intensity_text(highest / memory.bandwidth)})
    return go.Scatter(
        x=[left, highest / memory.bandwidth],
        y=[left * memory.bandwidth, highest],
        mode="lines+text",
        text=[label, ""],
        textposition="bottom right" if below else "top right",
        textfont={"size": 11, "color": GREY},
        line={"color": GREY, "width": 1.3},
        cliponaxis=False,
        hovertext=[text, text],
        hovertemplate=HOVERED,
        showlegend=False,
        name=f"roof of {label}",
    )


def _flat(name: str, rate: float, start: float, window: _Window) -> go.Scatter:
    label = f"{plain(name)} {rate_text(rate)}"
    return go.Scatter(
        x=[start, window.right],
        y=[rate, rate],
        mode="lines+text",
        text=["", label],
        textposition="top left",
        textfont={"size": 11, "color": GREY},
        line={"color": GREY, "width": 1.3, "dash": "dot" if "vector" in name else "solid"},
        hovertext=[hover(label, {"roof": "peak rate"})] * 2,
        hovertemplate=HOVERED,
        showlegend=False,
        name=f"roof of {label}",
    )


def _ridges(card: Card, used: list[Memory], flats: Mapping[str, float]) -> go.Scatter:
    """Where a slope meets a flat: the intensity from which a kernel is bound by arithmetic."""
    points = [(memory, name, rate) for memory in used for name, rate in flats.items()]
    texts = [
        hover(
            f"ridge of {memory.name} and {name}",
            {"intensity": intensity_text(rate / memory.bandwidth), "performance": rate_text(rate)},
        )
        for memory, name, rate in points
    ]
    main = card.main.name
    highest = max(flats.values())
    labels = [
        f"{rate / memory.bandwidth:.3g}" if memory.name == main and rate == highest else ""
        for memory, _, rate in points
    ]
    return go.Scatter(
        x=[rate / memory.bandwidth for memory, _, rate in points],
        y=[rate for _, _, rate in points],
        mode="markers+text",
        text=labels,
        textposition="top center",
        textfont={"size": 11, "color": GREY},
        marker={"symbol": "line-ns-open", "size": 8, "color": GREY, "line": {"width": 1.3}},
        hovertext=texts,
        hovertemplate=HOVERED,
        showlegend=False,
        name="ridge points",
    )


def _lay_out(panels: Grid, window: _Window) -> None:
    figure = panels.figure
    figure.update_xaxes(log_axis("Arithmetic intensity (FLOP/B)"), range=[log10(window.left), log10(window.right)])
    figure.update_yaxes(log_axis("Performance (FLOP/s)"), range=[log10(window.bottom), log10(window.top)])


def _notes(cases: pd.DataFrame, shown: pd.DataFrame, drawn: pd.DataFrame, cards: Mapping[str, Card]) -> Iterator[str]:
    yield "Area of a dot: its share of the time of its case. Ticks on a roof are ridge points (FLOP/B)."
    total = len(finished(cases))
    if len(shown) < total:
        yield f"{len(shown)} of {total} cases drawn: at most {CASES_PER_PAIR} per model and device, spread evenly."
    groups = drawn.groupby(["case", "phase", "category"]).agg(share=("share", "sum"), flops=("flops", "sum"))
    silent, small = groups["flops"] <= 0, groups["share"] < MIN_SHARE
    if (small & ~silent).any():
        yield (
            f"{int((small & ~silent).sum())} groups below {MIN_SHARE:.0%} of their case's time are left out "
            f"(together at most {groups[small & ~silent].groupby('case')['share'].sum().max():.1%} of a case)."
        )
    if silent.any():
        yield (
            "Kernels without arithmetic (copies, gathers, cache writes) have no place in this diagram: at most "
            f"{groups[silent].groupby('case')['share'].sum().max():.1%} of a case's time."
        )
    if (drawn["category"] == "attention").any():
        yield "Attention counts the full square of scores; a causal kernel skips up to half and may lie above its roof."
    missing = sorted({str(device) for device in drawn["device"]} - set(cards))
    if missing:
        yield f"No card found for {', '.join(missing)}: no panel."
