"""The mapper `flash`: feed-forward weights on a drive, the neurons that a token needs in memory (arXiv 2312.11514).

A low-rank predictor tells from the output of attention which neurons will be active. Those that none of the last tokens
used are read from the drive and put into a matrix set aside for them, in the place of others. Everything else of the
model stays in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from hwsim.device import Device
from hwsim.dtypes import dtype
from hwsim.errors import DoesNotFitError, InputError
from hwsim.graph import Attribute, Graph, Kind, Repeat, Role
from hwsim.mapper import Flow, Kernel, Launch, Placement, Policy, Schedule, Step, Transfer, Wait
from hwsim.mapper_options import option
from hwsim.mappers.auto import KERNELS, kernels_of
from hwsim.mappers.elsewhere import NO_SPILL, no_drive
from hwsim.mappers.feed_forward import FeedForward, find_feed_forwards
from hwsim.mappers.kernels import Draft, Group, draft, folded
from hwsim.system import System, system_of
from hwsim.units import format_quantity
from hwsim.work import Pattern, Work

# Times that a byte of a new neuron crosses memory: one is deleted by moving the last row into its place (read and
# written), one inserted by copying it from where it was read to (read and written).
MOVED = 4
UPKEEP = "window"  # the path of kernels that keep the matrix of neurons


@dataclass(frozen=True, slots=True)
class FlashOptions:
    """What users may set; shares are of the neurons of a feed-forward layer."""

    active: float = option(0.1, "share that the predictor takes for active, per token", high=1)
    window: int = option(4, "tokens whose neurons stay in memory; 0: a token loads all that it needs")
    growth: float = option(0.5, "k tokens use k**growth times as many neurons as one", high=1)
    loaded: float | None = option(
        None, "share loaded per token, in place of what active, window and growth give", high=1
    )
    kept: float | None = option(None, "share in memory, in place of what active, window and growth give", high=1)
    rank: float = option(0.0, "mean rank of the predictors; 0: what is active is known without")
    bundled: bool = option(True, "a neuron's rows and columns of all matrices lie together on the drive")
    drive: str = option("", "the memory that holds the weights, such as storage.nand; empty: the first drive")
    kernels: str = option("auto", "how ops become kernels", choices=("auto", *KERNELS))

    def used(self, tokens: int) -> float:
        """The share of neurons that so many tokens use together."""
        return min(1.0, self.active * tokens**self.growth) if tokens else 0.0

    def load(self, tokens: int) -> float:
        """The share that the next ``tokens`` read from the drive."""
        return self.used(self.window + tokens) - self.used(self.window) if self.loaded is None else self.loaded

    def resident(self, tokens: int) -> float:
        """The share that is in memory while ``tokens`` are worked on."""
        return max(self.used(self.window), self.used(tokens)) if self.kept is None else self.kept


@dataclass(frozen=True, slots=True)
class Flash:
    """Feed-forward layers from a drive, neuron by neuron."""

    name: ClassVar[str] = "flash"
    Options: ClassVar[type] = FlashOptions
    options: FlashOptions = field(default_factory=FlashOptions)

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """Predict, load, insert, compute, layer by layer; raises `DoesNotFitError` for the memory or the drive, and
        `InputError` for a model without feed-forward layers or a system without a drive."""
        graph, made = folded(graph), kernels_of(self.options.kernels, device)
        groups = made.groups(graph)
        found = find_feed_forwards(graph)
        if not found:
            raise InputError(f"'{graph.name}' has no feed-forward layer that could be read neuron by neuron")
        system = system_of(device)
        layers = _Layers(graph, groups, found, self.options)
        drive = _drive(system, self.options.drive)
        home = device.card.main.name
        steps, repeats, numbers = layers.steps(draft(graph, groups), home, drive, made.launch)
        drawn = draft(graph, groups)
        peak = {home: drawn.use.peak - layers.absent + layers.predictors, drive: layers.nbytes}
        for name, used in peak.items():
            capacity = system.place(name).memory.capacity
            if used > capacity * (1 + 1e-12):
                raise DoesNotFitError(graph.name, used, capacity, name)
        note = f"{format_quantity(layers.nbytes, 'B')} in {drive}, of these {layers.kept:.3g} in {home}"
        notes = (note, *([NO_SPILL] if policy.spill else []))
        footprint = drawn.footprint
        footprint[Role.WEIGHT] = footprint.get(Role.WEIGHT, 0.0) + layers.predictors
        in_use = drawn.in_use(numbers, sum(peak.values()) - drawn.use.peak)
        return Schedule(steps, repeats, Placement(home), peak, footprint, in_use, notes)


def _drive(system: System, name: str) -> str:
    if name:
        return system.place(name).name
    for full, memory in system.memories.items():
        if memory.kind == "storage":
            return system.place(full).name
    raise no_drive(system, "feed-forward weights")


class _Layers:
    """The feed-forward layers of a graph, and what of them lies where."""

    def __init__(self, graph: Graph, groups: tuple[Group, ...], found: tuple[FeedForward, ...], options: FlashOptions):
        self._graph, self._options = graph, options
        number_of = {op: number for number, group in enumerate(groups) for op in group.ops}
        self._first = {min(number_of[op] for op in layer.ops if op in number_of): layer for layer in found}
        self._of = {number_of[op]: layer for layer in found for op in layer.ops if op in number_of}
        self._matrices = {graph.storage(name) for layer in found for name in layer.weights}
        tokens = max(layer.tokens for layer in found)
        self.kept = options.resident(tokens)
        self.nbytes = sum(graph.nbytes[name] * graph.copies[name] for name in self._matrices)
        self.absent = (1.0 - self.kept) * self.nbytes
        self.predictors = sum(
            options.rank
            * (layer.width + layer.hidden)
            * self._element(layer)
            * graph.copies[graph.storage(layer.weights[0])]
            for layer in found
        )

    def _element(self, layer: FeedForward) -> float:
        return dtype(self._graph.tensors[layer.weights[0]].dtype).bits_per_element / 8

    def steps(
        self, drawn: Draft, home: str, drive: str, launch: Launch
    ) -> tuple[tuple[Step, ...], tuple[Repeat, ...], tuple[int, ...]]:
        """All steps, their repetitions, and the number of the kernel that each belongs to."""
        steps: list[Step] = []
        numbers: list[int] = []
        at: list[int] = []
        placement = Placement(home)
        for number, work in enumerate(drawn.works):
            at.append(len(steps))
            if number in self._first:
                layer = self._first[number]
                steps += self._fetch(layer, drawn.mains[number].path, home, drive, len(steps), launch)
            waits = (Wait(len(steps) - 1),) if len(steps) > at[-1] else ()
            kernel = drawn.kernel(number, placement.flows(work), launch)
            if number in self._of:
                kernel = self._thinned(kernel, self._of[number], home)
            steps.append(replace(kernel, waits=waits))
            numbers += [number] * (len(steps) - len(numbers))
        at.append(len(steps))
        repeats = tuple([replace(one, start=at[one.start], stop=at[one.stop]) for one in drawn.repeats])
        return tuple(steps), repeats, tuple(numbers)

    def _fetch(self, layer: FeedForward, path: str, home: str, drive: str, place: int, launch: Launch) -> list[Step]:
        """Predict which neurons a layer needs, read those that are missing, put them in the place of others."""
        element, options = self._element(layer), self._options
        steps: list[Step] = list(self._predict(layer, path, home, element, launch))
        row = layer.width * element
        nbytes = options.load(layer.tokens) * layer.hidden * row * layer.matrices
        if not nbytes:
            return steps
        chunk = row * layer.matrices if options.bundled else row
        waits = (Wait(place + len(steps) - 1),) if place + len(steps) else ()
        steps.append(
            Transfer("load neurons", nbytes, drive, home, Role.WEIGHT, Pattern.GATHER, chunk, path, waits=waits)
        )
        moved = MOVED / 2 * nbytes
        flows = (Flow(home, moved, role=Role.WEIGHT), Flow(home, moved, True, role=Role.WEIGHT))
        attrs: Mapping[str, Attribute] = {"numel": round(moved / element), "strided": False}
        work = Work(dtype=self._graph.tensors[layer.weights[0]].dtype)
        after = (Wait(place + len(steps) - 1),)
        steps.append(Kernel("insert neurons", Kind.COPY, attrs, work, flows, UPKEEP, launch, waits=after))
        return steps

    def _predict(self, layer: FeedForward, path: str, home: str, element: float, launch: Launch) -> tuple[Kernel, ...]:
        """sigmoid(W2 relu(W1 x)): two thin products."""
        rank, tokens = self._options.rank, layer.tokens
        if not rank:
            return ()
        kernels = []
        for inner, outer in ((layer.width, rank), (rank, layer.hidden)):
            attrs: Mapping[str, Attribute] = {
                "batch": 1,
                "m": tokens,
                "n": max(1, round(outer)),
                "k": max(1, round(inner)),
            }
            work = Work(2.0 * tokens * inner * outer, dtype=self._graph.tensors[layer.weights[0]].dtype)
            flows = (
                Flow(home, inner * outer * element, role=Role.WEIGHT),
                Flow(home, tokens * inner * element),
                Flow(home, tokens * outer * element, True),
            )
            kernels.append(Kernel("predict", Kind.MATMUL, attrs, work, flows, path, launch))
        return tuple(kernels)

    def _thinned(self, kernel: Kernel, layer: FeedForward, home: str) -> Kernel:
        """A kernel of a feed-forward layer on the neurons taken for active alone."""
        share, work = self._options.used(layer.tokens), kernel.work
        inside = {self._graph.storage(name) for name in (*layer.inside, *layer.weights)}
        accesses = tuple([replace(a, nbytes=share * a.nbytes) if a.tensor in inside else a for a in work.accesses])
        thin = replace(
            work,
            matmul_flops=share * work.matmul_flops,
            vector_flops=share * work.vector_flops,
            special_ops=share * work.special_ops,
            accesses=accesses,
        )
        attrs = dict(kernel.attrs)
        for name in ("n", "k", "numel"):
            size = attrs.get(name)
            if isinstance(size, int) and (name == "numel" or size % layer.hidden == 0):
                attrs[name] = max(1, round(share * size))
        return replace(kernel, work=thin, attrs=attrs, flows=Placement(home).flows(thin))
