"""The mapper `instorage`: keys and values lie on drives, which compute attention over them or hand them to the GPU.

Computational storage (InstInfer, arXiv 2409.04992): queries go to the drives over the switch, each drive attends to its
heads at the bandwidth of its flash channels, results come back; what is new is written behind. With the GPU attending
instead, the cache of every layer is read over links: from drives as FlexGen does, or from the memory of the host.

SparF, a flash-aware SparQ (arXiv 2312.04985): some components of all keys tell which tokens matter; of these, keys and
values are read by whole pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from hwsim.device import Device
from hwsim.errors import InputError, Problem
from hwsim.graph import Graph, Repeat, Role
from hwsim.mapper import Flow, Kernel, Launch, Placement, Policy, Schedule, Step, Transfer, Wait
from hwsim.mapper_options import option
from hwsim.mappers.auto import KERNELS
from hwsim.mappers.elsewhere import place_rest
from hwsim.mappers.kernels import Draft, Group, draft, folded
from hwsim.mappers.kv_caches import Cache, find_caches
from hwsim.system import System, system_of
from hwsim.work import Pattern, Work


@dataclass(frozen=True, slots=True)
class InStorageOptions:
    """Where the cache lies, who attends to it, and how much of it is read."""

    attention: str = option("drive", "what computes attention over cached tokens", choices=("drive", "gpu"))
    at: tuple[str, ...] = option((), "memories that share the cache by heads, as device.memory (none: all drives)")
    chosen: float = option(1.0, "share of the tokens that are attended to (SparF); 1: all, without choosing", high=1)
    components: float = option(0.125, "share of the components of all keys that the choice reads", high=1)
    page: int = option(16, "tokens of one head whose keys, or values, share a page of flash", low=1)
    pages: float | None = option(
        None,
        "share of the pages that hold chosen tokens (null: 1-(1-chosen)**page, as if chosen independently)",
        high=1,
    )
    key_copies: int = option(1, "times that keys are stored: 2 lie ready by token and by component", low=1)
    retries: float = option(0.0, "reads that fail and are repeated, per read of a page")
    buffers: int = option(2, "layers whose cache the GPU has room for, to read ahead or write behind", low=1)
    kernels: str = option("fused", "the mapper that groups ops", choices=tuple(KERNELS))

    def __post_init__(self) -> None:
        if not self.chosen:
            raise InputError(Problem(path="chosen", got="0", expected="more than 0: attention needs some tokens"))

    @property
    def touched(self) -> float:
        """The share of pages of keys and values that are read."""
        if self.chosen == 1:
            return 1.0
        return 1 - (1 - self.chosen) ** self.page if self.pages is None else self.pages

    @property
    def read_share(self) -> float:
        """Bytes read over those of all keys and values."""
        choosing = self.components / 2 if self.chosen < 1 else 0.0
        return (choosing + self.touched) * (1 + self.retries)


@dataclass(frozen=True, slots=True)
class InStorage:
    """The cache on drives over the kernels of another mapper."""

    name: ClassVar[str] = "instorage"
    Options: ClassVar[type] = InStorageOptions
    options: InStorageOptions = field(default_factory=InStorageOptions)

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """Kernels of GPU and drives, and what goes between them; raises `DoesNotFitError` and `InputError`."""
        graph = folded(graph)
        base = KERNELS[self.options.kernels]()
        groups = base.groups(graph)
        drawn = draft(graph, groups)
        caches = find_caches(graph)
        if not caches:
            return base.schedule(graph, device, policy)
        system = system_of(device)
        homes = _homes(system, self.options)
        kept = {name: _copies(caches, name, self.options) for cache in caches for name in (cache.keys, cache.values)}
        stored = sum(graph.nbytes[name] * graph.copies[name] * copies for name, copies in kept.items())
        share = {name: stored / len(homes) for name in homes}
        placed = place_rest(drawn, set(kept), share, _buffer(graph, caches, self.options), device, policy)
        steps = _Steps(drawn, groups, caches, placed.placement, system, homes, self.options, base.launch)
        steps.emit()
        resident = sum(drawn.use.resident.values())
        in_use = tuple([resident + drawn.alive[number] for number in steps.kernel_of])
        footprint = {**drawn.use.resident, "activation": drawn.use.peak_activations}
        steady = self.options.attention == "gpu" and not any(cache.filled for cache in caches)
        repeats = steps.repeats
        return Schedule(
            tuple(steps.steps), repeats, placed.placement, placed.peak, footprint, in_use, placed.notes, steady
        )


def _homes(system: System, options: InStorageOptions) -> tuple[str, ...]:
    """The memories that hold the cache."""
    if options.at:
        for name in options.at:
            system.place(name)
        return options.at
    main = f"{system.main_name}."
    drives = [
        name for name, memory in system.memories.items() if memory.kind == "storage" and not name.startswith(main)
    ]
    if not drives:
        example = "{gpu: nvidia-a6000, storage: [inst-csd]}"
        raise InputError(f"'{system.name}' has no drive for the cache: name a system such as {example}")
    return tuple(drives)


def _copies(caches: tuple[Cache, ...], name: str, options: InStorageOptions) -> int:
    """How often a storage is kept; one that holds keys and values alike counts as keys."""
    return options.key_copies if any(cache.keys == name for cache in caches) else 1


def _buffer(graph: Graph, caches: tuple[Cache, ...], options: InStorageOptions) -> float:
    """Bytes on the GPU for caches that come to it, or wait to be written."""
    sizes = [0.0]
    for cache in caches:
        nbytes = graph.nbytes[cache.keys] + graph.nbytes[cache.values]
        if cache.filled:
            sizes.append(nbytes)
        elif options.attention == "gpu":
            sizes.append(nbytes * min(1.0, options.read_share))
        else:
            sizes.append(nbytes / cache.rows)
    return options.buffers * max(sizes)


class _Steps:
    """The steps of a graph; every kernel of the draft is one, but for attention over cached tokens."""

    def __init__(
        self,
        drawn: Draft,
        groups: tuple[Group, ...],
        caches: tuple[Cache, ...],
        placement: Placement,
        system: System,
        homes: tuple[str, ...],
        options: InStorageOptions,
        launch: Launch,
    ) -> None:
        number_of = {op: number for number, group in enumerate(groups) for op in group.ops}
        self._reads = {number_of[place]: cache for cache in caches if not cache.filled for place in cache.readers}
        self._writes = {number_of[cache.written]: cache for cache in caches}
        self._drawn = drawn
        self._placement = placement
        self._system = system
        self._homes = homes
        self._options = options
        self._launch = launch
        self._main = drawn_main(placement, caches)
        self._starts: list[int] = []
        self._pending: tuple[Wait, ...] = ()
        self.steps: list[Step] = []
        self.kernel_of: list[int] = []  # of each step

    def emit(self) -> None:
        """All steps, in order."""
        for number, work in enumerate(self._drawn.works):
            self._starts.append(len(self.steps))
            kernel = self._drawn.kernel(number, self._placement.flows(work), self._launch)
            kernel = replace(kernel, waits=self._pending)
            self._pending = ()
            if number not in self._reads:
                self._add(kernel, number)
            elif self._options.attention == "drive":
                self._attend_there(kernel, number)
            else:
                self._read(kernel, number)
            if number in self._writes:
                self._store(self._writes[number], number)
        self._starts.append(len(self.steps))

    @property
    def repeats(self) -> tuple[Repeat, ...]:
        """The repetitions of the draft over the steps."""
        return tuple(
            replace(repeat, start=self._starts[repeat.start], stop=self._starts[repeat.stop])
            for repeat in self._drawn.repeats
        )

    def _add(self, step: Step, number: int) -> Wait:
        self.steps.append(step)
        self.kernel_of.append(number)
        return Wait(len(self.steps) - 1)

    def _attend_there(self, kernel: Kernel, number: int) -> None:
        """Queries to the drives, attention of their heads there, results back; the next kernel waits for these."""
        count = len(self._homes)
        asked, answered = _activations(kernel.work, False) / count, _activations(kernel.work, True) / count
        before = (*kernel.waits, *((Wait(len(self.steps) - 1),) if self.steps else ()))
        results = []
        sent = [self._add(self._query(home, asked, before, kernel.path), number) for home in self._homes]
        for home, query in zip(self._homes, sent, strict=True):
            there = self._add(replace(self._in_storage(kernel, home), waits=(query,)), number)
            back = Transfer("results of attention", answered, self._engine(home), self._main, Role.ACTIVATION)
            results.append(self._add(replace(back, path=kernel.path, waits=(there,)), number))
        self._pending = tuple(results)

    def _query(self, home: str, nbytes: float, waits: tuple[Wait, ...], path: str) -> Transfer:
        return Transfer("queries", nbytes, self._main, self._engine(home), Role.ACTIVATION, path=path, waits=waits)

    def _engine(self, home: str) -> str:
        """The memory from which the engine of a drive works: its fastest one."""
        node = self._system.place(home).node
        memories = self._system.device(node).card.memories
        return f"{node}.{max(memories, key=lambda memory: memory.bandwidth).name}"

    def _in_storage(self, kernel: Kernel, home: str) -> Kernel:
        """The part of an attention that one drive computes."""
        count, options = len(self._homes), self._options
        attrs = dict(kernel.attrs)
        for name in ("heads", "kv_heads"):
            attrs[name] = -(-kernel.size(name) // count)
        node, memory = self._system.place(home).node, self._system.place(home).memory.name
        cached = sum(access.nbytes for access in kernel.work.accesses if access.role is Role.STATE) / count
        engine = self._engine(home).rpartition(".")[2]
        flows = (
            Flow(memory, cached * options.read_share, role=Role.STATE),
            Flow(engine, _activations(kernel.work, False) / count),
            Flow(engine, _activations(kernel.work, True) / count, True),
        )
        work = _part(kernel.work, 1 / count, options)
        return replace(kernel, attrs=attrs, work=work, flows=flows, device=node, launch=Launch.GRAPH)

    def _read(self, kernel: Kernel, number: int) -> None:
        """The cache of a layer to the GPU, as early as a buffer is free; attention waits for all of it."""
        cached = sum(access.nbytes for access in kernel.work.accesses if access.role is Role.STATE)
        nbytes = cached * self._options.read_share / len(self._homes)
        reader = len(self.steps) + len(self._homes)
        free = self._free_buffer(number, reader)
        loads = [
            self._add(
                Transfer("read the cache", nbytes, home, self._main, Role.STATE, path=kernel.path, waits=free), number
            )
            for home in self._homes
        ]
        flows = tuple(
            replace(flow, nbytes=flow.nbytes * min(1.0, self._options.read_share)) if flow.role is Role.STATE else flow
            for flow in kernel.flows
        )
        work = _part(kernel.work, 1.0, self._options)
        self._add(replace(kernel, work=work, flows=flows, waits=(*kernel.waits, *loads)), number)

    def _free_buffer(self, number: int, step: int) -> tuple[Wait, ...]:
        """That ``step``, which empties a buffer, has done so for an earlier layer of its repetition."""
        repeated = any(repeat.start <= number < repeat.stop for repeat in self._drawn.repeats)
        return (Wait(step, self._options.buffers),) if repeated else ()

    def _store(self, cache: Cache, number: int) -> None:
        """What a kernel has added to a cache goes to the drives behind everything else."""
        count = len(self._homes)
        after = (Wait(len(self.steps) - 1),)
        added = {name: self._drawn.graph.nbytes[name] for name in (cache.keys, cache.values)}
        copies = {name: _copies((cache,), name, self._options) for name in added}
        nbytes = sum(added[name] * copies[name] for name in added) / (1 if cache.filled else cache.rows)
        path = self._drawn.mains[number].path
        writer = len(self.steps) - 1
        stores = [
            self._add(
                Transfer(
                    "write the cache",
                    nbytes / count,
                    self._main,
                    home,
                    Role.STATE,
                    Pattern.STREAM,
                    path=path,
                    waits=after,
                    background=True,
                ),
                number,
            )
            for home in self._homes
        ]
        if cache.filled:
            free = [wait for store in stores for wait in self._free_buffer(number, store.step)]
            kernel = self.steps[writer]
            self.steps[writer] = replace(kernel, waits=(*kernel.waits, *free))


def drawn_main(placement: Placement, caches: tuple[Cache, ...]) -> str:
    """The memory of the GPU where kernels find the cache."""
    (name,) = placement.of(caches[0].keys)
    return name


def _activations(work: Work, write: bool) -> float:
    """Bytes of queries (or results) that a kernel reads (or writes)."""
    return sum(access.nbytes for access in work.accesses if access.write is write and access.role is not Role.STATE)


def _part(work: Work, share: float, options: InStorageOptions) -> Work:
    """The arithmetic of ``share`` of the heads over the tokens that are chosen, the choice included."""
    products = (options.components + 2 * options.chosen) / 2 if options.chosen < 1 else 1.0
    scores = 1 + options.chosen if options.chosen < 1 else 1.0
    return replace(
        work,
        matmul_flops=share * products * work.matmul_flops,
        vector_flops=share * scores * work.vector_flops,
        special_ops=share * scores * work.special_ops,
    )
