"""Feed-forward layers by their structure: products whose result goes, element by element, into a second product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from hwsim.graph import Graph, Kind, Op, Role

PASSING = frozenset({Kind.ELEMENTWISE, Kind.VIEW, Kind.COPY})


@dataclass(frozen=True, slots=True)
class FeedForward:
    """A layer y = W2 f(W1 x, ...) with more neurons than inputs. ``ops`` are the products and all that lies between,
    ``weights`` the tensors of the products, ``inside`` what passes from the first ones to the last; sizes are those of
    the bound graph."""

    ops: tuple[int, ...]
    weights: tuple[str, ...]
    inside: tuple[str, ...]
    width: int
    hidden: int
    tokens: int
    matrices: int


@lru_cache(maxsize=64)
def find_feed_forwards(graph: Graph) -> tuple[FeedForward, ...]:
    """The feed-forward layers of a bound graph, in order; mixtures of experts are not among them."""
    makers = {name: index for index, op in enumerate(graph.ops) for name in op.outputs}
    found = [_ending_in(graph, index, makers) for index, op in enumerate(graph.ops) if _is_product(graph, op)]
    return tuple(layer for layer in found if layer is not None)


def _is_product(graph: Graph, op: Op) -> bool:
    """Whether an op multiplies activations by a matrix of the model."""
    return op.kind is Kind.MATMUL and "experts" not in op.attrs and len(list(_matrices(graph, op))) == 1


def _matrices(graph: Graph, op: Op) -> Iterator[str]:
    for name in op.inputs[:2]:
        if graph.tensors[graph.storage(name)].role is Role.WEIGHT:
            yield name


def _ending_in(graph: Graph, last: int, makers: dict[str, int]) -> FeedForward | None:
    """The layer whose second product is the op ``last``, if it is one."""
    down = graph.ops[last]
    hidden, width = down.size("k"), down.size("n")
    if hidden <= width:
        return None
    (matrix,) = _matrices(graph, down)
    waiting = [name for name in down.inputs[:2] if name != matrix]
    products: set[int] = set()
    between: set[int] = set()
    inside: dict[str, None] = {}
    while waiting:
        name = waiting.pop()
        index = makers.get(name)
        if name in inside or index is None:
            continue
        op = graph.ops[index]
        if _is_product(graph, op) and op.size("n") % hidden == 0 and op.size("k") == width:
            products.add(index)
        elif op.kind in PASSING:
            between.add(index)
            waiting += [one for one in op.inputs if graph.tensors[graph.storage(one)].role is Role.ACTIVATION]
        else:
            return None
        inside[name] = None
    if not products:
        return None
    ops = tuple(sorted({*products, *between, last}))
    firsts = [next(_matrices(graph, graph.ops[index])) for index in sorted(products)]
    columns = sum(graph.ops[index].size("n") for index in products)
    matrices = 1 + columns // hidden
    return FeedForward(ops, (*firsts, matrix), tuple(inside), width, hidden, down.size("m"), matrices)
