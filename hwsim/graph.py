"""Tensor, Op and Graph: the only representation of a model in hwsim.

A graph knows nothing about devices. Its ops are of a few kinds; every kind has a fixed set of attributes, all
sizes, from which `hwsim.work` computes what the op must do:

============= =========================================================================================
kind          attributes
============= =========================================================================================
matmul        batch, m, n, k; experts (grouped matmul: m rows spread over this many weight matrices)
conv          batch, in_channels, out_channels, groups, in_size, out_size, kernel (tuples), transposed;
              direction: forward, grad_input or grad_weight
attention     batch, heads, kv_heads, q_len, kv_len, head_dim, v_dim, causal, window (0: none); backward
recurrence    rule, batch, tokens, heads, d_k, d_v, chunk (0: one token after the other); backward
elementwise   function, numel; gaps (operands are not walked over as the result is: gaps, repeated elements, other
              orders), across (one along another dimension)
reduce        function, rows, cols (elements reduced into each output)
softmax       rows, cols; backward
norm          function, rows, cols; backward
scan          function, rows, cols
sort          rows, cols
gather        picks, elements (contiguous elements of each pick)
scatter       picks, elements
copy          numel, strided (the order of the elements changes); run (contiguous elements read; absent: many)
write         numel (in-place into a part of an existing tensor)
fill, random  numel
fft           rows, cols
collective    function, ranks
view          none: free
unknown       none: charged its operand bytes and listed as unmodelled
============= =========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from hwsim.dtypes import dtype
from hwsim.errors import GraphError
from hwsim.sizes import Size, product, symbols_of
from hwsim.value import value

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.binding import Binding


class Role(StrEnum):
    """What a tensor is to the model."""

    INPUT = "input"
    WEIGHT = "weight"
    BUFFER = "buffer"  # part of the model that is not trained
    STATE = "state"  # survives the step: KV cache, recurrent state, optimizer state
    ACTIVATION = "activation"
    OUTPUT = "output"


RESIDENT = (Role.WEIGHT, Role.BUFFER, Role.STATE)  # what exists before and after a run


class Kind(StrEnum):
    """What an op does; the module's docstring lists the attributes of each."""

    MATMUL = "matmul"
    CONV = "conv"
    ATTENTION = "attention"
    RECURRENCE = "recurrence"
    ELEMENTWISE = "elementwise"
    REDUCE = "reduce"
    SOFTMAX = "softmax"
    NORM = "norm"
    SCAN = "scan"
    SORT = "sort"
    GATHER = "gather"
    SCATTER = "scatter"
    COPY = "copy"
    WRITE = "write"
    FILL = "fill"
    RANDOM = "random"
    FFT = "fft"
    COLLECTIVE = "collective"
    VIEW = "view"
    UNKNOWN = "unknown"


MATMUL_KINDS = frozenset({Kind.MATMUL, Kind.CONV, Kind.ATTENTION})

Attribute: TypeAlias = "Size | float | str | bool | tuple[Size, ...]"


@value
class Tensor:
    """A value of the graph.

    ``base`` names the tensor whose storage this one is a view of (None: it owns its storage). ``distinct`` is the
    number of different elements behind ``shape`` where broadcasting repeats them (None: all of them).
    """

    name: str
    shape: tuple[Size, ...]
    dtype: str
    role: Role = Role.ACTIVATION
    base: str | None = None
    distinct: Size | None = None

    @property
    def numel(self) -> Size:
        """Number of elements, repeated ones included."""
        return product(self.shape)

    @property
    def nbytes(self) -> float:
        """Bytes of the distinct elements; the sizes must be bound."""
        elements = self.numel if self.distinct is None else self.distinct
        if not isinstance(elements, int):
            raise GraphError(f"tensor '{self.name}' has the free size {elements!r}: bind the graph first")
        return dtype(self.dtype).bytes_for(elements)


