"""The share of time that memory, rather than arithmetic, binds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from hwsim.card import Card
from hwsim.report.frames import HOST_WAIT, count_text, detailed, finished
from hwsim.report.panels import grid
from hwsim.report.sweep import Axis, axis_of
from hwsim.report.theme import (
    GREY,
    HOVERED,
    colours,
    dashes,
    empty_figure,
    finish,
    hover,
    key_trace,
    plain,
    share_axis,
    toggle_menu,
)

NOT_MEMORY = ("matmul", "vector", "special", "latency", "power", HOST_WAIT, "")  # any other resource moves bytes
MAX_PANELS = 9


def bound_share_figure(cases: pd.DataFrame, kernels: pd.DataFrame, cards: Mapping[str, Card]) -> go.Figure:
    """A panel per device: the share of time bound by any memory or link, a line per model and phase."""
    frame = detailed(cases, kernels)
    if frame.empty:
        return empty_figure("No kernels stored: no shares of time.")
    done = finished(cases)
    axis = axis_of(done)
    sized = done.assign(_size=axis.sizes(done)).drop(columns="phase")
    table = bound_shares(frame, ["case", "phase"]).reset_index().merge(sized, on="case", suffixes=("", "_of_case"))
    devices = list(dict.fromkeys(done["device"]))
    panels = grid([f"<b>{plain(device)}</b>" for device in devices[:MAX_PANELS]], height=270, columns=3)
    hues, styles = colours(done["model"]), dashes(table["phase"])
    known = {HOST_WAIT, *frame["bound"].unique()}
    resources = [name for name in table.columns if name in known]
    for (device, model, phase, other), group in table.groupby(["device", "model", "phase", axis.other], sort=False):
        if device in devices[:MAX_PANELS]:
            style = {"color": hues[model], "dash": styles[phase], "width": 2}
            trace = _line(group, axis, (str(model), str(phase), int(str(other))), resources)
            panels.add(devices.index(device), trace.update(line=style))
    for model, hue in hues.items():
        panels.figure.add_trace(key_trace(str(model), "legend", mode="lines", line={"color": hue, "width": 2}))
    for phase, dash in styles.items():
        line = {"color": GREY, "dash": dash, "width": 2}
        panels.figure.add_trace(key_trace(str(phase), "legend2", mode="lines", line=line))
    figure = panels.figure
    figure.update_xaxes(axis.ticks(float(table["_size"].min()), float(table["_size"].max())))
    figure.update_yaxes(share_axis("Time bound by memory (%)"))
    labels = {str(value): f"{axis.other} {count_text(value)}" for value in axis.others}
    figure.update_layout(updatemenus=toggle_menu(figure, labels, str(axis.others[-1])))
    return finish(figure, panels.height, _notes(devices, cards), {"Model": hues, "Phase": styles})


def bound_shares(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Shares of the elapsed time by binding resource, a row per group of ``by``; waiting for the host is one."""
    whole = frame.groupby(list(by), sort=False)[["seconds", "waiting"]].sum()
    busy = frame.pivot_table(index=list(by), columns="bound", values="busy_seconds", aggfunc="sum", sort=False)
    table = busy.reindex(whole.index).fillna(0.0)
    waiting = whole["waiting"] + table.get(HOST_WAIT, 0.0)
    table = table.assign(**{HOST_WAIT: waiting}) if (waiting > 0).any() else table
    return table.div(whole["seconds"].where(whole["seconds"] > 0), axis=0).fillna(0.0)


def is_memory(resource: str) -> bool:
    """Whether a binding resource moves bytes: a memory or a link, be it of another device (`cpu.ddr`)."""
    return resource.rpartition(".")[2] not in NOT_MEMORY


def _line(group: pd.DataFrame, axis: Axis, names: tuple[str, str, int], resources: Sequence[str]) -> go.Scatter:
    """The share over the swept size, the mean of the cases that share it (other formats, other mappers)."""
    model, phase, other = names
    means = group.groupby("_size")[list(resources)].mean()
    memories = [name for name in resources if is_memory(name)]
    texts = []
    for size, row in means.iterrows():
        listed = {f"bound by {name}": f"{share:.1%}" for name, share in row.items() if share >= 0.001}
        texts.append(hover(f"{model}, {phase}", {**axis.facts(float(str(size)), other), **listed}))
    return go.Scatter(
        x=list(means.index),
        y=means[memories].sum(axis=1).to_numpy(),
        mode="lines+markers",
        marker={"size": 6},
        name=f"{plain(model)}, {plain(phase)}",
        legendgroup=f"legend:{model}",
        showlegend=False,
        hovertext=texts,
        hovertemplate=HOVERED,
        meta={"choice": other},
    )


def _notes(devices: Iterable[object], cards: Mapping[str, Card]) -> Iterator[str]:
    yield (
        "Share of the elapsed time of kernels whose binding resource is a memory or a link; "
        "the rest is bound by arithmetic, latency, power or the host."
    )
    names = [str(name) for name in devices]
    if len(names) > MAX_PANELS:
        yield f"{MAX_PANELS} of {len(names)} devices drawn."
    simple = [name for name in names if name in cards and cards[name].first_form]
    if simple:
        yield f"First form, peaks only: {', '.join(simple)}."
