"""The mapper `instorage`: keys and values lie on drives, which compute attention over them or hand them to the GPU.

Computational storage (InstInfer, arXiv 2409.04992): queries go to the drives over the switch, each drive attends to its
heads at the bandwidth of its flash channels, results come back; what is new is written behind. With the GPU attending
instead, the cache of every layer is read over links: from drives as FlexGen does, or from the memory of the host.

SparF, a flash-aware SparQ (arXiv 2312.04985): some components of all keys tell which tokens matter; of these, keys and
values are read by whole pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import ClassVar

from hwsim.device import Device
from hwsim.errors import InputError, Problem
from hwsim.graph import Graph, Repeat, Role
from hwsim.mapper import Flow, Kernel, Launch, Placement, Policy, Schedule, Step, Transfer, Wait
from hwsim.mapper_options import option
from hwsim.mappers.auto import KERNELS
from hwsim.mappers.elsewhere import no_drive, place_rest
from hwsim.mappers.kernels import Draft, Group, draft, folded
from hwsim.mappers.kv_caches import Cache, find_caches
from hwsim.system import System, system_of
from hwsim.work import Work


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
        steps = _Steps(_Scene(drawn, placed.placement, system, homes, self.options, base.launch), caches, groups)
        return Schedule(
            tuple(steps.steps),
            steps.repeats,
            placed.placement,
            placed.peak,
            drawn.footprint,
            drawn.in_use(steps.kernel_of),
            placed.notes,
            steady=self.options.attention == "gpu" and not any(cache.filled for cache in caches),
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
        raise no_drive(system, "the cache", "inst-csd")
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


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the steps are made of and for."""

    drawn: Draft
    placement: Placement
    system: System
    homes: tuple[str, ...]
    options: InStorageOptions
    launch: Launch

    def kernel(self, number: int) -> Kernel:
        """Kernel ``number`` as the GPU would run it."""
        work = self.drawn.works[number]
        return self.drawn.kernel(number, self.placement.flows(work), self.launch)

    def engine(self, home: str) -> str:
        """The memory from which the engine of a drive works: its fastest one."""
        node = self.system.place(home).node
        memories = self.system.device(node).card.memories
        return f"{node}.{max(memories, key=lambda memory: memory.bandwidth).name}"

    def repeated(self, number: int) -> bool:
        """Whether kernel ``number`` belongs to a repetition."""
        return any(repeat.start <= number < repeat.stop for repeat in self.drawn.repeats)