@value
class Op:
    """One operation. ``source`` is its name where it was captured, ``path`` the module it belongs to."""

    kind: Kind
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    source: str = ""
    path: str = ""

    def size(self, name: str) -> int:
        """The bound size attribute ``name``."""
        held = self.attrs.get(name)
        if type(held) is int:  # asked for by the million: neither a bool nor a free size
            return held
        raise GraphError(
            f"{self.kind} op '{self.source}' at '{self.path}': attribute {name} = {held!r} is no bound size"
        )

    def flag(self, name: str) -> bool:
        """The boolean attribute ``name`` (False where it is absent)."""
        return bool(self.attrs.get(name, False))

    def text(self, name: str, default: str = "") -> str:
        """The text attribute ``name``."""
        return str(self.attrs.get(name, default))

    def sizes(self, name: str) -> tuple[int, ...]:
        """The bound tuple attribute ``name``."""
        value = self.attrs.get(name)
        if not isinstance(value, tuple) or not all(isinstance(size, int) for size in value):
            raise GraphError(f"{self.kind} op '{self.source}' at '{self.path}': {name} = {value!r} are no bound sizes")
        return tuple(int(size) for size in value if isinstance(size, int))


@dataclass(frozen=True, slots=True)
class Repeat:
    """``ops[start:stop]`` runs ``count`` times, as identical layers do.

    Weights, buffers and states that the body names exist once per iteration, except those in ``shared``.
    """

    start: int
    stop: int
    count: int
    shared: frozenset[str] = frozenset()


