"""What runs when: the kernels of one execution, repeated layers drawn once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from hwsim.report.breakdown import HUES
from hwsim.report.frames import HOST_WAIT, count_text, detailed, finished, phase_text, representative, workload_text
from hwsim.report.panels import grid
from hwsim.report.theme import GREY, HOVERED, empty_figure, finish, hover, key_trace, plain, toggle_menu
from hwsim.units import format_seconds

MAX_MODELS = 8
MAX_PANELS = 8  # per model
MAX_KERNELS = 400  # per row
PANEL_HEIGHT = 40
PANEL_GAP = 66
NARROW = 0.03  # of a row; narrower repetitions have no room for their count


@dataclass(frozen=True, slots=True)
class _Block:
    """A kernel, or the wait before it, on the axis of drawn time; ``count`` executions in a row of repetitions."""

    start: float
    seconds: float
    category: str
    text: str


@dataclass(frozen=True, slots=True)
class _Repeat:
    """A stretch of the drawn time that stands for ``count`` repetitions."""

    start: float
    end: float
    count: int


def timeline_figure(cases: pd.DataFrame, kernels: pd.DataFrame) -> go.Figure:
    """A Gantt row per device and phase of a representative case, a button per model; repeated layers once, marked."""
    frame = detailed(cases, kernels)
    if frame.empty:
        return empty_figure("No kernels stored: no timeline.")
    chosen = representative(finished(cases))
    workloads = {row["case"]: workload_text(row) for _, row in chosen.iterrows()}
    frame = frame[frame["case"].isin(chosen["case"])]
    rows = [_row(group, workloads) for _, group in frame.groupby(["model", "device", "case", "phase"], sort=False)]
    models = list(dict.fromkeys(row.model for row in rows))
    kept = {model: [row for row in rows if row.model == model][:MAX_PANELS] for model in models[:MAX_MODELS]}
    panels = grid([""] * max(map(len, kept.values())), PANEL_HEIGHT, 1, shared=False, gap=PANEL_GAP)
    for alike in kept.values():
        for index, row in enumerate(alike):
            for trace in _traces(row):
                panels.add(index, trace)
    marks = {model: _marks(alike) for model, alike in kept.items()}
    figure = panels.figure
    figure.update_layout(marks[models[0]])
    figure.update_layout(updatemenus=toggle_menu(figure, {model: model for model in kept}, models[0], marks))
    return _finished(figure, panels.height, _notes(len(rows), kept))


@dataclass(frozen=True, slots=True)
class _Row:
    """One execution of a phase of a model on a device; ``cut`` kernels at its end are left out."""

    model: str
    device: str
    phase: str
    context: int
    workload: str
    seconds: float
    blocks: list[_Block]
    repeats: list[_Repeat]
    cut: int


def _row(group: pd.DataFrame, workloads: dict[object, str]) -> _Row:
    step = group[group["context"] == group["context"].iloc[0]]
    lead = step.iloc[0]
    phase = phase_text(lead["job"], lead["phase"])
    names = str(lead["model"]), str(lead["device"]), phase, int(lead["context"])
    return _Row(*names, workloads[lead["case"]], *_blocks(step))


def _traces(row: _Row) -> Iterator[go.Bar]:
    for category in HUES:
        alike = [block for block in row.blocks if block.category == category]
        if alike:
            yield _bars(alike, category, row)


def _blocks(step: pd.DataFrame) -> tuple[float, list[_Block], list[_Repeat], int]:
    """The seconds of one execution in full, its kernels in order with repetitions, and how many were left out."""
    runs = float(step["launches"].min())  # executions that the rows stand for: some kernel runs once in each
    counts = (step["launches"] / runs).round().astype(int).clip(lower=1)
    whole = float(step["seconds"].sum()) / runs
    blocks: list[_Block] = []
    repeats: list[_Repeat] = []
    now = 0.0
    rows = list(zip(counts, step.to_dict("records"), strict=True))
    for count, members in groupby(rows[:MAX_KERNELS], key=lambda item: item[0]):
        begin = now
        for _, row in members:
            for block in _of_kernel(row, now, count, runs):
                blocks.append(block)
                now = block.start + block.seconds
        if count > 1:
            repeats.append(_Repeat(begin, now, int(count)))
    return whole, blocks, repeats, max(0, len(rows) - MAX_KERNELS)


def _of_kernel(row: Mapping[Any, Any], start: float, count: int, runs: float) -> Iterator[_Block]:
    """The wait for the host, if any, and the kernel: one of its ``count`` repetitions."""
    waiting, busy = row["waiting"] / runs / count, row["busy_seconds"] / runs / count
    facts = {
        "path": row["path"],
        "kind": row["kind"],
        "one execution": format_seconds(busy),
        "executions": count if count > 1 else "",
        "together": format_seconds(count * busy) if count > 1 else "",
        "bound by": row["bound"],
    }
    if waiting > 0.01 * busy:
        yield _Block(start, waiting, HOST_WAIT, hover("waits for the host", {"before": row["kernel"], **facts}))
        start += waiting
    yield _Block(start, busy, row["category"], hover(row["kernel"], facts))


def _bars(blocks: list[_Block], category: str, row: _Row) -> go.Bar:
    where = plain(f"{row.model} on {row.device}, {row.phase}")
    return go.Bar(
        base=[block.start for block in blocks],
        x=[block.seconds for block in blocks],
        y=[""] * len(blocks),
        orientation="h",
        width=0.9,
        marker={"color": HUES[category], "line": {"width": 0.4, "color": "#ffffff"}},
        name=category,
        legendgroup=f"legend:{category}",
        showlegend=False,
        hovertext=[f"{block.text}<br>{where}<br>{plain(row.workload)}" for block in blocks],
        hovertemplate=HOVERED,
        meta={"choice": row.model},
    )


def _marks(rows: list[_Row]) -> dict[str, Any]:
    """Titles of the rows, and a bracket with its count above every repeated stretch."""
    titles, counts, shapes = [], [], []
    for index, row in enumerate(rows):
        axis = "" if index == 0 else str(index + 1)
        context = f", context {count_text(row.context)}" if row.phase.startswith("decode") else ""
        title = f"<b>{plain(row.device)}</b> · {plain(row.phase)}{context} · {format_seconds(row.seconds)}"
        domain = {"xref": f"x{axis} domain", "yref": f"y{axis} domain", "showarrow": False}
        place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "yshift": 16}
        titles.append({"text": title, "font": {"size": 12.5}, "name": "title", **domain, **place})
        length = max((block.start + block.seconds for block in row.blocks), default=0.0)
        for repeat in row.repeats:
            here = {"xref": f"x{axis}", "yref": f"y{axis} domain"}
            line = {"color": GREY, "width": 2}
            shapes.append(
                {"type": "line", "x0": repeat.start, "x1": repeat.end, "y0": 1, "y1": 1, "line": line, **here}
            )
            if repeat.end - repeat.start > NARROW * length:
                middle = {"x": (repeat.start + repeat.end) / 2, "y": 1, "yanchor": "bottom", "showarrow": False}
                counts.append({"text": f"×{repeat.count}", "font": {"size": 11}, "name": "count", **middle, **here})
    return {"annotations": [*titles, *counts], "shapes": shapes}


def _finished(figure: go.Figure, height: int, notes: Iterator[str]) -> go.Figure:
    present = {trace.name for trace in figure.data}
    legend = [category for category in HUES if category in present]
    for category in legend:
        marker = {"color": HUES[category], "symbol": "square", "size": 10}
        figure.add_trace(key_trace(category, "legend", mode="markers", marker=marker))
    figure.update_xaxes(tickformat="~s", ticksuffix="s", showgrid=False, rangemode="tozero")
    figure.update_xaxes(title_text="Time, repeated layers once (s)", selector=-1)
    figure.update_yaxes(visible=False, title_text="Device")
    return finish(figure, height, notes, {"Kind": legend}, barmode="overlay")


def _notes(total: int, kept: Mapping[str, list[_Row]]) -> Iterator[str]:
    yield (
        "One execution of a phase (decode: the first step), kernels in order of issue. A stretch under ×n runs n times "
        "and is drawn once, so that the axis is shorter than the time in the title. A transfer is drawn for the time "
        "in which no kernel runs. Each row has its own scale."
    )
    drawn = [row for rows in kept.values() for row in rows]
    if len(drawn) < total:
        yield f"{len(drawn)} of {total} rows can be drawn: {MAX_MODELS} models, {MAX_PANELS} rows each."
    cut = sum(row.cut for row in drawn)
    if cut:
        yield f"{cut} later kernels are left out: at most {MAX_KERNELS} per row."
