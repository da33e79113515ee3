"""The key/value caches of a graph: what attention reads of the state that the same graph writes."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.graph import Graph, Kind, Op, Role


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys and values of one layer (of all iterations alike), as storages.

    ``rows`` is the number of tokens it has room for; ``filled`` tells that the graph writes them all, as a prefill
    does. ``notes`` are states that hold a number per token and head. ``readers`` and ``written`` are places of ops.
    """

    keys: str
    values: str
    notes: tuple[str, ...]
    batch: int
    heads: int
    rows: int
    filled: bool
    readers: tuple[int, ...]
    written: int

    @property
    def storages(self) -> tuple[str, ...]:
        """Keys, values (once, where they are the same) and notes."""
        return tuple(dict.fromkeys((self.keys, self.values, *self.notes)))


def find_caches(graph: Graph) -> tuple[Cache, ...]:
    """All caches of ``graph`` that it writes to and attends to, in the order of their first reader."""
    written = _writes(graph)
    readers: dict[tuple[str, str], list[int]] = {}
    for place, op in enumerate(graph.ops):
        if op.kind is Kind.ATTENTION and not op.flag("backward") and len(op.inputs) > 2:
            pair = (graph.storage(op.inputs[1]), graph.storage(op.inputs[2]))
            if all(name in written and graph.tensors[name].role is Role.STATE for name in pair):
                readers.setdefault(pair, []).append(place)
    found = [_cache(graph, pair, places, written) for pair, places in readers.items()]
    return tuple(cache for cache in found if cache is not None)


def rows_axis(shape: tuple[object, ...], rows: int) -> int | None:
    """Which axis of a cache counts tokens: the last but one if it has ``rows``, else the first that does."""
    if len(shape) > 1 and shape[-2] == rows:
        return len(shape) - 2
    return next((axis for axis, size in enumerate(shape) if size == rows), None)


def _writes(graph: Graph) -> dict[str, tuple[int, bool]]:
    """Storage -> the last op that writes to it, and whether it writes all."""
    written: dict[str, tuple[int, bool]] = {}
    for place, op in enumerate(graph.ops):
        for name in op.outputs if op.kind is not Kind.VIEW else ():
            storage = graph.storage(name)
            written[storage] = place, graph.nbytes[name] == graph.nbytes[storage]
    return written


def _cache(
    graph: Graph, pair: tuple[str, str], places: list[int], written: dict[str, tuple[int, bool]]
) -> Cache | None:
    keys, values = pair
    op: Op = graph.ops[places[0]]
    shape, rows = graph.tensors[keys].shape, op.size("kv_len")
    axis = rows_axis(shape, rows)
    if axis is None or rows_axis(graph.tensors[values].shape, rows) is None:
        return None
    notes = tuple(
        name
        for name in written
        if graph.tensors[name].role is Role.STATE
        and graph.tensors[name].shape == shape[:-1]
        and _belongs(graph, written[name][0], places)
    )
    places_written = [written[name][0] for name in pair]
    heads = graph.elements[keys] // (op.size("batch") * rows * op.size("head_dim"))
    filled = all(written[name][1] for name in pair)
    return Cache(keys, values, notes, op.size("batch"), heads, rows, filled, tuple(places), max(places_written))


def _belongs(graph: Graph, place: int, readers: list[int]) -> bool:
    """Whether the op in ``place`` stands in the same module as a reader, or in one of its parts."""
    paths = [graph.ops[reader].path for reader in readers]
    return any(path and f"{graph.ops[place].path}.".startswith(f"{path}.") for path in paths)
