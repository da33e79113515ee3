"""From kernels to steps: what lies far away is copied to the main memory before a kernel needs it, and back after.

Weights are loaded once for all parts of a batch, states and activations for each part. A load waits for a free buffer,
a kernel for its loads; what overlaps is up to the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from hwsim.dtypes import dtype
from hwsim.graph import RESIDENT, Attribute, Kind, Repeat, Role
from hwsim.mapper import Flow, Kernel, Launch, Placement, Step, Transfer, Wait
from hwsim.mappers.kernels import Draft
from hwsim.work import Pattern, Work

FIXED = frozenset({Role.WEIGHT, Role.BUFFER})  # the same for all parts of a batch
PASSING = frozenset({Role.ACTIVATION, Role.INPUT, Role.OUTPUT})
ONE_WAY = {Pattern.GATHER: Pattern.STREAM, Pattern.SCATTER: Pattern.STREAM}  # a copy in the buffer is contiguous


@dataclass(frozen=True, slots=True)
class Helper:
    """A second device that computes the attention of decode steps where the cache lies. ``memory`` is written as
    its kernels name it, ``full`` as transfers do."""

    device: str
    memory: str
    full: str


@dataclass(frozen=True, slots=True)
class Route:
    """How kernels of the main device, which find all they need in ``home``, come to what lies in ``far`` memories.

    An operand of more than ``chunk`` bytes passes through a buffer of that size while its kernel runs. ``hidden`` are
    shares of the activations between layers, by far memory. ``packed`` gives bits per element, by role, of what is kept
    in a narrower format than kernels use. ``parts`` is how many batches run layer by layer together.
    """

    home: str
    placement: Placement
    far: frozenset[str]
    buffers: int = 2
    overlap: bool = True
    chunk: float = inf
    parts: int = 1
    hidden: Mapping[str, float] = field(default_factory=dict)
    packed: Mapping[Role, float] = field(default_factory=dict)
    helper: Helper | None = None

    def stored(self, role: Role, kept: str) -> float:
        """Bytes that lie in memory for each byte that a kernel in the format ``kept`` sees."""
        return self.packed[role] / dtype(kept).bits_per_element if role in self.packed else 1.0


@dataclass(slots=True)
class Buffers:
    """The most bytes of one buffer in the main memory: for the weights of a layer, for the states of a kernel, and for
    what layers hand on; of what passes in pieces, of spilled activations and of what is unpacked, all used at once."""

    weights: float = 0.0
    states: float = 0.0
    hidden: float = 0.0
    passing: float = 0.0
    unpacked: float = 0.0

    def total(self, count: int) -> float:
        """Bytes of ``count`` buffers."""
        return count * (self.weights + self.states + self.hidden) + self.passing + self.unpacked


@dataclass(slots=True)
class _Pending:
    """A load that waits until the kernel ``number`` of ``part`` has been done, ``back`` iterations before."""

    step: int
    number: int
    part: int
    back: int


class Program:
    """The steps of a draft on a route, made region by region."""

    def __init__(self, drawn: Draft, route: Route, launch: Launch) -> None:
        self.steps: list[Step] = []
        self.repeats: list[Repeat] = []
        self.numbers: list[int] = []  # of the kernel of the draft that each step belongs to
        self.buffers = Buffers()
        self.carried = 0.0  # bytes that layers hand on, of one part
        self._draft, self._route, self._launch = drawn, route, launch
        self._kernel = -1  # the last one of the main device
        self._kept: list[int] = []  # stores that the next loads of activations wait for
        self._results: list[int] = []  # transfers that the next kernel of the main device waits for
        self._pending: list[_Pending] = []
        position = 0
        for repeat in drawn.repeats:
            self._region(range(position, repeat.start), None)
            self._region(range(repeat.start, repeat.stop), repeat)
            position = repeat.stop
        self._region(range(position, len(drawn.works)), None)

    @property
    def transfers(self) -> bool:
        """Whether anything has to be moved."""
        return any(isinstance(step, Transfer) for step in self.steps)

    def _region(self, numbers: range, repeat: Repeat | None) -> None:
        if not numbers:
            return
        start, before = len(self.steps), self._kernel
        at: dict[tuple[int, int], int] = {}
        loads = {number: self._weights(number) for number in numbers}
        self.buffers.weights = max(self.buffers.weights, sum(self._nbytes(steps) for steps in loads.values()))
        early = [] if self._route.overlap else [step for steps in loads.values() for step in steps]
        carried = _carried(self._draft, numbers, repeat) if repeat else 0.0
        self.carried = max(self.carried, carried)
        for part in range(self._route.parts):
            came = self._hidden(carried, numbers[0], inwards=True)
            for number in numbers:
                first = [*came, *early] if number == numbers[0] else []
                at[number, part] = self._part(number, part, [*loads[number], *first])
            went = self._hidden(carried, numbers[-1], inwards=False)
            for load, store in zip(came, went, strict=True):
                self._wait(load, Wait(store, 1))
                self._free(load, numbers[-1], part)
        self._settle(at, repeat is not None)
        if repeat:
            for step in self._results:
                self._wait(at[numbers[0], 0], Wait(step, 1))
            self.repeats.append(replace(repeat, start=start, stop=len(self.steps)))
            if not self._route.overlap:
                self._close(start, before)

    def _settle(self, at: Mapping[tuple[int, int], int], repeated: bool) -> None:
        """Give the loads of a region their waits for buffers, now that the numbers of all steps are known."""
        for one in self._pending:
            user = at[one.number, one.part]
            back = one.back if repeated or user < one.step else max(1, one.back - 1)
            self._wait(one.step, Wait(user, back))
        self._pending = []

    def _free(self, step: int, number: int, part: int) -> None:
        """A load into the buffer that the kernel ``number`` of the part so many buffers before has used last."""
        passes, user = divmod(part - self._route.buffers, self._route.parts)
        self._pending.append(_Pending(step, number, user, -passes))

    def _close(self, start: int, before: int) -> None:
        """Without overlap an iteration begins when all of the one before is done."""
        ends = range(self._kernel, len(self.steps))
        for step in range(start, len(self.steps)):
            for end in ends:
                self._wait(step, Wait(end, 1))
            if before >= 0:
                self._wait(step, Wait(before))
            if isinstance(self.steps[step], Kernel):
                break

    def _wait(self, step: int, wait: Wait) -> None:
        found = self.steps[step]
        if wait not in found.waits:
            self.steps[step] = replace(found, waits=(*found.waits, wait))

    def _nbytes(self, steps: Iterable[int]) -> float:
        return sum(step.nbytes for step in (self.steps[index] for index in steps) if isinstance(step, Transfer))

    def _add(self, step: Step, number: int) -> int:
        self.steps.append(step)
        self.numbers.append(number)
        return len(self.steps) - 1

    def _copy(self, name: str, flow: Flow, nbytes: float, number: int, waits: Sequence[int]) -> int:
        """A transfer of a flow's bytes between the far memory that it names and the main one."""
        home, role = self._route.home, flow.role
        source, target = (home, flow.memory) if flow.write else (flow.memory, home)
        if not self._route.overlap:
            waits = [*waits, *([self._kernel] if self._kernel >= 0 else [])]
        kind = "weights" if role in FIXED else "states" if role is Role.STATE else "activations"
        return self._add(
            Transfer(
                name,
                nbytes,
                source,
                target,
                role,
                flow.pattern,
                flow.granule,
                self._draft.mains[number].path,
                f"{kind} {source} to {target}",
                tuple([Wait(step) for step in dict.fromkeys(waits)]),
            ),
            number,
        )

    def _weights(self, number: int) -> list[int]:
        """Loads of the far weights of a kernel, for all parts of the batch."""
        found = []
        for flow in self._flows(number):
            if self._far(flow) and flow.role in FIXED and not flow.write and not self._large(flow, number):
                found.append(self._copy("load weights", flow, self._packed(flow, number), number, ()))
                last = self._route.parts - 1
                self._pending.append(_Pending(found[-1], number, last, self._route.buffers))
        return found

    def _far(self, flow: Flow) -> bool:
        return flow.memory in self._route.far

    def _large(self, flow: Flow, number: int) -> bool:
        """Whether a flow passes through a buffer in pieces while its kernel runs."""
        return self._packed(flow, number) > self._route.chunk

    def _part(self, number: int, part: int, loads: list[int]) -> int:
        """A kernel for one part of the batch, with what it loads and stores; returns its step."""
        if self._route.helper and self._helps(number):
            return self._attend(number)
        flows, before = self._flows(number), self._kernel
        reads = [flow for flow in flows if self._far(flow) and not flow.write]
        writes = [flow for flow in flows if self._far(flow) and flow.write]
        pieces = [self._pass(flow, number) for flow in reads if self._large(flow, number)]
        whole = [flow for flow in reads if flow.role not in FIXED and not self._large(flow, number)]
        loads = loads + [self._load(flow, number, part) for flow in whole]
        self._buffer([*reads, *writes], number)
        self._unpack(number, flows, loads)
        waits = dict.fromkeys([*loads, *self._results])
        kernel = self._draft.kernel(number, self._near(flows), self._launch)
        self._kernel = done = self._add(replace(kernel, waits=tuple([Wait(step) for step in waits])), number)
        self._results = pieces
        for flow in writes:
            self._store(flow, number, before)
        return done

    def _buffer(self, far: Sequence[Flow], number: int) -> None:
        """Room for the far states and activations of a kernel, and for what passes in pieces."""
        at_once = [flow for flow in far if flow.role in PASSING or self._large(flow, number)]
        passing = sum(min(self._packed(flow, number), self._route.chunk) for flow in at_once)
        states = sum(self._packed(flow, number) for flow in far if flow.role is Role.STATE and flow not in at_once)
        self.buffers.passing = max(self.buffers.passing, passing)
        self.buffers.states = max(self.buffers.states, states)

    def _pass(self, flow: Flow, number: int) -> int:
        """A load in pieces, beside its kernel, after the kernel before; the next kernel waits for it."""
        name = "reload" if flow.role in PASSING else "pass"
        return self._copy(name, flow, self._packed(flow, number), number, self._made(flow))

    def _made(self, flow: Flow) -> list[int]:
        """What must be done before far bytes that kernels have made can be read."""
        stored = self._kept if flow.role in PASSING else []
        return [*stored, *([self._kernel] if self._kernel >= 0 else [])]

    def _load(self, flow: Flow, number: int, part: int) -> int:
        """A load of states, as early as a buffer is free, or of activations, once they are there."""
        if flow.role in PASSING:
            return self._copy("reload", flow, self._packed(flow, number), number, self._made(flow))
        step = self._copy("load states", flow, self._packed(flow, number), number, ())
        self._free(step, number, part)
        return step

    def _store(self, flow: Flow, number: int, before: int) -> None:
        """What a kernel has written goes to its place, in pieces beside it where it is much; activations are read from
        there again."""
        if flow.role in self._route.packed:
            self._kernel = self._add(self._repack("quantize", flow, number), number)
        large = self._large(flow, number)
        name = "spill" if flow.role in PASSING else "store"
        waits = [self._kernel] if not large else [before] if before >= 0 else []
        step = self._copy(name, flow, self._packed(flow, number), number, waits)
        if flow.role in PASSING:
            self._kept = [*self._kept[-1:], step]
        if large or not self._route.overlap or self._route.helper:
            self._results.append(step)

    def _hidden(self, carried: float, number: int, inwards: bool) -> list[int]:
        """What layers hand on, for one part: loaded before the first kernel of a layer, stored after the last one."""
        steps = []
        for memory, share in self._route.hidden.items():
            if carried * share:
                flow = Flow(memory, carried * share, not inwards, role=Role.ACTIVATION)
                name, waits = ("load hidden", []) if inwards else ("store hidden", [self._kernel])
                steps.append(self._copy(name, flow, flow.nbytes, number, waits))
        self.buffers.hidden = max(self.buffers.hidden, self._nbytes(steps))
        return steps

    def _helps(self, number: int) -> bool:
        """Whether the second device computes this kernel: the attention of one new token over a cache."""
        main = self._draft.mains[number]
        reads = any(a.role is Role.STATE and not a.write for a in self._draft.works[number].accesses)
        return main.kind is Kind.ATTENTION and main.attrs.get("q_len") == 1 and reads

    def _attend(self, number: int) -> int:
        """Attention on the second device: what it needs goes there, the result comes back."""
        helper = self._route.helper
        assert helper is not None
        flows = self._flows(number)
        near = [flow for flow in flows if flow.role is not Role.STATE]
        waits = [self._kernel, *self._results]
        sent = self._send(number, sum(f.nbytes for f in near if not f.write), self._route.home, helper.full, waits)
        needs = [sent]
        for flow in flows:
            if flow.role is Role.STATE and flow.memory != helper.full:
                step = self._send(number, self._packed(flow, number), flow.memory, helper.full, [self._kernel])
                needs.append(step)
        there = tuple([replace(flow, memory=helper.memory) for flow in flows])
        kernel = self._draft.kernel(number, there, Launch.GRAPH)
        step = self._add(replace(kernel, device=helper.device, waits=tuple([Wait(need) for need in needs])), number)
        made = sum(flow.nbytes for flow in near if flow.write)
        self._results = [self._send(number, made, helper.full, self._route.home, [step])]
        return step

    def _send(self, number: int, nbytes: float, source: str, target: str, waits: Sequence[int]) -> int:
        path = self._draft.mains[number].path
        kept = tuple([Wait(step) for step in waits if step >= 0])
        return self._add(Transfer("send", nbytes, source, target, Role.ACTIVATION, path=path, waits=kept), number)

    def _unpack(self, number: int, flows: Sequence[Flow], loads: list[int]) -> None:
        """Packed operands are written out in the kernel's format before it runs."""
        packed = [flow for flow in flows if flow.role in self._route.packed and not flow.write]
        for flow in packed:
            kernel = self._repack("dequantize", flow, number)
            self._kernel = self._add(replace(kernel, waits=tuple([Wait(step) for step in loads])), number)
        self.buffers.unpacked = max(self.buffers.unpacked, sum(flow.nbytes for flow in packed))

    def _repack(self, function: str, flow: Flow, number: int) -> Kernel:
        """A kernel from the narrow format to that of the kernel ``number``, or back."""
        kept, home = self._draft.works[number].dtype, self._route.home
        elements = round(flow.nbytes * 8 / dtype(kept).bits_per_element)
        narrow, wide = self._packed(flow, number), flow.nbytes
        source, target = (wide, narrow) if flow.write else (narrow, wide)
        flows = (Flow(home, source, role=flow.role), Flow(home, target, True, role=flow.role))
        work = Work(
            vector_flops=(3 if flow.write else 2) * elements, special_ops=float(elements) * flow.write, dtype=kept
        )
        attrs: dict[str, Attribute] = {"function": function, "numel": elements}
        return Kernel(function, Kind.ELEMENTWISE, attrs, work, flows, self._draft.mains[number].path, self._launch)

    def _packed(self, flow: Flow, number: int) -> float:
        return flow.nbytes * self._route.stored(flow.role, self._draft.works[number].dtype)

    def _flows(self, number: int) -> tuple[Flow, ...]:
        return self._route.placement.flows(self._draft.works[number])

    def _near(self, flows: Sequence[Flow]) -> tuple[Flow, ...]:
        """The flows of a kernel once everything is in its place: copies in buffers are contiguous."""
        joined: dict[Flow, float] = {}
        for flow in flows:
            if flow.memory in self._route.far:
                pattern = ONE_WAY.get(flow.pattern, flow.pattern)
                granule = 0.0 if flow.pattern in ONE_WAY else flow.granule
                flow = replace(flow, memory=self._route.home, pattern=pattern, granule=granule)
            key = replace(flow, nbytes=0.0)
            joined[key] = joined.get(key, 0.0) + flow.nbytes
        return tuple([replace(flow, nbytes=nbytes) for flow, nbytes in joined.items()])


def _carried(drawn: Draft, numbers: range, repeat: Repeat) -> float:
    """Bytes that an iteration takes over from the one before: read in it, made before it, and not the same for all."""
    made: set[str] = set()
    taken: dict[str, float] = {}
    for number in numbers:
        for access in drawn.works[number].accesses:
            if access.role in RESIDENT or access.tensor in repeat.shared:
                continue
            if access.write:
                made.add(access.tensor)
            elif access.tensor not in made:
                taken[access.tensor] = drawn.graph.nbytes[access.tensor]
    return sum(taken.values())