class _Steps:
    """The steps of a graph, made at once; every kernel of the draft is one, but for attention over cached tokens."""

    def __init__(self, scene: _Scene, caches: tuple[Cache, ...], groups: tuple[Group, ...]) -> None:
        self._scene = scene
        (self._main,) = scene.placement.of(caches[0].keys)
        self._pending: tuple[Wait, ...] = ()  # of the next kernel
        self._starts: list[int] = []  # of each kernel of the draft
        self.steps: list[Step] = []
        self.kernel_of: list[int] = []  # of each step
        number_of = {op: number for number, group in enumerate(groups) for op in group.ops}
        read = {number_of[place] for cache in caches if not cache.filled for place in cache.readers}
        written = {number_of[cache.written]: cache for cache in caches}
        for number in range(len(scene.drawn.works)):
            self._starts.append(len(self.steps))
            kernel = replace(scene.kernel(number), waits=self._pending)
            self._pending = ()
            if number not in read:
                self._add(kernel, number)
            elif scene.options.attention == "drive":
                self._attend_there(kernel, number)
            else:
                self._read(kernel, number)
            if number in written:
                self._store(written[number], number)
        self._starts.append(len(self.steps))

    @property
    def repeats(self) -> tuple[Repeat, ...]:
        """The repetitions of the draft over the steps."""
        return tuple(
            replace(repeat, start=self._starts[repeat.start], stop=self._starts[repeat.stop])
            for repeat in self._scene.drawn.repeats
        )

    def _add(self, step: Step, number: int) -> Wait:
        self.steps.append(step)
        self.kernel_of.append(number)
        return Wait(len(self.steps) - 1)

    def _attend_there(self, kernel: Kernel, number: int) -> None:
        """Queries to the drives, attention of their heads there, results back; the next kernel waits for these."""
        scene, count = self._scene, len(self._scene.homes)
        asked, answered = _activations(kernel.work, False) / count, _activations(kernel.work, True) / count
        before = (*kernel.waits, *self._computed())
        results = []
        for home in scene.homes:
            engine = scene.engine(home)
            query = Transfer("queries", asked, self._main, engine, Role.ACTIVATION, path=kernel.path, waits=before)
            part = _in_storage(kernel, scene, home)
            there = self._add(replace(part, waits=(self._add(query, number),)), number)
            back = Transfer("results of attention", answered, engine, self._main, Role.ACTIVATION, path=kernel.path)
            results.append(self._add(replace(back, waits=(there,)), number))
        self._pending = tuple(results)

    def _computed(self) -> tuple[Wait, ...]:
        """The last kernel of the GPU, behind which the cache may still be written."""
        steps = range(len(self.steps) - 1, -1, -1)
        done = (Wait(at) for at in steps if isinstance(step := self.steps[at], Kernel) and not step.device)
        return tuple(islice(done, 1))

    def _read(self, kernel: Kernel, number: int) -> None:
        """The cache of a layer to the GPU, as early as a buffer is free; attention waits for all of it."""
        scene = self._scene
        share = scene.options.read_share
        cached = sum(access.nbytes for access in kernel.work.accesses if access.role is Role.STATE)
        free = self._free_buffer(number, len(self.steps) + len(scene.homes))
        load = Transfer("read the cache", cached * share / len(scene.homes), "", self._main, Role.STATE, waits=free)
        loads = [self._add(replace(load, source=home, path=kernel.path), number) for home in scene.homes]
        flows = tuple(
            replace(flow, nbytes=flow.nbytes * min(1.0, share)) if flow.role is Role.STATE else flow
            for flow in kernel.flows
        )
        work = _part(kernel.work, 1.0, scene.options)
        self._add(replace(kernel, work=work, flows=flows, waits=(*kernel.waits, *loads)), number)

    def _free_buffer(self, number: int, step: int) -> tuple[Wait, ...]:
        """That ``step``, which empties a buffer, has done so for an earlier layer of its repetition."""
        return (Wait(step, self._scene.options.buffers),) if self._scene.repeated(number) else ()

    def _store(self, cache: Cache, number: int) -> None:
        """What a kernel has added to a cache goes to the drives behind everything else."""
        scene, writer = self._scene, len(self.steps) - 1
        sizes = {name: scene.drawn.graph.nbytes[name] for name in (cache.keys, cache.values)}
        stored = sum(nbytes * _copies((cache,), name, scene.options) for name, nbytes in sizes.items())
        added = stored if cache.filled else stored / cache.rows
        store = Transfer("write the cache", added / len(scene.homes), self._main, "", Role.STATE, background=True)
        store = replace(store, path=scene.drawn.mains[number].path, waits=(Wait(writer),))
        stores = [self._add(replace(store, target=home), number) for home in scene.homes]
        if cache.filled:
            free = [wait for each in stores for wait in self._free_buffer(number, each.step)]
            kernel = self.steps[writer]
            self.steps[writer] = replace(kernel, waits=(*kernel.waits, *free))


def _in_storage(kernel: Kernel, scene: _Scene, home: str) -> Kernel:
    """The part of an attention that one drive computes: as many heads as each of the others."""
    count, place = len(scene.homes), scene.system.place(home)
    attrs = {**kernel.attrs, **{name: -(-kernel.size(name) // count) for name in ("heads", "kv_heads")}}
    cached = sum(access.nbytes for access in kernel.work.accesses if access.role is Role.STATE) / count
    engine = scene.engine(home).rpartition(".")[2]
    flows = (
        Flow(place.memory.name, cached * scene.options.read_share, role=Role.STATE),
        Flow(engine, _activations(kernel.work, False) / count),
        Flow(engine, _activations(kernel.work, True) / count, True),
    )
    work = _part(kernel.work, 1 / count, scene.options)
    return replace(kernel, attrs=attrs, work=work, flows=flows, device=place.node, launch=Launch.GRAPH)


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
