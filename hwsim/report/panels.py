"""Panels side by side, all with their own axes' titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import plotly.graph_objects as go
from plotly.basedatatypes import BaseTraceType
from plotly.subplots import make_subplots

GAP = 88  # pixels between rows: tick labels, the axis title and the next panel's title


@dataclass(frozen=True, slots=True)
class Grid:
    """A figure of ``count`` panels in ``columns``; ``height`` in pixels is what the panels need."""

    figure: go.Figure
    count: int
    columns: int
    height: int

    def add(self, panel: int, trace: BaseTraceType) -> None:
        """Add ``trace`` to a panel, counted from 0."""
        self.figure.add_trace(trace, row=panel // self.columns + 1, col=panel % self.columns + 1)


def grid(titles: Sequence[str], height: int, columns: int, shared: bool = True, gap: int = GAP) -> Grid:
    """Panels of ``height`` pixels, ``gap`` apart, in at most ``columns``; ``shared`` gives all the same ranges."""
    rows = ceil(len(titles) / columns)
    columns = ceil(len(titles) / rows)
    total = height * rows + gap * (rows - 1)
    match = "all" if shared else False
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=list(titles),
        horizontal_spacing=0.22 / max(2, columns),
        vertical_spacing=gap / total if rows > 1 else 0.0,
        shared_xaxes=match,
        shared_yaxes=match,
    )
    figure.update_xaxes(showticklabels=True)
    return Grid(figure, len(titles), columns, total)
