"""Predicted against measured: how far the simulation is from silicon."""

from __future__ import annotations

from math import log10

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from hwsim.report.theme import GREY, HOVERED, colours, empty_figure, finish, hover, log_axis, plain, symbols
from hwsim.units import format_seconds

BANDS = (0.1, 0.3)  # relative errors that are drawn as lines
MAX_POINTS = 5000


def scatter_figure(rows: pd.DataFrame, quantity: str = "time (s)") -> go.Figure:
    """``rows`` with the columns predicted, measured (> 0), family and label: a dot each, lines of equal error."""
    usable = rows[(rows["predicted"] > 0) & (rows["measured"] > 0)]
    if usable.empty:
        return empty_figure("No measurements to compare with.")
    drawn = usable if len(usable) <= MAX_POINTS else usable.sample(MAX_POINTS, random_state=0)
    low = float(usable[["predicted", "measured"]].min().min()) / 2
    high = float(usable[["predicted", "measured"]].max().max()) * 2
    figure = go.Figure()
    for error in (0.0, *BANDS):
        figure.add_trace(_band(error, low, high))
    hues, marks = colours(drawn["family"]), symbols(drawn["family"])
    for family, group in drawn.groupby("family", sort=False):
        figure.add_trace(_family(str(family), group, hues[family], marks[family]))
    span = [log10(low), log10(high)]
    figure.update_xaxes(log_axis(f"Measured {quantity}"), range=span)
    figure.update_yaxes(log_axis(f"Predicted {quantity}"), range=span, scaleanchor="x")
    return finish(figure, 560, _notes(rows, usable, drawn), {"Operation": [trace.name for trace in figure.data]})


def _band(error: float, low: float, high: float) -> go.Scatter:
    """The line of predictions right (error 0), or off by ``error`` in both directions."""
    upper, lower = 1 + error, 1 / (1 + error)
    gap = [None] if error else []
    name = f"±{error:.0%}" if error else "exact"
    return go.Scatter(
        x=[low, high, *gap, *([low, high] if error else [])],
        y=[low * upper, high * upper, *gap, *([low * lower, high * lower] if error else [])],
        mode="lines",
        line={"color": GREY, "width": 1.2 if not error else 0.8, "dash": "solid" if not error else "dot"},
        name=name,
        hovertemplate=f"{name}<extra></extra>",
    )


def _family(family: str, group: pd.DataFrame, colour: object, symbol: object) -> go.Scatter:
    ratio = group["predicted"] / group["measured"]
    mape = float((ratio - 1).abs().mean())
    texts = [
        hover(
            label,
            {
                "operation": family,
                "measured": format_seconds(float(measured)),
                "predicted": format_seconds(float(predicted)),
                "predicted / measured": f"{predicted / measured:.2f}",
            },
        )
        for label, measured, predicted in zip(group["label"], group["measured"], group["predicted"], strict=True)
    ]
    return go.Scatter(
        x=group["measured"].to_numpy(),
        y=group["predicted"].to_numpy(),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75, "line": {"width": 0}},
        name=f"{plain(family)} (MAPE {mape:.0%}, n={len(group)})",
        hovertext=texts,
        hovertemplate=HOVERED,
    )


def _notes(rows: pd.DataFrame, usable: pd.DataFrame, drawn: pd.DataFrame) -> list[str]:
    ratio = usable["predicted"] / usable["measured"]
    worst = float(np.exp(np.abs(np.log(ratio)).max()))
    notes = [
        f"{len(usable)} measurements: mean absolute error {float((ratio - 1).abs().mean()):.1%}, "
        f"median {float((ratio - 1).abs().median()):.1%}, worst off by a factor of {worst:.2f}."
    ]
    if len(usable) < len(rows):
        notes.append(f"{len(rows) - len(usable)} rows without a positive prediction and measurement are left out.")
    if len(drawn) < len(usable):
        notes.append(f"{len(drawn)} of {len(usable)} drawn, picked at random; the errors are over all.")
    return notes
