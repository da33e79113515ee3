"""Filling in the free sizes of a graph: compiled once per graph, then run for every case."""

from __future__ import annotations

from collections.abc import Mapping

from hwsim.dtypes import dtype
from hwsim.graph import Attribute, Graph, Op, Tensor
from hwsim.sizes import Expr, Tape
from hwsim.value import value


@value
class BoundOps:
    """Ops with the bytes of their operands, as `hwsim.work` takes them; the shapes of the tensors are free."""

    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    storages: Mapping[str, str]
    nbytes: Mapping[str, float]


class Binding:
    """A graph with free sizes as a tape of its sizes, and where on it those of each tensor and op stand."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._tape = Tape()
        self._tensors = [
            (tensor, dtype(tensor.dtype).bytes_for, *self._of_tensor(tensor)) for tensor in graph.tensors.values()
        ]
        self._ops = [(op, self._of_attributes(op.attrs)) for op in graph.ops]

    def __call__(self, values: Mapping[str, int]) -> Graph:
        """The graph under ``values``; it shares the structure and knows its elements and bytes already."""
        sizes = self._tape.run(values)
        tensors: dict[str, Tensor] = {}
        elements: dict[str, int] = {}
        nbytes: dict[str, float] = {}
        for tensor, bytes_for, shape, distinct, numel, moved in self._tensors:
            name = tensor.name
            elements[name] = sizes[numel]
            nbytes[name] = bytes_for(sizes[moved])
            if shape is not None:
                bound = None if distinct is None else sizes[distinct]
                shape_of = tuple([sizes[place] for place in shape])
                tensor = Tensor(name, shape_of, tensor.dtype, tensor.role, tensor.base, bound)
            tensors[name] = tensor
        graph = Graph(self._graph.name, tensors, self._bound_ops(sizes), self._graph.repeats, self._graph.level)
        # Cached properties that need not be worked out again.
        graph.__dict__.update(structure=self._graph.structure, elements=elements, nbytes=nbytes, symbols=frozenset())
        return graph

    def without_shapes(self, values: Mapping[str, int]) -> BoundOps:
        """The ops under ``values`` and the bytes that they move, where nobody asks for more."""
        sizes = self._tape.run(values)
        nbytes = {tensor.name: bytes_for(sizes[moved]) for tensor, bytes_for, _, _, _, moved in self._tensors}
        return BoundOps(self._bound_ops(sizes), self._graph.tensors, self._graph.storages, nbytes)

    def _bound_ops(self, sizes: list[int]) -> tuple[Op, ...]:
        return tuple([op if free is None else _bound_op(op, free, sizes) for op, free in self._ops])

    def _of_tensor(self, tensor: Tensor) -> tuple[list[int] | None, int | None, int, int]:
        """Places of the shape (None: nothing is free), of the distinct elements, of all and of those in memory."""
        shape = [self._tape.add(size) for size in tensor.shape]
        numel = self._tape.add(tensor.numel)
        distinct = None if tensor.distinct is None else self._tape.add(tensor.distinct)
        fixed = distinct is None and all(isinstance(size, int) for size in tensor.shape)
        return None if fixed else shape, distinct, numel, numel if distinct is None else distinct

    def _of_attributes(self, attrs: Mapping[str, Attribute]) -> list[tuple[str, int | list[int]]] | None:
        """Places of the attributes that are free."""
        places: list[tuple[str, int | list[int]]] = []
        for name, held in attrs.items():
            if isinstance(held, Expr):
                places.append((name, self._tape.add(held)))
            elif isinstance(held, tuple) and not all(isinstance(size, int) for size in held):
                places.append((name, [self._tape.add(size) for size in held]))
        return places or None


def _bound_op(op: Op, free: list[tuple[str, int | list[int]]], sizes: list[int]) -> Op:
    attrs = dict(op.attrs)
    for name, place in free:
        attrs[name] = sizes[place] if isinstance(place, int) else tuple([sizes[each] for each in place])
    return Op(op.kind, op.inputs, op.outputs, attrs, op.source, op.path)
