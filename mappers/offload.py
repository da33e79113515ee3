"""The mapper `offload`: layers stream to the main device from a host and drives, for many batches at once.

Shares of weights, cache and activations lie with the device, the host and the drives, as in FlexGen (arXiv 2303.06865),
whose block schedule it follows: the weights of a layer are loaded once for all parts of a batch, cache and activations
for each part, while another part computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from hwsim.device import Device
from hwsim.dtypes import dtype
from hwsim.errors import DoesNotFitError, InputError, Problem
from hwsim.graph import Graph, Role
from hwsim.mapper import Placement, Policy, Schedule
from hwsim.mapper_options import option
from hwsim.mappers.auto import KERNELS, kernels_of
from hwsim.mappers.elsewhere import NO_SPILL, no_drive
from hwsim.mappers.kernels import Draft, draft, folded
from hwsim.mappers.streaming import FIXED, Helper, Program, Route
from hwsim.mappers.tiered import CHUNK, is_step
from hwsim.system import System, system_of
from hwsim.units import format_quantity

PACKED_BITS = 4 + 32 / 64  # group-wise quantisation: 4 bits, and per 64 elements a scale and a minimum in fp16

Shares: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class OffloadOptions:
    """What users may set."""

    weights: tuple[float, float, float] = option(
        (1.0, 0.0, 0.0), "shares of the weights with the device, the host and the drives", high=1
    )
    cache: tuple[float, float, float] = option(
        (1.0, 0.0, 0.0), "shares of the states: KV caches and recurrent ones", high=1
    )
    activations: tuple[float, float, float] = option(
        (1.0, 0.0, 0.0), "shares of what a layer hands on to the next", high=1
    )
    batches: int = option(1, "parts of the batch that run layer by layer together, loading weights once", low=1)
    attention: str = option("device", "where decode steps compute attention", choices=("device", "host"))
    pack_weights: bool = option(False, "weights kept and moved in 4 bits, groups of 64")
    pack_cache: bool = option(False, "states kept and moved in 4 bits, groups of 64")
    buffers: int = option(2, "buffers in the device's memory for each of weights, states and activations", low=1)
    chunk: float | None = option(None, f"{CHUNK}; null: a quarter of the main memory", unit="B", low=1)
    overlap: bool = option(True, "whether copies run beside kernels")
    kernels: str = option("auto", "how ops become kernels", choices=("auto", *KERNELS))

    def __post_init__(self) -> None:
        problems = [
            Problem("shares must add up to 1", path=name, got=f"{sum(shares):.6g}")
            for name, shares in self.shares.items()
            if abs(sum(shares) - 1.0) > 1e-6
        ]
        if self.attention == "host" and self.cache[0]:
            problems.append(
                Problem("attention of the host needs a cache without a share of the device", path="attention")
            )
        if self.attention == "host" and self.pack_cache:
            problems.append(Problem("attention of the host does not unpack the cache", path="attention"))
        if problems:
            raise InputError(*problems)

    @property
    def shares(self) -> Mapping[str, Shares]:
        """The three kinds of shares by option."""
        return {"weights": self.weights, "cache": self.cache, "activations": self.activations}

    @property
    def packed(self) -> Mapping[Role, float]:
        """Bits per element by role."""
        weights = dict.fromkeys(FIXED, PACKED_BITS) if self.pack_weights else {}
        return {**weights, **({Role.STATE: PACKED_BITS} if self.pack_cache else {})}


@dataclass(frozen=True, slots=True)
class Offload:
    """Weights, cache and activations in given shares on three levels; copies beside kernels."""

    name: ClassVar[str] = "offload"
    Options: ClassVar[type] = OffloadOptions
    options: OffloadOptions = field(default_factory=OffloadOptions)

    @property
    def parts(self) -> int:
        """Into how many parts a batch is divided; the graph is that of one part."""
        return self.options.batches

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """Kernels of all parts, and what they load and store; raises `DoesNotFitError` for the level that is too
        small."""
        graph, made = folded(graph), kernels_of(self.options.kernels, device)
        drawn, system = draft(graph, made.groups(graph)), system_of(device)
        levels = _Levels(system, self.options)
        route = levels.route(graph)
        program = Program(drawn, route, made.launch)
        buffers = program.buffers.total(self.options.buffers)
        peak = levels.peak(drawn, program.carried, buffers)
        for name, used in peak.items():
            capacity = system.place(name).memory.capacity
            if used > capacity * (1 + 1e-12):
                what = (
                    f"{graph.name}, with {format_quantity(buffers, 'B')} of buffers,"
                    if name == route.home
                    else graph.name
                )
                raise DoesNotFitError(
                    what, used, capacity, name, "give other levels a share, as weights=[50 %, 50 %, 0]"
                )
        return Schedule(
            tuple(program.steps),
            tuple(program.repeats),
            route.placement,
            peak,
            levels.footprint(drawn),
            drawn.in_use(program.numbers),
            tuple(_notes(peak, route.home, policy)),
            program.transfers and self.options.overlap and is_step(graph),
        )


def _notes(peak: Mapping[str, float], home: str, policy: Policy) -> Iterator[str]:
    for name, used in peak.items():
        if name != home and used:
            yield f"{format_quantity(used, 'B')} in {name}"
    if policy.spill:
        yield NO_SPILL


class _Levels:
    """The memories of the device, the host and the drives of a system."""

    def __init__(self, system: System, options: OffloadOptions) -> None:
        self._system, self._options = system, options
        self.home = system.card.main.name
        self.drives = dict(_drives(system))
        if options.attention == "host" and system.host is None:
            raise InputError(f"'{system.name}' has no host that could compute attention")
        for name, shares in options.shares.items():
            asked = (
                f"{name}=[{', '.join(f'{share:g}' for share in shares)}] (shares of the device, the host, the drives)"
            )
            if shares[1] and system.host is None:
                raise InputError(f"'{system.name}' has no host for {asked}")
            if shares[2] and not self.drives:
                raise no_drive(system, asked)

    def route(self, graph: Graph) -> Route:
        """How kernels come to everything."""
        options, residents = self._options, graph.structure.residents
        weights, cache = self.spread(options.weights), self.spread(options.cache)
        shares = {name: weights if graph.tensors[name].role in FIXED else cache for name in residents}
        kept = {name: parts for name, parts in shares.items() if parts != {self.home: 1.0}}
        far = frozenset(name for parts in shares.values() for name in parts) - {self.home}
        hidden = {name: share for name, share in self.spread(options.activations).items() if name != self.home}
        return Route(
            self.home,
            Placement(self.home, kept),
            far | set(hidden),
            options.buffers,
            options.overlap,
            options.chunk or self._system.card.main.capacity / 4,
            parts=options.batches,
            hidden=hidden,
            packed=options.packed,
            helper=self._helper(),
        )

    def spread(self, shares: Shares) -> dict[str, float]:
        """Shares by memory; the drives take theirs in proportion to their bandwidth."""
        device, host, drives = shares
        parts = {self.home: device, **({self._system.host: host} if self._system.host else {})}
        whole = sum(self.drives.values())
        parts |= {name: drives * rate / whole for name, rate in self.drives.items()}
        return {name: share for name, share in parts.items() if share}

    def peak(self, drawn: Draft, carried: float, buffers: float) -> dict[str, float]:
        """The most bytes in use by memory: everything in its place, and in the device's the buffers, one part's
        activations, and what the layers of all parts hand on."""
        options, use = self._options, drawn.use
        footprint = self.footprint(drawn)
        peak = {self.home: use.peak_activations + buffers}
        kinds = (
            (footprint["weight"] + footprint["buffer"], options.weights),
            (footprint["state"], options.cache),
            (carried * (options.batches if options.activations[0] < 1 else options.batches - 1), options.activations),
        )
        for nbytes, shares in kinds:
            for name, share in self.spread(shares).items():
                peak[name] = peak.get(name, 0.0) + share * nbytes
        return peak

    def footprint(self, drawn: Draft) -> dict[str, float]:
        """Resident bytes by role as they are kept, for all parts, and the most activations of one."""
        graph, packed = drawn.graph, self._options.packed
        found: dict[str, float] = dict.fromkeys(map(str, drawn.use.resident), 0.0)
        for name in graph.structure.residents:
            role = graph.tensors[name].role
            ratio = packed[role] / dtype(graph.tensors[name].dtype).bits_per_element if role in packed else 1.0
            times = graph.copies[name] * (self._options.batches if role is Role.STATE else 1)
            found[role] += graph.nbytes[name] * times * ratio
        return {**found, "activation": drawn.use.peak_activations}

    def _helper(self) -> Helper | None:
        if self._options.attention == "device":
            return None
        full = self._system.host or ""
        device, dot, memory = full.rpartition(".")
        if not dot:
            raise InputError(f"system '{self._system.name}' has no device called 'cpu' that could compute attention")
        return Helper(device, memory, full)


def _drives(system: System) -> Iterator[tuple[str, float]]:
    """Memories of the kind storage with their bandwidth, those of the main device under their own name."""
    for name, memory in system.memories.items():
        device, _, short = name.partition(".")
        if memory.kind == "storage":
            yield (short if device == system.main_name else name), memory.bandwidth
