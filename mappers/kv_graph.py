"""The graph that a policy of the key/value cache makes of a model's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from hwsim.dtypes import dtype
from hwsim.graph import Attribute, Graph, Kind, Role
from hwsim.mappers.graph_edit import GraphEdit
from hwsim.mappers.kv_caches import Cache, find_caches, rows_axis
from hwsim.mappers.kv_policy import (
    AS_THE_MODEL,
    KvOptions,
    after_prompt,
    capacity,
    interval,
    kept,
    scale_elements,
    survivors,
)

SCORE = "fp32"
INDEX = "int64"
FLAG = "bool"


def with_policy(graph: Graph, options: KvOptions) -> tuple[Graph, tuple[str, ...]]:
    """``graph`` (folded, bound) with what ``options`` keep of its caches, and notes on what could not be done."""
    caches = find_caches(graph)
    edit = GraphEdit(graph)
    for cache in caches:
        _store(edit, cache, options)
        if cache.filled:
            _fill(edit, cache, options)
        else:
            _grow(edit, cache, options)
    for cache in caches:
        if not cache.filled:
            _compact(edit, cache, options)
    return edit.graph(), tuple(_notes(graph, caches, options))


def _notes(graph: Graph, caches: tuple[Cache, ...], options: KvOptions) -> Iterator[str]:
    if not caches:
        yield f"{graph.name} has no key/value cache: the policy changes nothing"
    elif options.policy in ("trim", "gate") and not any(cache.notes for cache in caches):
        yield f"{graph.name} has no gate that tells which tokens to keep: one that costs nothing is assumed"


def _store(edit: GraphEdit, cache: Cache, options: KvOptions) -> None:
    """Keys and values in the formats asked for."""
    for storage, chosen in _formats(edit, cache, options).items():
        for name in _views(edit.original, storage):
            edit.change(name, dtype=chosen)


def _formats(edit: GraphEdit, cache: Cache, options: KvOptions) -> dict[str, str]:
    """The formats of keys and values where these are not the model's; one storage of both counts as keys."""
    asked = {cache.values: options.values, cache.keys: options.keys}
    return {
        storage: chosen
        for storage, chosen in asked.items()
        if chosen not in (AS_THE_MODEL, edit.original.tensors[storage].dtype)
    }


def _views(graph: Graph, storage: str) -> list[str]:
    return [name for name, owner in graph.storages.items() if owner == storage]


def _resized(edit: GraphEdit, name: str, rows: int, new: int) -> tuple[int, ...]:
    """The shape of tensor ``name`` with ``new`` in the place of its ``rows`` tokens."""
    sizes = tuple(int(str(size)) for size in edit.original.tensors[name].shape)
    notes = len(sizes) > 1 and sizes[-1] == rows and sizes[-2] != rows
    axis = len(sizes) - 1 if notes else rows_axis(sizes, rows)
    return sizes if axis is None else (*sizes[:axis], new, *sizes[axis + 1 :])


def _grow(edit: GraphEdit, cache: Cache, options: KvOptions) -> None:
    """A cache that a step appends to: it has room for what the policy keeps, and attention reads that."""
    room, rows = capacity(cache.rows, options), kept(cache.rows, options)
    for storage in cache.storages:
        edit.change(storage, shape=_resized(edit, storage, cache.rows, room))
    states = _scales(edit, cache, room, options)
    _quantize(edit, cache, states, options)
    scales = {storage: _rows_of(edit, name, rows, "kept") for storage, name in states.items()}
    joined = {name: _joined(edit, cache, name, rows, options) for name in cache.storages}
    for place in cache.readers:
        _attend(edit, cache, place, rows, scales, joined, options)
    last = cache.readers[-1]
    if options.policy == "scissorhands":
        _remember(edit, cache, last, rows, room, options)
    _keep_books(edit, cache, last, options)


