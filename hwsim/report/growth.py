"""How arithmetic and bandwidth of devices grow over the years, and the bytes per FLOP that remain."""

from __future__ import annotations

from collections.abc import Iterable
from math import log10

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hwsim.card import Card
from hwsim.report.labelling import Panel, sides
from hwsim.report.theme import GREY, HOVERED, PALETTE, empty_figure, finish, hover, log_axis, plain
from hwsim.units import format_quantity

LEAST = 1e12  # FLOP/s
WIDTH, HEIGHT = 460, 360  # pixels of a panel on a narrow page
ROOM = 1.5  # by which the axis reaches beyond the dots
FORMATS = ("bf16", "fp16", "int8", "fp32")  # the first that a card has is its peak here


def growth_figure(cards: Iterable[Card]) -> go.Figure:
    """Peak FLOP/s and main-memory B/s over the year of release (left), and their ratio in B/FLOP (right)."""
    given = list({card.name: card for card in cards}.values())
    known = sorted(
        (card for card in given if card.released is not None and _calculates(card)),
        key=lambda card: (card.released or 0, card.name),
    )
    if not known:
        return empty_figure("No card says when its device was released.")
    titles = ("<b>peak arithmetic and memory bandwidth</b>", "<b>bytes of main memory per FLOP</b>")
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.1, column_widths=[0.5, 0.5])
    flops = [(peak_of(card) or ("", 0.0))[1] for card in known]
    rates = [card.main.bandwidth for card in known]
    series = (
        ("peak arithmetic (FLOP/s)", flops, "FLOP/s", PALETTE[1], "diamond"),
        ("main memory bandwidth (B/s)", rates, "B/s", PALETTE[0], "circle"),
    )
    for name, values, unit, colour, symbol in series:
        figure.add_trace(_points(known, values, unit, colour, symbol, name), row=1, col=1)
        trend = _trend(known, values, colour, name)
        if trend is not None:
            figure.add_trace(trend, row=1, col=1)
    ratio = [rate / flop for rate, flop in zip(rates, flops, strict=True)]
    years = [card.released or 0 for card in known]
    across = (min(years) - 0.8, max(years) + 2.6)
    up = (log10(min(ratio) / ROOM), log10(max(ratio) * ROOM))
    figure.add_trace(_labelled(known, ratio, Panel(across, up, WIDTH, HEIGHT)), row=1, col=2)
    figure.update_xaxes(title_text="Year of release", range=across, dtick=1, tickformat="d")
    figure.update_yaxes(log_axis("Peak per second (FLOP/s, B/s)"), col=1)
    figure.update_yaxes(log_axis("Bytes per FLOP (B/FLOP)", ratio, prefixed=False), range=up, col=2)
    return finish(figure, HEIGHT, _notes(given, known), {"": [trace.name for trace in figure.data]})


def peak_of(card: Card) -> tuple[str, float] | None:
    """Format and FLOP/s of the card's peak in the format that it is usually used in."""
    rates = card.matmul or card.vector
    for name in FORMATS:
        if name in rates:
            return name, rates[name]
    return max(rates.items(), key=lambda item: item[1]) if rates else None


def _calculates(card: Card) -> bool:
    """Whether the device is made to run whole models: a TFLOP/s at least, out of a memory proper."""
    peak = peak_of(card)
    return peak is not None and peak[1] >= LEAST and card.main.kind == "main"


def _facts(card: Card) -> dict[str, object]:
    name, flops = peak_of(card) or ("", 0.0)
    return {
        "device": card.title,
        "released": card.released,
        f"peak ({name})": format_quantity(flops, "FLOP/s"),
        f"bandwidth ({card.main.name})": format_quantity(card.main.bandwidth, "B/s"),
        "ratio": f"{card.main.bandwidth / flops:.2g} B/FLOP, {flops / card.main.bandwidth:.3g} FLOP/B" if flops else "",
    }


def _points(cards: list[Card], values: list[float], unit: str, colour: str, symbol: str, name: str) -> go.Scatter:
    return go.Scatter(
        x=[card.released for card in cards],
        y=values,
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 9},
        name=name,
        hovertext=[
            hover(f"{card.name}: {format_quantity(value, unit)}", _facts(card))
            for card, value in zip(cards, values, strict=True)
        ],
        hovertemplate=HOVERED,
    )


def _trend(cards: list[Card], values: list[float], colour: str, name: str) -> go.Scatter | None:
    """Exponential growth by least squares, where there are three years at least."""
    years = np.array([float(card.released or 0) for card in cards])
    if len(set(years)) < 3:
        return None
    slope, level = np.polyfit(years - years[0], np.log10(values), 1)
    ends = np.array([years.min(), years.max()])
    text = f"×{10**slope:.2f} per year"
    return go.Scatter(
        x=ends,
        y=10 ** (level + slope * (ends - years[0])),
        mode="lines",
        line={"color": colour, "width": 1.2, "dash": "dash"},
        name=text,
        hovertemplate=f"{name}<br>{text}<extra></extra>",
    )


def _labelled(cards: list[Card], ratio: list[float], panel: Panel) -> go.Scatter:
    """Dots with their names where there is room; the others' names are told on hovering."""
    years = [card.released or 0 for card in cards]
    points = [(float(year), log10(value)) for year, value in zip(years, ratio, strict=True)]
    placed = sides([card.name for card in cards], points, panel)
    return go.Scatter(
        x=years,
        y=ratio,
        mode="markers+text",
        text=[plain(card.name) if side else "" for card, side in zip(cards, placed, strict=True)],
        textposition=[side or "top center" for side in placed],
        textfont={"size": 10.5, "color": GREY},
        marker={"color": PALETTE[2], "size": 9},
        name="bandwidth / peak (B/FLOP)",
        hovertext=[hover(card.name, _facts(card)) for card in cards],
        hovertemplate=HOVERED,
    )


def _notes(given: list[Card], known: list[Card]) -> list[str]:
    notes = [
        f"Peak: the matrix units in the first of {', '.join(FORMATS)} that a card has, dense. "
        "All shipped cards that calculate and say a year of release; so few make a rough trend."
    ]
    silent = sorted(card.name for card in given if card.released is None)
    idle = sorted(card.name for card in given if card.released is not None and not _calculates(card))
    if silent:
        notes.append(f"Without a year of release, left out: {', '.join(silent)}.")
    if idle:
        notes.append(f"Below {LEAST / 1e12:.0f} TFLOP/s or without a main memory, left out: {', '.join(idle)}.")
    return notes
