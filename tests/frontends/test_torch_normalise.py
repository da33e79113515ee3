"""Each rewrite on a graph of a few ops."""

from __future__ import annotations

from hwsim.frontends.normalise import append_to_caches, drop_dead, renamed, share_kv_heads
from hwsim.graph import Graph, Kind, Op, Role, Tensor

ATTENTION = {"batch": 2, "heads": 8, "kv_heads": 8, "q_len": 1, "kv_len": 5, "head_dim": 4, "v_dim": 4}


def graph(*ops: Op, **tensors: tuple[tuple[int, ...], Role] | Tensor) -> Graph:
    named = {name: t if isinstance(t, Tensor) else Tensor(name, t[0], "bf16", t[1]) for name, t in tensors.items()}
    return Graph("test", named, ops)


def repeated_kv(copied: bool) -> Graph:
    """Two key/value heads for eight query heads, expanded, copied or not, and folded into the heads."""
    activation = Role.ACTIVATION
    wide = Tensor("wide", (2, 2, 4, 5, 4), "bf16", base="kv", distinct=2 * 2 * 5 * 4)
    flat = Tensor("flat", (2, 8, 5, 4), "bf16", base="copy" if copied else "kv")
    copy = (Op(Kind.COPY, ("wide",), ("copy",), {"numel": 320, "strided": False}, "clone"),) if copied else ()
    return graph(
        Op(Kind.VIEW, ("kv",), ("kv5",), {}, "unsqueeze"),
        Op(Kind.VIEW, ("kv5",), ("wide",), {}, "expand"),
        *copy,
        Op(Kind.VIEW, ("copy" if copied else "wide",), ("flat",), {}, "view"),
        Op(Kind.ATTENTION, ("q", "flat", "flat"), ("out",), ATTENTION, "attention"),
        q=((2, 8, 1, 4), Role.INPUT), kv=((2, 2, 5, 4), Role.INPUT), wide=wide, flat=flat,
        kv5=Tensor("kv5", (2, 2, 1, 5, 4), "bf16", base="kv"), copy=((2, 2, 4, 5, 4), activation),
        out=((2, 8, 1, 4), Role.OUTPUT),
    )  # fmt: skip


def test_repeated_heads_are_shared_and_their_copy_goes() -> None:
    for copied in (True, False):
        (op,) = drop_dead(share_kv_heads(repeated_kv(copied))).ops
        assert (op.inputs, op.attrs["kv_heads"]) == (("q", "kv", "kv"), 2)
        assert drop_dead(share_kv_heads(repeated_kv(copied))).matmul_flops == repeated_kv(copied).matmul_flops


def test_heads_that_are_not_repeated_stay() -> None:
    plain = graph(
        Op(Kind.ATTENTION, ("q", "k", "k"), ("out",), ATTENTION, "attention"),
        q=((2, 8, 1, 4), Role.INPUT), k=((2, 8, 5, 4), Role.INPUT), out=((2, 8, 1, 4), Role.OUTPUT),
    )  # fmt: skip
    assert share_kv_heads(plain).ops == plain.ops


def grown(role: Role, result: Role = Role.ACTIVATION, axis_of_batch: bool = False) -> Graph:
    shape = (3, 8, 4, 4) if axis_of_batch else (2, 8, 5, 4)
    return graph(
        Op(Kind.COPY, ("past", "new"), ("whole",), {"numel": 320, "strided": False}, "cat"),
        Op(Kind.ATTENTION, ("q", "whole", "whole"), ("out",), ATTENTION, "attention"),
        q=((2, 8, 1, 4), Role.INPUT), past=((2, 8, 4, 4), role), whole=(shape, result),
        new=((1, 8, 4, 4) if axis_of_batch else (2, 8, 1, 4), Role.ACTIVATION), out=((2, 8, 1, 4), Role.OUTPUT),
    )  # fmt: skip


def test_a_concatenation_that_attention_reads_appends_to_a_cache() -> None:
    for role in (Role.STATE, Role.INPUT):
        result = append_to_caches(grown(role))
        write, attention = result.ops
        assert (write.kind, write.inputs, result.storage(write.outputs[0])) == (Kind.WRITE, ("new",), "past")
        assert (attention.inputs, result.tensors["past"].shape) == (("q", "past", "past"), (2, 8, 5, 4))
        assert result.tensors["past"].role is Role.STATE and "whole" not in result.tensors


def test_other_concatenations_stay_copies() -> None:
    assert append_to_caches(grown(Role.ACTIVATION)).ops == grown(Role.ACTIVATION).ops
    assert append_to_caches(grown(Role.STATE, axis_of_batch=True)).ops[0].kind is Kind.COPY


def test_dead_ops_go_but_matrix_work_and_writes_stay() -> None:
    matmul = {"batch": 1, "m": 2, "n": 2, "k": 2}
    kept = drop_dead(
        graph(
            Op(Kind.ELEMENTWISE, ("x",), ("dead",), {"function": "relu", "numel": 4}, "relu"),
            Op(Kind.MATMUL, ("x", "x"), ("unread",), matmul, "mm"),
            Op(Kind.WRITE, ("x",), ("cache",), {"numel": 4}, "copy_"),
            x=((2, 2), Role.INPUT), dead=((2, 2), Role.ACTIVATION), unread=((2, 2), Role.ACTIVATION),
            cache=((2, 2), Role.STATE), weight=((7,), Role.WEIGHT), forgotten=((7,), Role.ACTIVATION),
        )
    )  # fmt: skip
    assert [op.source for op in kept.ops] == ["mm", "copy_"]
    assert set(kept.tensors) == {"x", "unread", "cache", "weight"}


def test_renaming_reaches_views_and_ops() -> None:
    result = renamed(repeated_kv(True), {"copy": "keys"})
    assert result.tensors["flat"].base == "keys" and result.ops[2].outputs == ("keys",)
