"""Changing a graph before it is mapped: ops put in, tensors added, the repetitions kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from hwsim.graph import Attribute, Graph, Kind, Op, Role, Tensor
from hwsim.sizes import Size


class GraphEdit:
    """A graph in the making; positions are those of the ops of the original."""

    def __init__(self, graph: Graph) -> None:
        self.original = graph
        self.tensors = dict(graph.tensors)
        self._ops = dict(enumerate(graph.ops))
        self._before: defaultdict[int, list[Op]] = defaultdict(list)
        self._after: defaultdict[int, list[Op]] = defaultdict(list)
        self._end: list[Op] = []

    def tensor(
        self, name: str, shape: Sequence[Size], dtype: str, role: Role = Role.ACTIVATION, base: str | None = None
    ) -> str:
        """A new tensor; returns its name."""
        self.tensors[name] = Tensor(name, tuple(shape), dtype, role, base)
        return name

    def change(self, name: str, **fields: object) -> None:
        """A tensor with other fields."""
        self.tensors[name] = replace(self.tensors[name], **fields)  # type: ignore[arg-type]

    def op(self, place: int) -> Op:
        """The op in ``place`` as it is now."""
        return self._ops[place]

    def replace(self, place: int, op: Op) -> None:
        """Another op in the place of one."""
        self._ops[place] = op

    def before(self, place: int, kind: Kind, inputs: Sequence[str], output: str, **attrs: Attribute) -> str:
        """An op ahead of that in ``place``; returns its output."""
        self._before[place].append(self._op(place, kind, inputs, output, attrs))
        return output

    def after(self, place: int, kind: Kind, inputs: Sequence[str], output: str, *more: str, **attrs: Attribute) -> str:
        """An op behind that in ``place``, and behind those put there already; returns its (first) output."""
        op = self._op(place, kind, inputs, output, attrs)
        self._after[place].append(replace(op, outputs=(output, *more)))
        return output

    def append(self, like: int, kind: Kind, inputs: Sequence[str], output: str, **attrs: Attribute) -> str:
        """An op at the end of the graph, with the path of the one in place ``like``; returns its output."""
        self._end.append(self._op(like, kind, inputs, output, attrs))
        return output

    def _op(self, place: int, kind: Kind, inputs: Sequence[str], output: str, attrs: dict[str, Attribute]) -> Op:
        path = self.original.ops[place].path
        return Op(kind, tuple(inputs), (output,), attrs, str(kind), path)

    def graph(self) -> Graph:
        """The graph as it is now; repetitions hold what was put among their ops."""
        ops: list[Op] = []
        starts, stops = [], []
        for place, op in self._ops.items():
            starts.append(len(ops))
            ops += [*self._before[place], op, *self._after[place]]
            stops.append(len(ops))
        repeats = tuple(
            replace(repeat, start=starts[repeat.start], stop=stops[repeat.stop - 1]) for repeat in self.original.repeats
        )
        return replace(self.original, tensors=self.tensors, ops=(*ops, *self._end), repeats=repeats)
