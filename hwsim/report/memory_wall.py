"""The memory wall: bytes in use against capacities, time bound by memory, and how devices grew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

import pandas as pd
import plotly.graph_objects as go

from hwsim.card import Card
from hwsim.device import load_device
from hwsim.errors import HwsimError
from hwsim.registry import data_files
from hwsim.report.bound_share import bound_share_figure
from hwsim.report.capacity import capacity_figure
from hwsim.report.growth import growth_figure


def memory_wall_figures(cases: pd.DataFrame, kernels: pd.DataFrame, cards: Mapping[str, Card]) -> dict[str, go.Figure]:
    """The three faces of the wall by name: capacity, bound-share, growth (of all shipped cards and the given ones)."""
    return {
        "capacity": capacity_figure(cases, cards),
        "bound-share": bound_share_figure(cases, kernels, cards),
        "growth": growth_figure([*cards.values(), *shipped_cards()]),
    }


def shipped_cards() -> Iterator[Card]:
    """Every card that ships as a file and whose family loads."""
    for name in data_files("hwsim.devices", "cards"):
        with suppress(HwsimError):
            yield load_device(name).card
