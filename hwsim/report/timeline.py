"""What runs when: the kernels of one execution, repeated layers drawn once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
import plotly.graph_objects as go

from hwsim.report.breakdown import HUES
from hwsim.report.frames import HOST_WAIT, count_text, detailed, finished, representative, workload_text
from hwsim.report.panels import grid
from hwsim.report.theme import HOVERED, empty_figure, finish, hover, key_trace, plain
from hwsim.units import format_seconds

MAX_PANELS = 16
MAX_KERNELS = 400  # per panel
PANEL_HEIGHT = 46


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
    """A Gantt row per model, device and phase of a representative case; repeated layers once, marked with their count."""
    frame = detailed(cases, kernels)
    if frame.empty:
        return empty_figure("No kernels stored: no timeline.")
    chosen = representative(finished(cases))
    frame = frame[frame["case"].isin(chosen["case"])]
    runs = [(key, group) for key, group in frame.groupby(["model", "device", "phase"], sort=False)]
    drawn = runs[:MAX_PANELS]
    titles, built = [], []
    cut = 0
    for (model, device, phase), group in drawn:
        step = group[group["context"] == group["context"].iloc[0]]
        workload = workload_text(chosen[chosen["case"] == step["case"].iloc[0]].iloc[0])
        blocks, repeats, whole, dropped = _blocks(step)
        cut += dropped
        context = f", context {count_text(step['context'].iloc[0])}" if phase == "decode" else ""
        titles.append(f"<b>{plain(model)}</b> on {plain(device)} · {plain(phase)}{context} · {format_seconds(whole)}")
        built.append((blocks, repeats, f"{model} on {device}, {phase}", workload))
    panels = grid(titles, PANEL_HEIGHT, 1, shared=False)
    for index, (blocks, repeats, name, workload) in enumerate(built):
        for category in HUES:
            alike = [block for block in blocks if block.category == category]
            if alike:
                panels.add(index, _bars(alike, category, name, workload))
        _mark(panels.figure, index, repeats)
    return _finished(panels.figure, built, panels.height, _notes(len(runs), cut))


def _blocks(step: pd.DataFrame) -> tuple[list[_Block], list[_Repeat], float, int]:
    """Kernels of one execution in order; returns also its seconds in full and how many kernels were left out."""
    runs = float(step["launches"].min())  # executions that the rows stand for: some kernel runs once in each
    counts = (step["launches"] / runs).round().astype(int).clip(lower=1)
    whole = float(step["seconds"].sum()) / runs
    blocks: list[_Block] = []
    repeats: list[_Repeat] = []
    now = 0.0
    rows = list(zip(counts, step.itertuples(index=False), strict=True))
    for count, members in groupby(rows[:MAX_KERNELS], key=lambda item: item[0]):
        begin = now
        for _, row in members:
            for block in _of_kernel(row, now, count, runs):
                blocks.append(block)
                now = block.start + block.seconds
        if count > 1:
            repeats.append(_Repeat(begin, now, int(count)))
    return blocks, repeats, whole, max(0, len(rows) - MAX_KERNELS)


def _of_kernel(row: object, start: float, count: int, runs: float) -> Iterator[_Block]:
    """The wait for the host, if any, and the kernel: one of its ``count`` repetitions."""
    fields = row._asdict()  # type: ignore[attr-defined]
    waiting, busy = fields["waiting"] / runs / count, fields["busy_seconds"] / runs / count
    facts = {
        "path": fields["path"],
        "kind": fields["kind"],
        "one execution": format_seconds(busy),
        "executions": count if count > 1 else "",
        "together": format_seconds(count * busy) if count > 1 else "",
        "bound by": fields["bound"],
    }
    if waiting > 0.01 * busy:
        yield _Block(start, waiting, HOST_WAIT, hover("waits for the host", {"before": fields["kernel"], **facts}))
        start += waiting
    yield _Block(start, busy, fields["category"], hover(fields["kernel"], facts))


def _bars(blocks: list[_Block], category: str, name: str, workload: str) -> go.Bar:
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
        hovertext=[f"{block.text}<br>{plain(name)}<br>{plain(workload)}" for block in blocks],
        hovertemplate=HOVERED,
    )


def _mark(figure: go.Figure, index: int, repeats: list[_Repeat]) -> None:
    """A bracket below every repeated stretch, with the number of its repetitions."""
    axis = "" if index == 0 else str(index + 1)
    for repeat in repeats:
        figure.add_shape(
            type="line",
            xref=f"x{axis}",
            yref=f"y{axis} domain",
            x0=repeat.start,
            x1=repeat.end,
            y0=1.0,
            y1=1.0,
            line={"color": "#7d858f", "width": 2},
        )
        figure.add_annotation(
            text=f"×{repeat.count}",
            xref=f"x{axis}",
            yref=f"y{axis} domain",
            x=(repeat.start + repeat.end) / 2,
            y=1.0,
            yanchor="bottom",
            showarrow=False,
            font={"size": 11},
        )


def _finished(figure: go.Figure, built: list[object], height: int, notes: Iterator[str]) -> go.Figure:
    present = {trace.name for trace in figure.data}
    for category, hue in HUES.items():
        if category in present:
            marker = {"color": hue, "symbol": "square", "size": 10}
            figure.add_trace(key_trace(category, "legend", mode="markers", marker=marker))
    figure.update_xaxes(
        exponentformat="SI", ticksuffix="s", title_text="Time, repeated layers once (s)", showgrid=False
    )
    figure.update_yaxes(visible=False, title_text="Device")
    for annotation in figure.layout.annotations[: len(built)]:
        annotation.update(x=0, xanchor="left", yshift=18, font={"size": 12})
    legends = {"Kind": [name for name in HUES if name in present]}
    return finish(figure, height, notes, legends, barmode="overlay")


def _notes(total: int, cut: int) -> Iterator[str]:
    yield (
        "One execution of a phase (decode: the first step), kernels in order of issue. A stretch under ×n runs n times "
        "and is drawn once, so that the axis is shorter than the time in the title. Each row has its own scale."
    )
    if total > MAX_PANELS:
        yield f"{MAX_PANELS} of {total} rows drawn."
    if cut:
        yield f"{cut} later kernels are left out: at most {MAX_KERNELS} per row."
