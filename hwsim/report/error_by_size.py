"""How far off predictions are for short and for long kernels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from hwsim.report.theme import colours, empty_figure, finish, hover, log_axis, plain
from hwsim.units import format_seconds

BINS_PER_DECADE = 2
FEWEST = 3  # rows of a bin that is drawn


def error_by_size_figure(rows: pd.DataFrame) -> go.Figure:
    """``rows`` with measured (s), predicted_error and family: the mean error of each family by measured time."""
    usable = rows[rows["measured"] > 0].dropna(subset=["predicted_error"])
    if usable.empty:
        return empty_figure("No measurements to compare with.")
    hues = colours(usable["family"])
    figure = go.Figure()
    for family, group in usable.groupby("family", sort=False):
        line = _line(str(family), group)
        if line is not None:
            figure.add_trace(line.update(line_color=hues[family], marker_color=hues[family]))
    figure.update_xaxes(log_axis("Measured time (s)"))
    figure.update_yaxes(title="Mean absolute error (%)", rangemode="tozero")
    notes = [f"{BINS_PER_DECADE} bins a decade; bins of fewer than {FEWEST} rows are left out."]
    return finish(figure, 420, notes, {"Operation": [trace.name for trace in figure.data]})


def _line(family: str, group: pd.DataFrame) -> go.Scatter | None:
    bins = np.floor(np.log10(group["measured"]) * BINS_PER_DECADE)
    means = group.groupby(bins)["predicted_error"].agg(["mean", "size"])
    means = means[means["size"] >= FEWEST]
    if means.empty:
        return None
    middles = 10 ** ((means.index.to_numpy() + 0.5) / BINS_PER_DECADE)
    texts = [
        hover(family, {"around": format_seconds(float(x)), "mean error": f"{mean:.1%}", "rows": str(int(size))})
        for x, mean, size in zip(middles, means["mean"], means["size"], strict=True)
    ]
    return go.Scatter(
        x=middles, y=100 * means["mean"].to_numpy(), mode="lines+markers", name=plain(family), hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
    )  # fmt: skip
