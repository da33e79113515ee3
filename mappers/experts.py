"""The mapper `experts`: weights of mixtures lie with the host or on a drive, and come when tokens need them.

A layer's own gate decides which experts it needs (on demand), or that of the layer before (pre-gated, Hwang et al.,
arXiv 2308.12066), whose computation then hides the copy. As in the artifact (ranggihwang/Pregated_MoE, fetcher.cc and
moe_kernels.cu) there is one copy stream, experts come into an arena and are copied into their place, and the host waits
for them before it launches their products; the first layer with a mixture fetches on demand, the last one prefetches
nothing, and an encoder, which writes no state, always fetches on demand.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import ClassVar

from hwsim.device import Device
from hwsim.errors import InputError, Problem
from hwsim.graph import Graph
from hwsim.mapper import Kernel, Launch, Placement, Policy, Schedule, Step, Transfer, Wait
from hwsim.mapper_options import option
from hwsim.mappers.auto import KERNELS
from hwsim.mappers.elsewhere import place_rest
from hwsim.mappers.expert_cache import POLICIES, Demand, ExpertCache, whole_fetches
from hwsim.mappers.expert_layers import Mixture, all_experts, executions, find_mixtures
from hwsim.mappers.kernels import Draft, draft, folded
from hwsim.placement import HOST, Placed
from hwsim.system import System, system_of

STREAM = "expert copies"
SEPARATE = 16  # experts of a layer up to which each is a copy of its own; more are one, as simulating thousands is slow


@dataclass(frozen=True, slots=True)
class ExpertsOptions:
    """When experts come to the device, and which of them stay."""

    mode: str = option(
        "on-demand", "when experts are fetched", choices=("on-demand", "pre-gated", "prefetch-all", "gpu-only")
    )
    source: str = option(HOST, "memory that holds all experts, as device.memory")
    cache: int = option(0, "experts that stay on the device beside those in use")
    evict: str = option("lru", "which of them leaves first", choices=POLICIES)
    routing: str = option("uniform", "how tokens choose", choices=("uniform", "zipf"))
    skew: float = option(1.0, "exponent of zipf: the r-th expert is chosen in proportion to 1/r**skew")
    misses: str = option("simulated", "how misses of the cache are found", choices=("simulated", "analytic"))
    steps: int = option(512, "steps of the simulated stream of choices, the first half of which warms the cache", low=2)
    seed: int = option(0, "of that stream")
    bounced: bool = option(False, "experts of a drive are read into the memory of the host first, and copied then")
    staged: bool = option(True, "experts come into an arena and are copied into their place")
    synced: bool = option(True, "the host waits for the experts of a layer before it launches them")
    kernels: str = option("eager", "the mapper that groups ops", choices=tuple(KERNELS))

    def __post_init__(self) -> None:
        if self.cache and self.mode in ("prefetch-all", "gpu-only"):
            raise InputError(Problem(path="cache", got=str(self.cache), expected=f"0 in the mode {self.mode}"))

    @property
    def exponent(self) -> float:
        """Of the popularity of experts: 0 where all are alike."""
        return self.skew if self.routing == "zipf" else 0.0


@dataclass(frozen=True, slots=True)
class Experts:
    """Experts in far memory over the kernels of another mapper."""

    name: ClassVar[str] = "experts"
    Options: ClassVar[type] = ExpertsOptions
    options: ExpertsOptions = field(default_factory=ExpertsOptions)

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """Kernels and fetches; raises `DoesNotFitError` where device or far memory are too small."""
        graph = folded(graph)
        base = KERNELS[self.options.kernels]()
        drawn = draft(graph, base.groups(graph))
        mixtures = find_mixtures(drawn)
        if not mixtures:
            schedule = base.schedule(graph, device, policy)
            return replace(schedule, notes=(*schedule.notes, f"{graph.name} has no experts: nothing is fetched"))
        if self.options.mode == "gpu-only":
            return base.schedule(graph, device, policy)
        plan = make_plan(drawn, mixtures, self.options)
        placed = _place(plan, device, policy, self.options.source)
        route = _route(system_of(device), self.options)
        steps = _Steps(plan, placed.placement, route, base.launch, self.options).all()
        in_use = _per_step(steps, drawn.in_use(plan.order, plan.buffer))
        return Schedule(steps, (), placed.placement, placed.peak, drawn.footprint, in_use, placed.notes)


@dataclass(frozen=True, slots=True)
class Plan:
    """Layers with mixtures as they follow each other, the experts that each fetches, and ``buffer`` bytes for them."""

    drawn: Draft
    order: tuple[int, ...]
    layers: tuple[Mixture, ...]
    fetches: tuple[float, ...]
    buffer: float


def make_plan(drawn: Draft, mixtures: tuple[Mixture, ...], options: ExpertsOptions) -> Plan:
    """What ``options`` make of ``mixtures``."""
    order = tuple(executions(drawn))
    firsts = {mixture.first: mixture for mixture in mixtures}
    layers = tuple(firsts[number] for number in order if number in firsts)
    demands = [Demand(layer.experts, layer.rows, options.exponent) for layer in layers]
    if options.mode == "prefetch-all":
        active = missed = tuple(float(layer.experts) for layer in layers)
    else:
        active, missed = tuple(demand.distinct for demand in demands), _misses(demands, options)
    encoder = sum(not layer.ahead for layer in layers)
    fetches = (*whole_fetches(missed[:encoder]), *whole_fetches(missed[encoder:]))
    return Plan(drawn, order, layers, fetches, _buffer(layers, active, options))


def _misses(demands: list[Demand], options: ExpertsOptions) -> tuple[float, ...]:
    cache = ExpertCache(options.cache, options.evict)
    if options.misses == "analytic":
        return cache.expected_misses(demands)
    return cache.misses(demands, options.steps, options.seed)


def _buffer(layers: tuple[Mixture, ...], active: tuple[float, ...], options: ExpertsOptions) -> float:
    """Bytes on the device for experts: those of a layer in use, those of the next one that come meanwhile (Eq. 1 of
    arXiv 2308.12066), the cache, and an arena that one expert passes through."""
    used = [count * layer.expert_bytes for count, layer in zip(active, layers, strict=True)]
    most = max(used)
    if options.mode != "on-demand":
        pairs = zip(pairwise(layers), pairwise(used), strict=True)
        most = max([most, *[sum(both) for (first, second), both in pairs if first.ahead and second.ahead]])
    largest = max(layer.expert_bytes for layer in layers)
    return most + options.cache * largest + (largest if options.staged else 0.0)


def _place(plan: Plan, device: Device, policy: Policy, source: str) -> Placed:
    """All but the experts placed as ever, with room for those in use; the experts in ``source``."""
    graph = plan.drawn.graph
    experts = all_experts(graph, plan.layers)
    needed = sum(graph.nbytes[name] * graph.copies[name] for name in experts)
    return place_rest(plan.drawn, experts, {source: needed}, plan.buffer, device, policy)


def _copies(fetches: float) -> tuple[float, ...]:
    """The experts in each of the copies that bring ``fetches``: one, and what is left of an expected number."""
    if fetches > SEPARATE:
        return (fetches,)
    part = fetches % 1
    return (*(1.0,) * int(fetches), *([part] if part else []))


def _route(system: System, options: ExpertsOptions) -> tuple[str, ...]:
    """The memories that an expert passes through, from where it lies to its place."""
    main = system.card.main.name
    over = [system.host] if options.bounced and system.host not in (None, options.source) else []
    return (options.source, *filter(None, over), main, *([main] if options.staged else []))


def _per_step(steps: tuple[Step, ...], alive: tuple[float, ...]) -> tuple[float, ...]:
    """The memory in use during each step: of a transfer, that of the kernel which comes next."""
    numbers = iter(alive)
    found: list[float] = []
    waiting = 0
    for step in steps:
        waiting += 1
        if isinstance(step, Kernel):
            found += [next(numbers)] * waiting
            waiting = 0
    return tuple(found)


class _Steps:
    """Kernels in their order, and the fetches among them."""

    def __init__(
        self, plan: Plan, placement: Placement, route: tuple[str, ...], launch: Launch, options: ExpertsOptions
    ) -> None:
        self._plan = plan
        self._placement = placement
        self._route = route
        self._launch = launch
        self._options = options
        self._steps: list[Step] = []
        self._arrived: dict[int, int | None] = {}  # of each layer: the step that puts its last expert into place

    def all(self) -> tuple[Step, ...]:
        """Every step of one pass."""
        drawn = self._plan.drawn
        firsts = {layer.first for layer in self._plan.layers}
        kernels = [
            drawn.kernel(number, self._placement.flows(work), self._launch) for number, work in enumerate(drawn.works)
        ]
        layer = 0
        for number in self._plan.order:
            kernel = kernels[number]
            if number in firsts:
                kernel = replace(kernel, waits=self._fetch(layer), synced=self._options.synced)
                layer += 1
            self._steps.append(kernel)
        return tuple(self._steps)

    def _fetch(self, layer: int) -> tuple[Wait, ...]:
        """Fetch what the gate of ``layer`` has just decided; returns what the experts of ``layer`` wait for."""
        routed = (Wait(len(self._steps) - 1),) if self._steps else ()
        if layer not in self._arrived:
            self._arrived[layer] = self._copy(layer, routed)
        following = layer + 1
        if following < len(self._plan.layers) and self._decides_for(layer, following):
            self._arrived[following] = self._copy(following, routed)
        arrived = self._arrived[layer]
        return routed if arrived is None else (*routed, Wait(arrived))

    def _decides_for(self, layer: int, following: int) -> bool:
        layers = self._plan.layers
        return self._options.mode != "on-demand" and layers[layer].ahead and layers[following].ahead

    def _copy(self, number: int, waits: tuple[Wait, ...]) -> int | None:
        """The copies of a layer's experts; the last step, None where the device has them all."""
        layer, fetches = self._plan.layers[number], self._plan.fetches[number]
        if not fetches:
            return None
        for share in _copies(fetches):
            nbytes = share * layer.expert_bytes
            for source, target in pairwise(self._route):
                name = "put an expert into place" if source == target else "fetch an expert"
                self._steps.append(Transfer(name, nbytes, source, target, path=layer.path, stream=STREAM, waits=waits))
                waits = (Wait(len(self._steps) - 1),)
        return len(self._steps) - 1