class Structure:
    """What a graph is apart from its sizes, and what follows from that alone.

    Graphs bound from the same one share it. It is hashed by identity, so that caches can be kept by it. The sizes in
    ``tensors`` and ``ops`` are those of one graph among the many: read names, kinds, formats and roles only.
    """

    def __init__(self, graph: Graph) -> None:
        self.tensors, self.ops, self.repeats = graph.tensors, graph.ops, graph.repeats

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How often each op runs."""
        counts = [1] * len(self.ops)
        for repeat in self.repeats:
            for index in range(repeat.start, repeat.stop):
                counts[index] *= repeat.count
        return tuple(counts)

    @cached_property
    def regions(self) -> tuple[Repeat | None, ...]:
        """The repetition that each op belongs to."""
        regions: list[Repeat | None] = [None] * len(self.ops)
        for repeat in self.repeats:
            regions[repeat.start : repeat.stop] = [repeat] * (repeat.stop - repeat.start)
        return tuple(regions)

    @cached_property
    def storages(self) -> Mapping[str, str]:
        """The tensor that owns the storage behind each."""
        return {name: self._storage(name) for name in self.tensors}

    def _storage(self, name: str) -> str:
        base = self.tensors[name].base
        while base is not None:
            name, base = base, self.tensors[base].base
        return name

    @cached_property
    def residents(self) -> tuple[str, ...]:
        """The storages that exist before and after a run."""
        return tuple(name for name, tensor in self.tensors.items() if tensor.base is None and tensor.role in RESIDENT)

    @cached_property
    def copies(self) -> Mapping[str, int]:
        """How many tensors each name stands for: as many as the longest repetition over it has iterations."""
        copies = dict.fromkeys(self.tensors, 1)
        for repeat in self.repeats:
            body = self.ops[repeat.start : repeat.stop]
            made = {name for op in body for name in op.outputs}
            shared = {self.storages[name] for name in repeat.shared}
            for name in {self.storages[name] for op in body for name in (*op.inputs, *op.outputs)} - shared:
                if self.tensors[name].role in RESIDENT or name in made:
                    copies[name] = max(copies[name], repeat.count)
        return copies


@dataclass(frozen=True)
class Graph:
    """Ops in execution order over named tensors.

    ``level`` says how it was captured: ``module`` (as written), ``onnx``, or ``kernel`` (a single kernel spec).
    """

    name: str
    tensors: Mapping[str, Tensor]
    ops: tuple[Op, ...]
    repeats: tuple[Repeat, ...] = ()
    level: str = "module"

    def __hash__(self) -> int:
        """Of what is cheap to look at: caches keep what they make of a graph, by its value."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.repeats, tuple((t.shape, t.dtype) for t in self.tensors.values())))

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Names of the sizes that are still free."""
        sizes = {size for tensor in self.tensors.values() for size in tensor.shape if not isinstance(size, int)}
        return frozenset().union(*(symbols_of(size) for size in sizes))

    @cached_property
    def structure(self) -> Structure:
        """All but the sizes; a bound graph has that of the graph it was bound from."""
        return Structure(self)

    @cached_property
    def elements(self) -> Mapping[str, int]:
        """Elements of each tensor, repeated ones included; the sizes must be bound."""
        return {name: _known(tensor.numel) for name, tensor in self.tensors.items()}

    @cached_property
    def nbytes(self) -> Mapping[str, float]:
        """Bytes of each tensor; the sizes must be bound."""
        return {name: tensor.nbytes for name, tensor in self.tensors.items()}

    @property
    def counts(self) -> tuple[int, ...]:
        """How often each op runs."""
        return self.structure.counts

    @property
    def copies(self) -> Mapping[str, int]:
        """How many tensors each name stands for: more than 1 inside repeated bodies."""
        return self.structure.copies

    @property
    def storages(self) -> Mapping[str, str]:
        """The tensor that owns the storage behind each."""
        return self.structure.storages

    def storage(self, name: str) -> str:
        """The tensor that owns the storage behind ``name``."""
        return self.structure.storages[name]

    def of_role(self, *roles: Role) -> Iterator[Tensor]:
        """Tensors of the given roles that own their storage."""
        return (tensor for tensor in self.tensors.values() if tensor.role in roles and tensor.base is None)

    def bytes_of(self, *roles: Role) -> float:
        """Bytes of all storages of the given roles, every repetition counted."""
        return sum(tensor.nbytes * self.copies[tensor.name] for tensor in self.of_role(*roles))

    def bind(self, **values: int) -> Graph:
        """The same graph with sizes filled in; every symbol needs a value, others are ignored."""
        for name, size in values.items():
            if size < 1 and name in self.symbols:
                raise GraphError(f"size '{name}' must be at least 1; got {size}")
        if not self.symbols:
            return self
        return self._binding(values)

    @cached_property
    def _binding(self) -> Binding:
        from hwsim.binding import Binding

        return Binding(self)

    @property
    def parameters(self) -> int:
        """Number of trained elements."""
        return sum(_known(tensor.numel) * self.copies[tensor.name] for tensor in self.of_role(Role.WEIGHT))

    @property
    def matmul_flops(self) -> float:
        """FLOPs of matrix products, convolutions and attention (the full square), 2 per MAC."""
        from hwsim.work import work_of

        kinds = MATMUL_KINDS
        pairs = zip(self.ops, self.counts, strict=True)
        return sum(count * work_of(op, self).matmul_flops for op, count in pairs if op.kind in kinds)

    @property
    def flops(self) -> float:
        """FLOPs of all ops: matrix, vector and special functions (1 each)."""
        from hwsim.work import work_of

        return sum(count * work_of(op, self).flops for op, count in zip(self.ops, self.counts, strict=True))

    @property
    def unmodelled(self) -> tuple[str, ...]:
        """Source names of ops without a formula, charged their operand bytes only."""
        return tuple(sorted({op.source for op in self.ops if op.kind is Kind.UNKNOWN}))

    def to_frame(self) -> pd.DataFrame:
        """One row per op: kind, path, count, FLOPs by unit, bytes read and written (SI units, one execution)."""
        import pandas as pd

        from hwsim.work import work_of

        rows = []
        for op, count in zip(self.ops, self.counts, strict=True):
            work = work_of(op, self)
            rows.append(
                {
                    "kind": str(op.kind),
                    "source": op.source,
                    "path": op.path,
                    "count": count,
                    "shape": "x".join(str(size) for size in self.tensors[op.outputs[0]].shape) if op.outputs else "",
                    "dtype": work.dtype,
                    "matmul_flops": work.matmul_flops,
                    "vector_flops": work.vector_flops,
                    "special_ops": work.special_ops,
                    "read_bytes": work.read_bytes,
                    "write_bytes": work.write_bytes,
                }
            )
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        free = f", free sizes {', '.join(sorted(self.symbols))}" if self.symbols else ""
        return f"Graph({self.name!r}: {len(self.ops)} ops, {sum(self.counts)} executed{free})"


def _known(size: Size) -> int:
    if isinstance(size, int):
        return size
    raise GraphError(f"the size {size!r} is free: bind the graph first")
