"""What a mapper makes of a graph: kernels and transfers in order, where every tensor lives, how much memory is in use.

A mapper is the only place that knows both a graph and a device. It never computes time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from hwsim.graph import Attribute, Graph, Kind, Repeat, Role
from hwsim.value import value
from hwsim.work import Pattern, Work

if TYPE_CHECKING:
    from hwsim.device import Device


class Launch(StrEnum):
    """How a kernel reaches the device: issued by the host one at a time, or replayed from a recorded graph."""

    EAGER = "eager"
    GRAPH = "graph"


@value
class Flow:
    """Bytes that a kernel moves from or to one memory in one pattern; ``granule`` as in `hwsim.work.Access`."""

    memory: str
    nbytes: float
    write: bool = False
    pattern: Pattern = Pattern.STREAM
    granule: float = 0.0
    role: Role = Role.ACTIVATION


@value
class Wait:
    """A step that waits starts after step ``step`` of its schedule has ended, in the iteration ``back`` before its own.

    Outside the waiting step's repetition it is the last but ``back`` execution of ``step`` so far. Executions before
    the first one have ended at the start: of ``n`` buffers, the first ``n`` are free.
    """

    step: int
    back: int = 0


@value
class Kernel:
    """What a device launches: one op, or several fused ones with the ``kind`` and ``attrs`` of the main one.

    In a system ``device`` names the one that runs it (empty: the main one), and its flows name memories of that device.
    A device runs one kernel at a time, of those that could start the highest ``priority`` first, ``background`` last.
    ``stream`` (empty: that of its device) and ``waits`` say what it must not overtake; the host of a ``synced`` kernel
    waits for that too before it issues it.
    """

    name: str
    kind: Kind
    attrs: Mapping[str, Attribute]
    work: Work
    flows: tuple[Flow, ...]
    path: str = ""
    launch: Launch = Launch.GRAPH
    device: str = ""
    stream: str = ""
    waits: tuple[Wait, ...] = ()
    priority: int = 0
    background: bool = False
    synced: bool = False

    def size(self, name: str, default: int = 0) -> int:
        """The size attribute ``name`` of the main op."""
        value = self.attrs.get(name, default)
        return value if isinstance(value, int) else default

    @property
    def read_bytes(self) -> float:
        """Bytes read from all memories."""
        return sum(flow.nbytes for flow in self.flows if not flow.write)

    @property
    def write_bytes(self) -> float:
        """Bytes written to all memories."""
        return sum(flow.nbytes for flow in self.flows if flow.write)

    @property
    def nbytes(self) -> float:
        """Bytes read and written."""
        return sum(flow.nbytes for flow in self.flows)


@value
class Transfer:
    """Bytes copied from one memory of a system to another, ``device.memory`` (or a memory of the main device).

    It occupies both memories and every link between them while kernels go on. ``pattern`` and ``granule`` (bytes of a
    contiguous run, 0: the whole) say how the source is read (``gather``), the target written (``scatter``), or both.
    Bandwidth goes to the highest ``priority`` first, to ``background`` transfers last, and is shared fairly among
    equals. Transfers of one ``stream`` (empty: one per source and target) follow each other.
    """

    name: str
    nbytes: float
    source: str
    target: str
    role: Role = Role.WEIGHT
    pattern: Pattern = Pattern.STREAM
    granule: float = 0.0
    path: str = ""
    stream: str = ""
    waits: tuple[Wait, ...] = ()
    priority: int = 0
    background: bool = False


Step: TypeAlias = "Kernel | Transfer"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where tensors live: for each storage the shares of its bytes in the memories that hold it.

    Storages that are not named (activations) live in ``default``, but for the share that ``elsewhere`` names.
    """

    default: str
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    elsewhere: Mapping[str, float] = field(default_factory=dict)

    def of(self, storage: str) -> Mapping[str, float]:
        """Memory name -> share of the bytes of ``storage``."""
        return self.shares.get(storage) or self.unnamed

    @property
    def unnamed(self) -> Mapping[str, float]:
        """Memory name -> share of the bytes of every storage that is not named."""
        return {self.default: 1.0 - sum(self.elsewhere.values()), **self.elsewhere}

    def flows(self, work: Work) -> tuple[Flow, ...]:
        """The traffic of ``work`` by memory, accesses alike in memory, role and pattern joined."""
        joined: dict[tuple[str, bool, Pattern, float, Role], float] = {}
        if not (self.shares or self.elsewhere):  # as on most devices: asked for by every kernel
            memory = self.default
            for access in work.accesses:
                key = (memory, access.write, access.pattern, access.granule, access.role)
                joined[key] = joined.get(key, 0.0) + access.nbytes
        else:
            shares, unnamed = self.shares, self.unnamed
            for access in work.accesses:
                for memory, share in shares.get(access.tensor, unnamed).items():
                    key = (memory, access.write, access.pattern, access.granule, access.role)
                    joined[key] = joined.get(key, 0.0) + share * access.nbytes
        return tuple(
            [
                Flow(memory, nbytes, write, pattern, granule, role)
                for (memory, write, pattern, granule, role), nbytes in joined.items()
            ]
        )


@dataclass(frozen=True, slots=True)
class Schedule:
    """Kernels and transfers in the order of issue; ``repeats`` index steps as those of a graph index ops.

    ``peak`` is the most bytes in use at once per memory, ``footprint`` the resident bytes by role, ``in_use`` the bytes
    in use in all memories while each step runs (in the last iteration of a repetition, the fullest).
    ``notes`` say what the user should know: spilled tensors, formats that the device lacks.
    ``steady`` schedules follow each other many times over, as decode steps do: waits then reach into the ones before,
    and the time is the period of one more.
    """

    steps: tuple[Step, ...]
    repeats: tuple[Repeat, ...]
    placement: Placement
    peak: Mapping[str, float]
    footprint: Mapping[str, float]
    in_use: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    steady: bool = False

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The steps that are kernels."""
        return tuple([step for step in self.steps if isinstance(step, Kernel)])

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """The steps that are transfers."""
        return tuple([step for step in self.steps if isinstance(step, Transfer)])

    @property
    def counts(self) -> tuple[int, ...]:
        """How often each step runs."""
        counts = [1] * len(self.steps)
        for repeat in self.repeats:
            for index in range(repeat.start, repeat.stop):
                counts[index] *= repeat.count
        return tuple(counts)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user may ask of any mapper: ``spill`` lets what does not fit overflow into the next memory or host."""

    spill: bool = False


class Mapper(Protocol):
    """Turns a bound graph into a schedule for a device."""

    @property
    def name(self) -> str:
        """The name that users type."""
        ...

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """Place the tensors of ``graph``, group its ops into kernels; raises `DoesNotFitError`."""
        ...


@runtime_checkable
class Parted(Protocol):
    """A mapper that runs a batch in equal parts: it is given the graph of one part."""

    @property
    def parts(self) -> int:
        """How many parts; the batch must be a multiple."""
        ...