def _scales(edit: GraphEdit, cache: Cache, rows: int, options: KvOptions) -> dict[str, str]:
    """By storage: states with the scales and zeros of keys and values, a row of them for each token."""
    made = {}
    for storage, chosen in _formats(edit, cache, options).items():
        scales = scale_elements(chosen, edit.original.elements[storage] // cache.rows, options)
        if scales:
            made[storage] = edit.tensor(f"{storage}.scales", (rows, scales), "fp16", Role.STATE)
    return made


def _rows_of(edit: GraphEdit, scales: str, rows: int, name: str) -> str:
    """``rows`` rows of a state of scales, at most all."""
    tensor = edit.tensors[scales]
    shape = (min(rows, int(str(tensor.shape[0]))), tensor.shape[1])
    return edit.tensor(f"{scales}.{name}", shape, tensor.dtype, Role.STATE, scales)


def _quantize(edit: GraphEdit, cache: Cache, scales: dict[str, str], options: KvOptions) -> None:
    """What is written to keys and values in another format is rounded on its way, and its scales are written."""
    graph = edit.original
    formats = _formats(edit, cache, options)
    for place, op in enumerate(graph.ops):
        storage = graph.storage(op.outputs[0]) if op.outputs and op.kind is not Kind.VIEW else ""
        if storage not in formats:
            continue
        stored, count = op.outputs[0], graph.elements[op.outputs[0]]
        new: tuple[str, ...] = ()
        if storage in scales:
            rows = count * cache.rows // graph.elements[storage]
            new = (_rows_of(edit, scales[storage], rows, f"new.{place}"),)
        attrs: dict[str, Attribute] = {"function": "quantize", "numel": count}
        if op.kind is Kind.WRITE:
            edit.replace(place, replace(op, kind=Kind.ELEMENTWISE, outputs=(stored, *new), attrs=attrs))
            continue
        wide = edit.tensor(f"{stored}.wide", edit.tensors[stored].shape, graph.tensors[stored].dtype)
        edit.replace(place, replace(op, outputs=(wide, *op.outputs[1:])))
        edit.after(place, Kind.ELEMENTWISE, (wide,), stored, *new, **attrs)


def _view(edit: GraphEdit, cache: Cache, name: str, rows: int) -> str:
    """``rows`` tokens of tensor ``name``, a cache or a view of one."""
    view, tensor = f"{name}.kept", edit.tensors[name]
    if view not in edit.tensors:
        shape = _resized(edit, name, cache.rows, rows)
        edit.tensor(view, shape, tensor.dtype, Role.STATE, edit.original.storage(name))
    return view


def _joined(edit: GraphEdit, cache: Cache, storage: str, rows: int, options: KvOptions) -> str:
    """What a framework copies whole to append to it; the storage itself where it does not."""
    if not options.framework_copies:
        return storage
    view, place = _view(edit, cache, storage, rows), cache.readers[0]
    tensor = edit.tensors[view]
    copy = edit.tensor(f"{storage}.joined", tensor.shape, tensor.dtype)
    edit.before(place, Kind.COPY, (view,), copy, numel=_numel(edit, view), strided=False, function="append")
    return copy


def _attend(
    edit: GraphEdit,
    cache: Cache,
    place: int,
    rows: int,
    scales: dict[str, str],
    joined: dict[str, str],
    options: KvOptions,
) -> None:
    """Attention in ``place`` over ``rows`` tokens, read as they lie or as a framework spreads them out."""
    op = edit.original.ops[place]
    names = [_view(edit, cache, name, rows) for name in op.inputs[1:3]]
    attrs = {**op.attrs, "kv_len": rows}
    if options.framework_copies:
        wide = edit.original.tensors[op.inputs[0]].dtype
        storages = [edit.original.storage(name) for name in op.inputs[1:3]]
        packed = [(joined[storage], *([scales[storage]] if storage in scales else [])) for storage in storages]
        names = [_spread(edit, place, sources, view, wide) for sources, view in zip(packed, names, strict=True)]
        attrs["kv_heads"] = op.size("heads")
        scales = {}
    elif {options.keys, options.values} != {AS_THE_MODEL}:
        attrs["cached_bytes"] = sum(dtype(edit.tensors[name].dtype).bytes_for(1) for name in names) / 2
    edit.replace(place, replace(op, inputs=(op.inputs[0], *names, *op.inputs[3:], *scales.values()), attrs=attrs))


def _spread(edit: GraphEdit, place: int, packed: tuple[str, ...], view: str, wide: str) -> str:
    """Keys or values, and their scales if any, in the format of the queries, with heads repeated for all of these: a
    tensor of its own each time."""
    source = packed[0]
    op, name = edit.original.ops[place], f"{view}.{place}"
    shape = [int(str(size)) for size in edit.tensors[view].shape]
    if edit.tensors[view].dtype != wide:
        unpacked = edit.tensor(f"{name}.unpacked", shape, wide)
        count = _numel(edit, unpacked)
        source = edit.before(place, Kind.ELEMENTWISE, packed, unpacked, function="dequantize", numel=count)
    times = op.size("heads") // op.size("kv_heads")
    if times == 1:
        return source
    repeated = edit.tensor(f"{name}.repeated", (times, *shape), wide)
    numel = _numel(edit, repeated)
    return edit.before(place, Kind.COPY, (source,), repeated, numel=numel, strided=False, function="repeat_heads")


def _numel(edit: GraphEdit, name: str) -> int:
    return int(str(edit.tensors[name].numel))


def _remember(edit: GraphEdit, cache: Cache, place: int, rows: int, room: int, options: KvOptions) -> None:
    """Scissorhands' history: attention hands out its weights; which are below the average is kept for each query."""
    op = edit.original.ops[place]
    fmt, heads = edit.original.tensors[op.inputs[0]].dtype, op.size("heads")
    queries = min(op.size("q_len"), options.history)
    _hand_out(edit, place, (cache.batch, heads, queries, rows), fmt)
    window = edit.tensor(f"{cache.keys}.history", (options.history, cache.batch, heads, room), FLAG, Role.STATE)
    row = edit.tensor(f"{cache.keys}.noted", (queries, cache.batch, heads, rows), FLAG, Role.STATE, window)
    numel = queries * cache.batch * heads * rows
    weights = f"weights.{place}"
    edit.after(place, Kind.ELEMENTWISE, (weights,), row, function="compare", numel=numel)


def _hand_out(edit: GraphEdit, place: int, shape: tuple[int, ...], fmt: str) -> None:
    """Attention in ``place`` writes its weights to memory, which a fused kernel does not."""
    weights = edit.tensor(f"weights.{place}", shape, fmt)
    op = edit.op(place)
    edit.replace(place, replace(op, outputs=(*op.outputs, weights)))


def _keep_books(edit: GraphEdit, cache: Cache, place: int, options: KvOptions) -> None:
    """Operations on a number per head and new token, one after the other: what they cost is their launch."""
    source = ""
    for number in range(options.bookkeeping):
        name = edit.tensor(f"{cache.keys}.books.{number}", (cache.batch, cache.heads), SCORE)
        numel = cache.batch * cache.heads
        inputs = (source,) if source else ()
        kind, function = (Kind.ELEMENTWISE, "add") if source else (Kind.FILL, "")
        attrs = {"numel": numel, "function": function} if function else {"numel": numel}
        source = edit.after(place, kind, inputs, name, **attrs)


def _fill(edit: GraphEdit, cache: Cache, options: KvOptions) -> None:
    """A cache that a prompt fills: attention sees all of it, and what the policy keeps is gathered afterwards."""
    rows = after_prompt(cache.rows, options)
    _quantize(edit, cache, _scales(edit, cache, rows, options), options)
    if rows == cache.rows:
        return
    if options.policy == "scissorhands":
        _remember(edit, cache, cache.readers[-1], cache.rows, rows, options)
    place = cache.written
    for storage in cache.storages:
        for name in _views(edit.original, storage):
            edit.change(name, role=Role.ACTIVATION)
    chosen = ""
    if options.policy != "window":
        chosen = _choose(edit, place, cache, cache.batch * cache.heads, cache.rows, rows)
    for storage in cache.storages:
        tensor = edit.tensors[storage]
        stay = edit.tensor(f"{storage}.kept", _resized(edit, storage, cache.rows, rows), tensor.dtype, Role.STATE)
        _gather(edit, place, storage, chosen, stay, cache.batch * cache.heads * rows)


def _choose(edit: GraphEdit, place: int, cache: Cache, lists: int, rows: int, stay: int, end: bool = False) -> str:
    """The places of the ``stay`` best of ``rows`` tokens in each of ``lists`` lists of scores, sorted."""
    put = edit.append if end else edit.after
    name = f"{cache.keys}.{'end' if end else 'fill'}.{len(edit.tensors)}"
    views = []
    for number, note in enumerate(cache.notes):
        tensor = edit.tensors[note]
        views.append(edit.tensor(f"{name}.note{number}", (lists, rows), tensor.dtype, tensor.role, note))
    scores = edit.tensor(f"{name}.scores", (lists, rows), SCORE)
    put(place, Kind.ELEMENTWISE, tuple(views), scores, function="mul", numel=lists * rows)
    chosen = edit.tensor(f"{name}.chosen", (lists, stay), INDEX)
    return put(place, Kind.SORT, (scores,), chosen, rows=lists, cols=rows)


def _gather(edit: GraphEdit, place: int, table: str, chosen: str, out: str, picks: int) -> None:
    """``picks`` rows of ``table`` to ``out``; without ``chosen`` ones they lie one after the other."""
    if not chosen:
        tensor = edit.tensors[out]
        newest = edit.tensor(f"{table}.newest", tensor.shape, tensor.dtype, Role.ACTIVATION, table)
        edit.after(place, Kind.COPY, (newest,), out, numel=_numel(edit, out), strided=False)
        return
    elements = max(1, _numel(edit, out) // picks)
    edit.after(place, Kind.GATHER, (table, chosen), out, picks=picks, elements=elements)


def _compact(edit: GraphEdit, cache: Cache, options: KvOptions) -> None:
    """What a compaction costs, spread over the steps between two: each step compacts its share of the layers' heads."""
    steps = interval(cache.rows, options)
    if not steps:
        return
    share = edit.original.copies[cache.keys] * cache.batch * cache.heads / steps
    rounds = ceil(share / (cache.batch * cache.heads))
    for _ in range(rounds):
        _compact_lists(edit, cache, share / rounds, options)


def _compact_lists(edit: GraphEdit, cache: Cache, lists: float, options: KvOptions) -> None:
    """The tokens of ``lists`` heads that survive, gathered into a new place."""
    place, rows, stay = cache.readers[-1], capacity(cache.rows, options), survivors(options)
    whole = ceil(lists)
    if options.policy == "scissorhands":
        _count_history(edit, cache, place, whole, rows, options)
    chosen = _choose(edit, place, cache, whole, rows, stay, end=True)
    picks = ceil(lists * stay)
    for storage in cache.storages:
        tensor = edit.tensors[storage]
        elements = max(1, _numel(edit, storage) // (cache.batch * cache.heads * rows))
        out = edit.tensor(f"{chosen}.{storage}", (picks, elements), tensor.dtype)
        edit.append(place, Kind.GATHER, (storage, chosen), out, picks=picks, elements=elements)


def _count_history(edit: GraphEdit, cache: Cache, place: int, lists: int, rows: int, options: KvOptions) -> None:
    """How often each token was below the average, over the queries remembered."""
    history = f"{cache.keys}.history"
    group = max(1, edit.original.ops[place].size("heads") // cache.heads)
    name = f"{history}.{len(edit.tensors)}"
    seen = edit.tensor(f"{name}.seen", (lists * group, rows, options.history), FLAG, Role.STATE, history)
    counts = edit.tensor(f"{name}.counts", (lists * group, rows), SCORE)
    edit.append(place, Kind.REDUCE, (seen,), counts, function="sum", rows=lists * group * rows, cols=options.history)
