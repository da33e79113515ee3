"""The roofs of one device: the slopes of its memories, the flats of its rates, and where they meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan

import pandas as pd
import plotly.graph_objects as go

from hwsim.card import Card, Memory
from hwsim.dtypes import DTYPES
from hwsim.report.frames import memories_in
from hwsim.report.theme import GREY, HOVERED, hover, plain
from hwsim.units import format_quantity

MATMUL, VECTOR = ("solid", "━━"), ("dashdot", "━·")  # how a line is dashed, and as text
LINES = {"cache": ("dash", "╍╍"), "scratchpad": ("dash", "╍╍"), "storage": ("longdash", "━ ")}
SECOND = ("dot", "┈┈")  # a main memory behind the first one


@dataclass(frozen=True)
class Roofs:
    """The memories that are used, the fastest first, and peak rates by name."""

    card: Card
    memories: tuple[Memory, ...]
    rates: Mapping[str, float]

    @classmethod
    def of(cls, card: Card, kernels: pd.DataFrame, min_share: float) -> Roofs:
        """What ``kernels`` use: rates of matrix units in their formats, vector rates where nothing else works."""
        names = {name for name in memories_in(kernels) if kernels[f"{name}_traffic"].sum() > 0}
        used = sorted((m for m in card.memories if m.name in names), key=lambda memory: -memory.bandwidth)
        return cls(card, tuple(used), _joined(dict(_rates(card, kernels, min_share))))

    @property
    def peak(self) -> float:
        """The highest rate in FLOP/s."""
        return max(self.rates.values(), default=1.0)

    @property
    def last_ridge(self) -> float:
        """The highest intensity at which a main memory still bounds, in FLOP/B."""
        slow = [memory.bandwidth for memory in self.memories if memory.kind != "storage"]
        return self.peak / min(slow, default=self.peak)

    def names(self) -> Iterator[str]:
        """Every roof with its line: the memories with bandwidth and ridge point, the rates from high to low."""
        for memory in self.memories:
            line, bandwidth = self._line(memory)[1], format_quantity(memory.bandwidth, "B/s")
            ridge = intensity_text(self.peak / memory.bandwidth)
            yield f"{line} {plain(memory.name)} {bandwidth}, ridge {ridge}"
        for name, rate in sorted(self.rates.items(), key=lambda item: -item[1]):
            yield f"{(MATMUL if 'matmul' in name else VECTOR)[1]} {plain(name)} {format_quantity(rate, 'FLOP/s')}"

    def traces(self, window: tuple[float, float, float, float]) -> Iterator[go.Scatter]:
        """Lines and ridge points within left, right, bottom and top."""
        for memory in self.memories:
            yield self._slope(memory, window)
        if self.memories:
            for name, rate in self.rates.items():
                yield _flat(name, rate, rate / self.memories[0].bandwidth, window[1])
            yield self._ridges()

    def _line(self, memory: Memory) -> tuple[str, str]:
        if memory.name == self.card.main.name:
            return MATMUL
        return LINES.get(memory.kind, SECOND)

    def _slope(self, memory: Memory, window: tuple[float, float, float, float]) -> go.Scatter:
        left, _, bottom, _ = window
        start, ridge = max(left, bottom / memory.bandwidth), self.peak / memory.bandwidth
        title = f"{memory.name} {format_quantity(memory.bandwidth, 'B/s')}"
        text = hover(title, {"roof": "intensity times bandwidth", "ridge": intensity_text(ridge)})
        return go.Scatter(
            x=[start, ridge],
            y=[start * memory.bandwidth, self.peak],
            mode="lines",
            line={"color": GREY, "width": 1.4, "dash": self._line(memory)[0]},
            hovertext=[text, text],
            hovertemplate=HOVERED,
            showlegend=False,
            name=f"roof of {plain(memory.name)}",
        )

    def _ridges(self) -> go.Scatter:
        """Where a slope meets a flat: the intensity from which arithmetic bounds."""
        points = [(memory, name, rate) for memory in self.memories for name, rate in self.rates.items()]
        texts = [
            hover(
                f"ridge of {memory.name} and {name}",
                {
                    "intensity": intensity_text(rate / memory.bandwidth),
                    "performance": format_quantity(rate, "FLOP/s"),
                },
            )
            for memory, name, rate in points
        ]
        return go.Scatter(
            x=[rate / memory.bandwidth for memory, _, rate in points],
            y=[rate for _, _, rate in points],
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 8, "color": GREY, "line": {"width": 1.3}},
            hovertext=texts,
            hovertemplate=HOVERED,
            showlegend=False,
            name="ridge points",
        )


def rate_of(card: Card, name: str, unit: str = "matmul") -> float:
    """The peak of a unit in a format, else in the narrowest of its kind or float that is no narrower; nan if none."""
    wanted = DTYPES.get(name, DTYPES["fp32"])
    for rates in (card.matmul, card.vector) if unit == "matmul" else (card.vector, card.matmul):
        if name in rates:
            return rates[name]
        wider = [fmt for fmt in map(DTYPES.__getitem__, rates.keys() & DTYPES.keys()) if fmt.bits >= wanted.bits]
        for kind in (wanted.kind, "float"):
            alike = [fmt for fmt in wider if fmt.kind == kind]
            if alike:
                return rates[min(alike, key=lambda fmt: fmt.bits).name]
    return max([*card.matmul.values(), *card.vector.values()], default=float("nan"))


def _rates(card: Card, kernels: pd.DataFrame, min_share: float) -> Iterator[tuple[str, float]]:
    for dtype in dict.fromkeys(kernels.loc[kernels["matmul_flops"] > 0, "dtype"]):
        yield f"{dtype} matmul", rate_of(card, str(dtype))
    alone = kernels[(kernels["matmul_flops"] == 0) & (kernels["flops"] > 0) & (kernels["share"] >= min_share)]
    for dtype in dict.fromkeys(alone["dtype"]):
        if str(dtype) in card.vector:
            yield f"{dtype} vector", card.vector[str(dtype)]


def _joined(rates: Mapping[str, float]) -> dict[str, float]:
    """Rates by name, equal ones under one name."""
    names: dict[float, list[str]] = {}
    for name, rate in rates.items():
        if not isnan(rate):
            names.setdefault(rate, []).append(name)
    return {", ".join(alike): rate for rate, alike in names.items()}


def intensity_text(value: float) -> str:
    """Arithmetic intensity with three digits."""
    return f"{value:,.0f} FLOP/B" if value >= 100 else f"{value:.3g} FLOP/B"


def _flat(name: str, rate: float, start: float, end: float) -> go.Scatter:
    text = hover(f"{name} {format_quantity(rate, 'FLOP/s')}", {"roof": "peak rate"})
    return go.Scatter(
        x=[start, end],
        y=[rate, rate],
        mode="lines",
        line={"color": GREY, "width": 1.4, "dash": (MATMUL if "matmul" in name else VECTOR)[0]},
        hovertext=[text, text],
        hovertemplate=HOVERED,
        showlegend=False,
        name=f"roof of {plain(name)}",
    )
