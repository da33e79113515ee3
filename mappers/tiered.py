"""The mapper `tiered`: weights, states and activations over all memories of a card or a system, by capacity and use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from hwsim.card import Memory
from hwsim.device import Device
from hwsim.errors import DoesNotFitError, InputError, Problem, nearest_name
from hwsim.graph import Graph, Kind
from hwsim.liveness import lifetimes
from hwsim.mapper import Placement, Policy, Schedule
from hwsim.mapper_options import option
from hwsim.mappers.auto import KERNELS, kernels_of
from hwsim.mappers.kernels import Draft, draft, folded
from hwsim.mappers.streaming import Program, Route
from hwsim.mappers.tiers import SOLVERS, FloatArray, Placing, Tier, check_room
from hwsim.placement import HOST
from hwsim.system import System, system_of
from hwsim.units import format_quantity

MANY = 1000  # ops above which activations are placed as one,
ALL = ""  # which has no name
SMALLEST = 1e-9  # share of an item that is worth a place of its own
MARGIN = 0.02  # more room than the buffers needed last time: less in the main memory makes them larger
CHUNK = "an operand from far away that is larger comes in pieces while its kernel runs"
ROUNDS = 12  # of making room for the buffers of what lies far away
ROUNDING = 1e-6  # of what the linear program takes to fit


@dataclass(frozen=True, slots=True)
class TieredOptions:
    """What users may set."""

    solver: str = option(
        "greedy", "greedy: most traffic per byte first; lp: least time of traffic", choices=tuple(SOLVERS)
    )
    tiers: tuple[str, ...] = option((), "memories to use, such as hbm or cpu.ddr; empty: all")
    buffers: int = option(2, "buffers for what is copied from memories that kernels cannot address", low=1)
    overlap: bool = option(True, "whether such copies run beside kernels")
    chunk: float | None = option(None, f"{CHUNK}; null: a sixteenth of the main memory", unit="B", low=1)
    kernels: str = option("auto", "how ops become kernels", choices=("auto", *KERNELS))


@dataclass(frozen=True, slots=True)
class Tiered:
    """Every tensor in the tier, or the tiers, where its traffic costs least time."""

    name: ClassVar[str] = "tiered"
    Options: ClassVar[type] = TieredOptions
    options: TieredOptions = field(default_factory=TieredOptions)

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """Kernels with their operands where they are placed, and copies of what they cannot address; raises
        `DoesNotFitError` where all tiers together are too small."""
        graph, made = folded(graph), kernels_of(self.options.kernels, device)
        drawn = draft(graph, made.groups(graph))
        system = system_of(device)
        home = device.card.main.name
        tiers = self._tiers(system, policy)
        placing = _placing(drawn, tiers)
        check_room(placing, graph.name, system.name)
        room = 0.0
        for _ in range(ROUNDS):
            route, used = self._route(placing, device.card.main, room)
            program = Program(drawn, route, made.launch)
            needed = program.buffers.total(self.options.buffers)
            taken = used.get(home, 0.0) + needed
            if taken <= device.card.main.capacity * (1 + ROUNDING):
                return _schedule(drawn, program, route, {**used, home: taken})
            room = needed * (1 + MARGIN)
            if room > device.card.main.capacity:
                break
        what = f"{graph.name}, of which {format_quantity(needed, 'B')} are buffers,"
        raise DoesNotFitError(what, taken, device.card.main.capacity, home)

    def _tiers(self, system: System, policy: Policy) -> tuple[Tier, ...]:
        """All tiers that may be used, the fastest first."""
        found = {tier.name: tier for tier in all_tiers(system, policy.spill)}
        for name in self.options.tiers:
            if name not in found:
                nearest = nearest_name(name, found)
                expected = "" if nearest else f"one of {', '.join(found)}"
                raise InputError(Problem(f"'{system.name}' has no tier '{name}'", expected=expected, nearest=nearest))
        chosen = [found[name] for name in self.options.tiers] or list(found.values())
        return tuple(sorted(chosen, key=lambda tier: -tier.inward))

    def _route(self, placing: Placing, main: Memory, room: float) -> tuple[Route, dict[str, float]]:
        """Where everything lies when ``room`` bytes of the main memory are left for buffers, and the bytes in use."""
        tiers = tuple(
            [
                replace(tier, capacity=max(0.0, tier.capacity - room)) if tier.name == main.name else tier
                for tier in placing.tiers
            ]
        )
        placing = replace(placing, tiers=tiers)
        check_room(placing, "it with its buffers", main.name)
        shares = SOLVERS[self.options.solver](placing)
        far = frozenset(tier.name for tier in tiers if tier.far)
        names = [tier.name for tier in tiers]
        used = dict(zip(names, placing.used(shares).tolist(), strict=True))
        named = dict(_named(placing, shares, main.name))
        elsewhere = {name: share for name, share in named.pop(ALL, {}).items() if name != main.name}
        placement = Placement(main.name, named, elsewhere)
        chunk = self.options.chunk or main.capacity / 16
        return Route(main.name, placement, far, self.options.buffers, self.options.overlap, chunk), used


def all_tiers(system: System, spill: bool) -> Iterator[Tier]:
    """The memories of the main device that software places data in; main memories and storage of the others, and with
    ``spill`` a host of unlimited size, which are reached over links."""
    for name, memory in system.memories.items():
        device, _, short = name.partition(".")
        if device == system.main_name:
            if memory.kind != "cache":
                yield Tier(short, memory.capacity, memory.bandwidth, memory.write_bandwidth)
        elif memory.kind in ("main", "storage"):
            yield _far(system, name, device)
    if spill and system.host == HOST:
        yield _far(system, HOST, HOST)


def _far(system: System, name: str, device: str) -> Tier:
    memory, main = system.place(name).memory, system.main_name
    links, back = (
        tuple((hop.resource, hop.bandwidth) for hop in hops)
        for hops in (system.path(device, main), system.path(main, device))
    )
    return Tier(name, memory.capacity, memory.bandwidth, memory.write_bandwidth, links, back)


def _placing(drawn: Draft, tiers: tuple[Tier, ...]) -> Placing:
    """The residents of a graph, always alive, and its activations, each for its time."""
    graph = drawn.graph
    residents = [name for name in graph.structure.residents if graph.nbytes[name]]
    sizes = [graph.nbytes[name] * graph.copies[name] for name in residents]
    if len(graph.ops) > MANY:
        passing: tuple[str, ...] = (ALL,)
        alive = np.array([[drawn.use.peak_activations]])
    else:
        lives = lifetimes(graph, drawn.absent)
        passing, alive = lives.storages, lives.alive
    items = (*residents, *passing)
    place = {name: number for number, name in enumerate(items)}
    moved = np.zeros((2, len(drawn.works), len(items)))
    for number, (work, count) in enumerate(zip(drawn.works, drawn.counts, strict=True)):
        for access in work.accesses:
            item = place.get(access.tensor, len(items) - 1)
            moved[int(access.write), number, item] += count * access.nbytes
    always = np.broadcast_to(np.array(sizes), (len(alive), len(sizes)))
    awaited = np.arange(len(items)) >= len(residents)
    return Placing(items, np.concatenate([always, alive], axis=1), moved[0], moved[1], tiers, awaited)


def _named(placing: Placing, shares: FloatArray, home: str) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Shares by memory of every item that does not lie in ``home`` altogether."""
    for item, row in zip(placing.items, shares.tolist(), strict=True):
        parts = {tier.name: share for tier, share in zip(placing.tiers, row, strict=True) if share > SMALLEST}
        whole = sum(parts.values())
        if set(parts) != {home}:
            yield item, {name: share / whole for name, share in parts.items()}


def _schedule(drawn: Draft, program: Program, route: Route, used: Mapping[str, float]) -> Schedule:
    return Schedule(
        tuple(program.steps),
        tuple(program.repeats),
        route.placement,
        used,
        drawn.footprint,
        drawn.in_use(program.numbers),
        tuple(_notes(used, route.home)),
        bool(program.transfers) and is_step(drawn.graph),
    )


def _notes(used: Mapping[str, float], home: str) -> Iterator[str]:
    for name, nbytes in used.items():
        if name != home and nbytes:
            yield f"{format_quantity(nbytes, 'B')} in {name}"


def is_step(graph: Graph) -> bool:
    """Whether a graph is one of many alike that follow each other, each with one new token over the states."""
    lengths = {op.attrs.get("q_len") for op in graph.ops if op.kind is Kind.ATTENTION}
    tokens = {op.attrs.get("tokens") for op in graph.ops if op.kind is Kind.RECURRENCE}
    return bool(lengths | tokens) and lengths | tokens <= {1}
