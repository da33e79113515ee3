"""The table of work: formulas checked on paper, operand bytes by kind."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import GraphError
from hwsim.graph import Graph, Kind, Op, Role, Tensor
from hwsim.work import Pattern, formula, work_of


def one(kind, inputs, outputs, attrs, source="op"):
    """A graph of one op; operands are (name, shape, dtype, role)."""
    tensors = {name: Tensor(name, shape, dtype, role) for name, shape, dtype, role in (*inputs, *outputs)}
    op = Op(kind, tuple(t[0] for t in inputs), tuple(t[0] for t in outputs), attrs, source)
    return op, Graph("one", tensors, (op,))


def work(*args, **kwargs):
    return work_of(*one(*args, **kwargs))


A, W, S = Role.ACTIVATION, Role.WEIGHT, Role.STATE


def test_matmul():
    found = work(
        Kind.MATMUL,
        [("a", (8, 64), "bf16", A), ("w", (32, 64), "bf16", W)],
        [("y", (8, 32), "bf16", A)],
        {"batch": 1, "m": 8, "n": 32, "k": 64},
    )
    assert found.matmul_flops == 2 * 8 * 32 * 64
    assert (found.read_bytes, found.write_bytes) == (2 * (8 * 64 + 32 * 64), 2 * 8 * 32)
    assert found.bytes_of_role(W) == 2 * 32 * 64
    assert found.dtype == "bf16"


def test_grouped_matmul_reads_the_experts_it_touches():
    """Two rows over four experts touch 4·(1-(3/4)²) = 1.75 of them on average."""
    found = work(
        Kind.MATMUL,
        [("x", (2, 16), "bf16", A), ("w", (4, 16, 16), "bf16", W)],
        [("y", (2, 16), "bf16", A)],
        {"batch": 1, "m": 2, "n": 16, "k": 16, "experts": 4},
    )
    assert found.bytes_of_role(W) == pytest.approx(1.75 * 16 * 16 * 2)


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 2), st.integers(1, 3), st.integers(1, 5), st.sampled_from(["nhwc", "nchw"]))
def test_a_convolution_reads_what_its_taps_meet(size, kernel, stride, layout):
    """Place by place; channels first, whole rows."""
    size = tuple(max(kernel, length) for length in size)
    out = tuple((length - kernel) // stride + 1 for length in size)
    met = [{start * stride + tap for start in range(count) for tap in range(kernel)} for count in out]
    sizes = {"batch": 2, "in_channels": 3, "out_channels": 5, "groups": 1, "transposed": False, "layout": layout}
    operands = [("x", (2, 3, *size), "bf16", A), ("w", (5, 3, kernel, kernel), "bf16", W)]
    spaces = {"in_size": size, "out_size": out, "kernel": (kernel, kernel)}
    found = work(Kind.CONV, operands, [("y", (2, 5, *out), "bf16", A)], {**sizes, **spaces, "direction": "forward"})
    width = size[1] if layout == "nchw" else len(met[1])
    read = 2 * 2 * 3 * len(met[0]) * width
    whole = 2 * 2 * 3 * size[0] * size[1]
    if stride > kernel:
        assert found.bytes_of_role(A) - 2 * 2 * 5 * out[0] * out[1] == pytest.approx(read)
    assert read - 1e-6 <= found.bytes_of_role(A) - 2 * 2 * 5 * out[0] * out[1] <= whole + 1e-6


def test_attention_counts_the_full_square_and_its_backward_five_products():
    sizes = {"batch": 2, "heads": 4, "kv_heads": 2, "q_len": 8, "kv_len": 16, "head_dim": 32, "v_dim": 32}
    operands = [("q", (2, 4, 8, 32), "bf16", A), ("k", (2, 2, 16, 32), "bf16", A), ("v", (2, 2, 16, 32), "bf16", A)]
    result = [("o", (2, 4, 8, 32), "bf16", A), ("lse", (2, 4, 8), "fp32", A)]
    product = 2 * 2 * 4 * 8 * 16 * 32
    forward = work(Kind.ATTENTION, operands, result, {**sizes, "causal": True})
    assert forward.matmul_flops == 2 * product
    assert forward.dtype == "bf16"  # the row sums in fp32 do not change what the products are computed in
    backward = work(Kind.ATTENTION, operands, result, {**sizes, "causal": True, "backward": True})
    assert backward.matmul_flops == 5 * product


@pytest.mark.parametrize(
    ("rule", "chunk", "per_head_token"),
    [
        # Check values of the formulas at d_k = d_v = 128, C = 64.
        ("gdn2", 64, 182_955),
        ("kda", 0, 114_688),
        ("gla", 64, 98_304),
        ("ssd", 0, 81_920),
    ],
)
def test_recurrences(rule, chunk, per_head_token):
    attrs = {"rule": rule, "batch": 3, "tokens": 10, "heads": 2, "d_k": 128, "d_v": 128, "chunk": chunk}
    found = work(Kind.RECURRENCE, [("q", (3, 10, 2, 128), "bf16", A)], [("o", (3, 10, 2, 128), "bf16", A)], attrs)
    main = found.matmul_flops if chunk else found.vector_flops
    assert main / (3 * 10 * 2) == pytest.approx(per_head_token, abs=1)


def test_gather_reads_the_rows_it_picks():
    found = work(
        Kind.GATHER,
        [("table", (1000, 64), "bf16", W), ("ids", (5,), "int64", A)],
        [("y", (5, 64), "bf16", A)],
        {"picks": 5, "elements": 64},
    )
    assert found.bytes_of_role(W) == 5 * 64 * 2
    table = next(access for access in found.accesses if access.tensor == "table")
    assert (table.pattern, table.granule) == (Pattern.GATHER, 128)
    assert found.read_bytes == 5 * 64 * 2 + 5 * 8


@pytest.mark.parametrize(("function", "touched"), [("", 1), ("add", 2)])
def test_scatter_touches_its_rows_only(function, touched):
    """Once to write, and once more to read where values accumulate."""
    found = work(
        Kind.SCATTER,
        [("rows", (5, 64), "bf16", A), ("ids", (5,), "int64", A)],
        [("bank", (1000, 64), "bf16", S)],
        {"picks": 5, "elements": 64, "function": function},
    )
    assert found.bytes_of_role(S) == touched * 5 * 64 * 2


def test_an_in_place_write_is_charged_its_rows():
    op = Op(Kind.WRITE, ("new",), ("rows",), {"numel": 64}, "copy_")
    tensors = {
        "cache": Tensor("cache", (100, 64), "bf16", S),
        "rows": Tensor("rows", (1, 64), "bf16", S, base="cache"),
        "new": Tensor("new", (1, 64), "bf16", A),
    }
    found = work_of(op, Graph("g", tensors, (op,)))
    assert (found.read_bytes, found.write_bytes) == (128, 128)
    assert found.accesses[-1].tensor == "cache"


def test_a_broadcast_operand_is_read_once():
    op = Op(Kind.ELEMENTWISE, ("x", "b"), ("y",), {"function": "add", "numel": 512}, "add")
    tensors = {
        "x": Tensor("x", (8, 64), "fp32"),
        "b": Tensor("b", (8, 64), "fp32", distinct=64),
        "y": Tensor("y", (8, 64), "fp32"),
    }
    assert work_of(op, Graph("g", tensors, (op,))).read_bytes == 4 * (512 + 64)


def test_views_are_free_and_unknown_ops_are_not():
    operands = [("x", (8, 8), "fp32", A)], [("y", (8, 8), "fp32", A)]
    assert work(Kind.VIEW, *operands, {}).nbytes == 0
    unknown = work(Kind.UNKNOWN, *operands, {}, source="mystery")
    assert (unknown.nbytes, unknown.unmodelled) == (512, True)
    assert one(Kind.UNKNOWN, *operands, {}, source="mystery")[1].unmodelled == ("mystery",)


@pytest.mark.parametrize(
    ("kind", "attrs"),
    [
        (Kind.ELEMENTWISE, {"function": "frobnicate", "numel": 4}),
        (Kind.RECURRENCE, {"rule": "none", "chunk": 0, "batch": 1, "tokens": 1, "heads": 1, "d_k": 1, "d_v": 1}),
        (Kind.MATMUL, {"m": 2}),
    ],
)
def test_nothing_is_silently_free(kind, attrs):
    with pytest.raises(GraphError):
        work(kind, [("x", (2, 2), "fp32", A)], [("y", (2, 2), "fp32", A)], attrs)


def test_a_second_formula_for_a_kind_is_refused():
    with pytest.raises(GraphError, match="exists already"):
        formula(Kind.MATMUL)(lambda op: None)


def test_a_recurrence_backward_calculates_in_the_format_of_its_forward():
    operands = [
        ("grad", (1, 8, 2, 4), "bf16", A),
        ("grad_state", (1, 2, 4, 4), "fp32", A),
        ("q", (1, 8, 2, 4), "bf16", A),
    ]
    attrs = {"rule": "gla", "batch": 1, "tokens": 8, "heads": 2, "d_k": 4, "d_v": 4, "chunk": 8, "backward": True}
    assert work(Kind.RECURRENCE, operands, [("dq", (1, 8, 2, 4), "bf16", A)], attrs).dtype == "bf16"


def test_a_gather_reads_no_more_than_its_table():
    found = work(
        Kind.GATHER,
        [("table", (8, 4), "fp32", W), ("ids", (1000,), "int64", A)],
        [("y", (1000, 4), "fp32", A)],
        {"picks": 1000, "elements": 4},
    )
    assert found.bytes_of_role(W) == 8 * 4 * 4
