"""Lowering of dispatched ops to the kinds of `hwsim.graph`: the registry of rules and what a rule is given.

A rule is a function of a `Call`, registered for the op names that it serves, and emits one or several ops. The rules
themselves stand by family in `aten_matrix`, `aten_vector` and `aten_memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch

from hwsim.errors import GraphError
from hwsim.graph import Attribute, Kind
from hwsim.sizes import Size, product


class Sink(Protocol):
    """Where a rule's ops go: the recorder."""

    def size(self, value: int | torch.SymInt) -> Size: ...

    def emit(
        self,
        kind: Kind,
        inputs: Iterable[torch.Tensor],
        outputs: Iterable[torch.Tensor],
        source: str,
        attrs: dict[str, Attribute],
    ) -> None: ...

    def alias(self, tensor: torch.Tensor, of: torch.Tensor) -> None: ...


@dataclass(frozen=True, slots=True)
class OpInfo:
    """What is known of an op before any call: its schema and its rule."""

    name: str  # namespace::name, without overload and without the underscore of an in-place form
    source: str
    positions: dict[str, int]
    defaults: dict[str, Any]
    written: tuple[str, ...]  # arguments that are changed in place
    unread: tuple[str, ...]  # of these, the ones that are only written
    composite: bool  # made of other ops
    rule: Rule | None


@dataclass(frozen=True, slots=True)
class Call:
    """One dispatched op: its arguments by schema name, its results, and a way to emit what it becomes."""

    info: OpInfo
    args: Sequence[Any]
    kwargs: dict[str, Any]
    out: Any
    sink: Sink

    def arg(self, name: str) -> Any:
        """The argument called ``name`` in the schema, or its default."""
        if name in self.kwargs:
            return self.kwargs[name]
        position = self.info.positions[name]
        return self.args[position] if position < len(self.args) else self.info.defaults.get(name)

    def shape(self, tensor: torch.Tensor) -> tuple[Size, ...]:
        """The sizes of ``tensor``."""
        return tuple(map(self.sink.size, tensor.shape))

    def numel(self, tensor: torch.Tensor) -> Size:
        """The number of elements of ``tensor``."""
        return product(self.shape(tensor))

    @property
    def inputs(self) -> list[torch.Tensor]:
        """All tensors that the op reads."""
        unread = [self.arg(name) for name in self.info.unread]
        return [t for t in _flat((*self.args, *self.kwargs.values())) if not any(t is u for u in unread)]

    @property
    def outputs(self) -> list[torch.Tensor]:
        """All tensors that the op makes or changes."""
        written = list(_flat(self.arg(name) for name in self.info.written))
        return written or list(_flat((self.out,)))

    @property
    def result(self) -> torch.Tensor:
        """The first output."""
        return self.outputs[0]

    def emit(
        self,
        kind: Kind,
        inputs: Iterable[torch.Tensor | None] | None = None,
        outputs: Iterable[torch.Tensor | None] | None = None,
        **attrs: Attribute,
    ) -> None:
        """Record an op of ``kind``; operands default to all tensors of the call."""
        read = self.inputs if inputs is None else [t for t in inputs if t is not None]
        made = self.outputs if outputs is None else [t for t in outputs if t is not None]
        self.sink.emit(kind, read, made, self.info.source, attrs)


Rule: TypeAlias = Callable[[Call], None]
_RULES: dict[str, Rule] = {}


def lowers(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the ops ``names``, separated by blanks (of namespace aten unless they name another)."""

    def register(rule: Rule) -> Rule:
        for name in " ".join(names).split():
            full = name if "::" in name else f"aten::{name}"
            if full in _RULES:
                raise GraphError(f"a lowering of {full} exists already")
            _RULES[full] = rule
        return rule

    return register


def aten_ops(names: str) -> frozenset[str]:
    """Full names of the ops of namespace aten in ``names``, separated by blanks."""
    return frozenset(f"aten::{name}" for name in names.split())


# In-place ops that write their first argument without reading it.
OVERWRITING = aten_ops(
    "copy_ fill_ zero_ normal_ uniform_ bernoulli_ random_ exponential_ log_normal_ cauchy_ geometric_"
)


def describe(func: Any) -> OpInfo:
    """The `OpInfo` of an op overload."""
    schema = func._schema
    full = schema.name
    written = tuple(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    bare = full.removesuffix("_") if written and full not in _RULES else full
    rule = _RULES.get(full) or _RULES.get(bare)
    return OpInfo(
        name=full if full in _RULES else bare,
        source=full.removeprefix("aten::").removeprefix("hwsim_trace::"),
        positions={a.name: index for index, a in enumerate(schema.arguments)},
        defaults={a.name: a.default_value for a in schema.arguments if a.has_default_value()},
        written=written,
        unread=tuple(name for name in written if name == "out" or full in OVERWRITING),
        composite=rule is None and func.namespace == "aten" and func._can_decompose(),
        rule=rule,
    )


def _flat(values: Iterable[Any]) -> Iterable[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _flat(value)
