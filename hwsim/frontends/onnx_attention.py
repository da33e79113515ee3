"""Rules of ONNX's whole attention operators: attention with its caches, rotary positions, linear attention.

A cache that comes in as a graph input and goes out as a graph output is a state: only the new rows are written, and
attention reads the whole of it once. Scores count as the full square; causality is an attribute.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hwsim.errors import GraphError
from hwsim.frontends.onnx_cache import Append, joined, keep_state
from hwsim.frontends.onnx_node import Node, Shape, rule
from hwsim.graph import Kind


@dataclass(frozen=True, slots=True)
class Heads:
    """The sizes of an attention: query heads over shared key and value heads."""

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    kv_len: int
    head_dim: int
    v_dim: int


def attend(node: Node, sizes: Heads, inputs: list[str], causal: bool, window: int = 0) -> None:
    """One attention op into output 0 (and the scores, where output 3 asks for them)."""
    outputs = [name for name in node.results() if name in (node.proto.output[0], *node.proto.output[3:4])]
    if sizes.kv_heads < 1 or sizes.heads % sizes.kv_heads:
        raise GraphError(f"{node.where}: {sizes.heads} query heads do not share {sizes.kv_heads} key heads")
    node.emit(
        Kind.ATTENTION, inputs, outputs, batch=sizes.batch, heads=sizes.heads, kv_heads=sizes.kv_heads,
        q_len=sizes.q_len, kv_len=sizes.kv_len, head_dim=sizes.head_dim, v_dim=sizes.v_dim, causal=causal,
        window=window, backward=False,
    )  # fmt: skip


def _past(node: Node, index: int) -> str:
    """The name of an optional input ("" without it)."""
    return node.name(index) if node.has(index) else ""


def _rest(node: Node, *indices: int) -> list[str]:
    """Names of further inputs that are given."""
    return [node.name(index) for index in indices if node.has(index)]


@rule("Attention", "ai.onnx.preview::FlexAttention")
def _attention(node: Node) -> None:
    """Q, K, V as [B, H, S, D], or as [B, S, H*D] with the head counts as attributes; past rows in front."""
    query, key, value = (node.shape(index) for index in range(3))
    flat = len(query) == 3
    if flat:
        heads, kv_heads = node.integer("q_num_heads"), node.integer("kv_num_heads")
        batch, q_len, kv_new = query[0], query[1], key[1]
        head_dim, v_dim = query[2] // heads, value[2] // kv_heads
    else:
        batch, heads, q_len, head_dim = query
        kv_heads, kv_new, v_dim = key[1], key[2], value[3]
    kv_len = kv_new + (node.shape(4)[2] if node.has(4) else 0)
    node.give(0, (batch, q_len, heads * v_dim) if flat else (batch, heads, q_len, v_dim))
    node.give(3, (batch, heads, q_len, kv_len))
    keys = joined(node, Append(_past(node, 4), node.name(1), 1, (batch, kv_heads, kv_len, head_dim), key))
    values = joined(node, Append(_past(node, 5), node.name(2), 2, (batch, kv_heads, kv_len, v_dim), value))
    sizes = Heads(batch, heads, kv_heads, q_len, kv_len, head_dim, v_dim)
    window = node.integer("left_window_size", -1) + 1
    attend(node, sizes, [node.name(0), *keys, *values, *_rest(node, 3, 6)], bool(node.integer("is_causal")), window)


@rule("com.microsoft::MultiHeadAttention")
def _multi_head_attention(node: Node) -> None:
    """Q [B, S, N*H] with K and V flat or as heads, packed [B, L, N, 2, H], or all in Q as [B, S, N, 3, H]."""
    query, heads = node.shape(), node.integer("num_heads")
    batch, q_len = query[:2]
    key = node.shape(1) if node.has(1) else query
    head_dim = query[4] if len(query) == 5 else query[2] // heads
    kv_new = key[2] if len(key) == 4 else key[1]
    value = node.shape(2) if node.has(2) else ()
    v_dim = head_dim if not value else value[3] if len(value) == 4 else value[2] // heads
    kv_len = kv_new + (node.shape(6)[2] if node.has(6) else 0)
    node.give(0, (batch, q_len, heads * v_dim))
    node.give(3, (batch, heads, q_len, kv_len))
    # Packed projections hold the keys and values too; each is written by its own rows.
    new_key = node.name(1 if node.has(1) else 0)
    new_value = node.name(2) if node.has(2) else new_key
    shapes = [(batch, heads, length, dim) for dim in (head_dim, v_dim) for length in (kv_len, kv_new)]
    keys = joined(node, Append(_past(node, 6), new_key, 1, *shapes[:2]))
    values = joined(node, Append(_past(node, 7), new_value, 2, *shapes[2:]))
    sizes = Heads(batch, heads, heads, q_len, kv_len, head_dim, v_dim)
    inputs = [*dict.fromkeys((node.name(0), *keys, *values)), *_rest(node, 3, 4, 5)]
    attend(node, sizes, inputs, bool(node.integer("unidirectional")))


@rule("com.microsoft::GroupQueryAttention")
def _group_query_attention(node: Node) -> None:
    """Causal, over a cache [B, N_kv, T, H] that may be longer than what it holds; rotary positions may be inside.

    It holds `total_sequence_length` (input 6) rows where that is known, else as many as the stated present keys, else
    past + new. Keys and values come by themselves, or packed behind the queries.
    """
    query, heads, kv_heads = node.shape(), node.integer("num_heads"), node.integer("kv_num_heads")
    batch, q_len = query[:2]
    packed = not node.has(1)
    head_dim = query[2] // (heads + 2 * kv_heads if packed else heads)
    past = node.shape(3)[2] if node.has(3) else 0
    held = _rows_held(node, past + q_len)
    shape, rows = ((batch, kv_heads, length, head_dim) for length in (max(held, past), q_len))
    node.give(0, (batch, q_len, heads * head_dim))
    reads = []
    for place in (1, 2):
        new = node.name(0 if packed else place)
        reads += [
            _front(node, name, (*shape[:2], held, head_dim))
            for name in joined(node, Append(_past(node, 2 + place), new, place, shape, rows))
        ]
    sizes = Heads(batch, heads, kv_heads, q_len, held, head_dim, head_dim)
    tables = [rotary_rows(node, index, q_len) for index in (7, 8) if node.has(index)]
    inputs = [*dict.fromkeys((node.name(0), *reads)), *tables, *_rest(node, 5, 10)]
    attend(node, sizes, inputs, True, max(0, node.integer("local_window_size", -1)))


def _rows_held(node: Node, otherwise: int) -> int:
    """How many rows of the cache are in use behind the new ones."""
    total, stated = node.known(6), node.stated(1)
    if total is not None:
        return int(total.reshape(-1)[0])
    return stated[2] if stated is not None and len(stated) == 4 else otherwise


def _front(node: Node, name: str, held: Shape) -> str:
    """The part of a cache that is in use."""
    shape = node.draft.values[name].shape or ()
    if len(shape) != 4 or shape[2] <= held[2]:
        return name
    part = node.inner(f"front of {name}", held, node.dtype())
    node.draft.bases[part] = name
    return part


@rule("com.microsoft::Attention")
def _attention_with_projection(node: Node) -> None:
    """X [B, S, I] times the packed weight [I, 3*D], then attention; the cache is [2, B, N, T, H]."""
    batch, q_len, width = node.shape()
    heads, columns = node.integer("num_heads"), node.shape(1)[1]
    stated = node.sizes("qkv_hidden_sizes") or (columns // 3,) * 3
    head_dim, v_dim = stated[0] // heads, stated[2] // heads
    kv_len = q_len + (node.shape(4)[3] if node.has(4) else 0)
    node.give(0, (batch, q_len, stated[2]))
    packed = node.inner("qkv", (batch, q_len, columns), node.dtype())
    inputs = [node.name(0), node.name(1), *_rest(node, 2)]
    node.emit(Kind.MATMUL, inputs, (packed,), batch=1, m=batch * q_len, n=columns, k=width)
    shape, rows = ((2, batch, heads, length, head_dim) for length in (kv_len, q_len))
    reads = joined(node, Append(_past(node, 4), packed, 1, shape, rows))
    sizes = Heads(batch, heads, heads, q_len, kv_len, head_dim, v_dim)
    inputs = [*dict.fromkeys((packed, *reads)), *_rest(node, 3, 5)]
    attend(node, sizes, inputs, bool(node.integer("unidirectional")))


@rule("RotaryEmbedding", "com.microsoft::RotaryEmbedding")
def _rotary(node: Node) -> None:
    """X, the tables of cosines and sines, and positions; the contrib operator has the positions first."""
    positions, tables = (1, (2, 3)) if node.domain else (3, (1, 2))
    shape = node.shape()
    tokens = shape[-2] if len(shape) == 4 else shape[1]
    node.give(0, shape)
    rows = [rotary_rows(node, index, tokens) for index in tables]
    node.emit(Kind.ELEMENTWISE, [node.name(0), *rows, *_rest(node, positions)], function="rotary", numel=prod(shape))


def rotary_rows(node: Node, index: int, tokens: int) -> str:
    """The rows that ``tokens`` positions need of a table [positions, D/2]; one cut to size is taken whole."""
    table = node.shape(index)
    if len(table) != 2 or table[0] <= tokens:
        return node.name(index)
    rows = node.inner(f"rows of {node.name(index)}", (tokens, table[1]), node.dtype(index))
    node.draft.bases[rows] = node.name(index)
    return rows


_LINEAR_RULES = {"linear": "linear", "gated": "gla", "delta": "delta_rule", "gated_delta": "gated_delta_rule"}


@rule("LinearAttention")
def _linear_attention(node: Node) -> None:
    """All packed as [B, T, H*D]; the state [B, H_kv, d_k, d_v] is updated in place. One token needs no chunks."""
    batch, tokens, packed = node.shape()
    heads, kv_heads = node.integer("q_num_heads"), node.integer("kv_num_heads")
    d_k, d_v = packed // heads, node.shape(2)[2] // kv_heads
    node.give(0, (batch, tokens, heads * d_v))
    keep_state(node, 3, 1, (batch, kv_heads, d_k, d_v))
    update = node.text("update_rule", "gated_delta")
    if update not in _LINEAR_RULES:
        raise GraphError(f"{node.where}: update rule '{update}' is none of {', '.join(_LINEAR_RULES)}")
    node.emit(
        Kind.RECURRENCE, rule=_LINEAR_RULES[update], batch=batch, tokens=tokens, heads=heads, d_k=d_k, d_v=d_v,
        chunk=0 if tokens == 1 else node.integer("chunk_size", 64), backward=False,
    )  # fmt: skip


@rule("CausalConvWithState")
def _causal_conv(node: Node) -> None:
    """Depthwise along time over the last k - 1 positions and the new ones; an activation is in its epilogue."""
    batch, channels, length = node.shape()
    taps = node.shape(1)[-1]
    node.give(0, (batch, channels, length))
    keep_state(node, 3, 1, (batch, channels, taps - 1))
    node.emit(
        Kind.CONV, batch=batch, in_channels=channels, out_channels=channels, groups=channels,
        in_size=(length + taps - 1,), out_size=(length,), kernel=(taps,), transposed=False, direction="forward",
    )  # fmt: skip
