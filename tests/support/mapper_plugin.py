"""A mapper with one option of every form, announced as a package would announce it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from hwsim.device import Device
from hwsim.errors import InputError, Problem
from hwsim.graph import Graph
from hwsim.mapper import Policy, Schedule
from hwsim.mapper_options import option
from hwsim.mappers.fused import Fused


@dataclass(frozen=True, slots=True)
class ToyOptions:
    """An option of every form."""

    resident: float = option(0.5, "share of the weights that stays", high=1)
    chunk: float = option(32768.0, "bytes of one read", unit="B", low=512)
    window: int = option(4, "tokens whose rows stay", low=1, high=4096)
    evict: str = option("lru", "what leaves first", choices=("lru", "lfu"))
    fetch: bool = option(True, "whether to fetch ahead")
    shares: tuple[float, ...] = option((0.5, 0.5), "a share for each tier", high=1)
    limit: int | None = option(None, "most rows, null for all")

    def __post_init__(self) -> None:
        if sum(self.shares) > 1:
            raise InputError(Problem("the shares sum to more than 1", path="shares"))


@dataclass(frozen=True, slots=True)
class Toy:
    """Maps as `fused` does, whatever its options say."""

    name: ClassVar[str] = "toy"
    Options: ClassVar[type] = ToyOptions
    options: ToyOptions = field(default_factory=ToyOptions)

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """The schedule of `fused`."""
        return Fused().schedule(graph, device, policy)


def announce(folder: Path) -> None:
    """Write what pip would, so that with ``folder`` on the path the mapper `toy` is found."""
    info = folder / "toy_mapper-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-mapper\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hwsim.mappers]\ntoy = mapper_plugin:Toy\n")
