"""The share of time that memory, rather than arithmetic, binds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd
import plotly.graph_objects as go

from hwsim.card import Card
from hwsim.report.frames import HOST_WAIT, count_text, detailed, finished
from hwsim.report.panels import Grid, grid
from hwsim.report.sweep import Axis, axis_of
from hwsim.report.theme import (
    COMPUTE,
    GREY,
    HOVERED,
    colours,
    dashes,
    empty_figure,
    finish,
    hover,
    key_trace,
    log_axis,
    plain,
    share_axis,
    toggle_menu,
)

MAX_PANELS = 9


def bound_share_figure(cases: pd.DataFrame, kernels: pd.DataFrame, cards: Mapping[str, Card]) -> go.Figure:
    """A panel per device: the share of time bound by any memory or link, a line per model and phase."""
    frame = detailed(cases, kernels)
    if frame.empty:
        return empty_figure("No kernels stored: no shares of time.")
    axis = axis_of(finished(cases))
    sized = frame.merge(finished(cases).assign(_size=lambda rows: axis.sizes(rows))[["case", "_size"]], on="case")
    devices = list(dict.fromkeys(sized["device"]))
    panels = grid([f"<b>{plain(device)}</b>" for device in devices[:MAX_PANELS]], height=270, columns=3)
    hues, styles = colours(sized["model"]), dashes(sized["phase"])
    for index, device in enumerate(devices[:MAX_PANELS]):
        for (model, phase, other), group in sized[sized["device"] == device].groupby(
            ["model", "phase", axis.other], sort=False
        ):
            line = {"color": hues[model], "dash": styles[phase], "width": 2}
            panels.add(index, _line(group, axis, (str(model), str(phase), int(other)), line))
    _keys(panels, hues, styles)
    figure = panels.figure
    figure.update_xaxes(log_axis(axis.title), dtick=None)
    figure.update_yaxes(share_axis("Time bound by memory (%)"))
    labels = {str(value): f"{axis.other} {count_text(value)}" for value in axis.others}
    figure.update_layout(updatemenus=toggle_menu(figure, labels, str(axis.others[-1])))
    return finish(figure, panels.height, _notes(devices, cards), {"Model": hues, "Phase": styles})


def bound_shares(kernels: pd.DataFrame) -> dict[str, float]:
    """Share of the elapsed time by binding resource, waiting for the host included; the largest first."""
    total = float(kernels["seconds"].sum())
    if not total:
        return {}
    shares = (kernels.groupby("bound")["busy_seconds"].sum() / total).to_dict()
    waiting = float(kernels["waiting"].sum()) / total
    if waiting > 0:
        shares[HOST_WAIT] = shares.get(HOST_WAIT, 0.0) + waiting
    return dict(sorted(((str(k), float(v)) for k, v in shares.items()), key=lambda item: -item[1]))


def is_memory(resource: str) -> bool:
    """Whether a binding resource moves bytes: a memory or a link."""
    return resource not in (*COMPUTE, "latency", HOST_WAIT, "power", "")


def _line(group: pd.DataFrame, axis: Axis, names: tuple[str, str, int], line: dict[str, object]) -> go.Scatter:
    model, phase, other = names
    sizes, values, texts = [], [], []
    for size, kernels in group.groupby("_size"):
        shares = bound_shares(kernels)
        bound = sum(share for name, share in shares.items() if is_memory(name))
        sizes.append(size)
        values.append(bound)
        listed = {f"bound by {name}": f"{share:.1%}" for name, share in shares.items() if share >= 0.001}
        texts.append(hover(f"{model}, {phase}", {**axis.facts(float(str(size)), other), **listed}))
    return go.Scatter(
        x=sizes,
        y=values,
        mode="lines+markers",
        line=line,
        marker={"size": 6},
        name=f"{plain(model)}, {plain(phase)}",
        legendgroup=f"legend:{model}",
        showlegend=False,
        hovertext=texts,
        hovertemplate=HOVERED,
        meta={"choice": other},
    )


def _keys(panels: Grid, hues: Mapping[object, str], styles: Mapping[object, str]) -> None:
    for model, hue in hues.items():
        panels.figure.add_trace(key_trace(str(model), "legend", mode="lines", line={"color": hue, "width": 2}))
    for phase, style in styles.items():
        line = {"color": GREY, "dash": style, "width": 2}
        panels.figure.add_trace(key_trace(str(phase), "legend2", mode="lines", line=line))


def _notes(devices: Iterable[object], cards: Mapping[str, Card]) -> Iterator[str]:
    yield (
        "Share of the elapsed time of kernels whose binding resource is a memory or a link; "
        "the rest is bound by arithmetic, latency, power or the host."
    )
    names = list(devices)
    if len(names) > MAX_PANELS:
        yield f"{MAX_PANELS} of {len(names)} devices drawn."
    simple = [str(name) for name in names if str(name) in cards and cards[str(name)].first_form]
    if simple:
        yield f"First form, peaks only: {', '.join(simple)}."
