"""The chips behind a memory: which DRAM card describes them, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from hwsim.errors import lookup
from hwsim.figures import Count, Figure, Strict
from hwsim.registry import data_files


@dataclass(frozen=True, slots=True)
class Chips:
    """A DRAM card by name or path, and how many stacks, modules or devices of it."""

    preset: str
    stacks: float


def _known(name: str) -> str:
    """The name of a DRAM card that ships, or a path to one."""
    if Path(name).suffix not in (".yaml", ".yml"):
        lookup("DRAM card", name, data_files("hwsim.devices.dram", "cards"))
    return name


class ChipsFile(Strict):
    """`dram: {preset: hbm3e, stacks: {value: 6, mark: datasheet, source: h200-ds}}`."""

    preset: Annotated[str, AfterValidator(_known)]
    stacks: Count


def chips_of(file: ChipsFile | None) -> Chips | None:
    """The chips that a card's file names."""
    if file is None or not isinstance(file.stacks, Figure):
        return None
    return Chips(file.preset, file.stacks.value)
