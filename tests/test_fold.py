"""Folding keeps what a graph does; unfolding undoes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from toys import mlp, mlps

from hwsim.fold import fold, unfold
from hwsim.graph import Graph, Kind, Op, Role, Tensor
from hwsim.graphfile import dump_graph, read_graph
from hwsim.liveness import usage
from hwsim.work import work_of


def total(graph, quantity):
    return sum(n * quantity(work_of(op, graph)) for op, n in zip(graph.ops, graph.counts, strict=True))


@settings(max_examples=50, deadline=None)
@given(mlps())
def test_folding_conserves_work_weights_and_peak(graph):
    small = fold(graph)
    for quantity in (lambda w: w.flops, lambda w: w.nbytes, lambda w: w.matmul_flops):
        assert total(small, quantity) == pytest.approx(total(graph, quantity), rel=1e-12)
    assert small.parameters == graph.parameters
    assert small.bytes_of(Role.WEIGHT) == graph.bytes_of(Role.WEIGHT)
    assert sum(small.counts) == len(graph.ops)


@settings(max_examples=25, deadline=None)
@given(mlps())
def test_unfolding_restores_the_ops(graph):
    back = unfold(fold(graph))
    assert [(op.kind, dict(op.attrs)) for op in back.ops] == [(op.kind, dict(op.attrs)) for op in graph.ops]
    assert back.parameters == graph.parameters


def test_layers_are_kept_once():
    small = fold(mlp(layers=80))
    # The first layer reads the graph's input and the last makes its output, so they stand apart.
    assert [(repeat.stop - repeat.start, repeat.count) for repeat in small.repeats] == [(3, 78)]
    assert len(small.ops) == 9
    assert small.parameters == 80 * 64 * 64


def test_a_shared_weight_counts_once():
    graph = mlp(layers=10, shared_weight=True)
    assert fold(graph).parameters == graph.parameters == 64 * 64
    assert fold(graph).repeats[0].shared == {"w"}


def test_a_state_that_all_layers_view_counts_once():
    """One cache, sliced before the loop, read by every iteration (as in a decoder that shares its keys)."""
    graph = mlp(layers=10)
    cache = Tensor("cache", (16, 64), "bf16", Role.STATE)
    view = Tensor("view", (8, 64), "bf16", base="cache")
    ops = [Op(Kind.VIEW, ("cache",), ("view",), {}, "slice")]
    ops += [replace(op, inputs=(*op.inputs, "view")) if op.source == "add" else op for op in graph.ops]
    graph = replace(graph, tensors={**graph.tensors, "cache": cache, "view": view}, ops=tuple(ops))
    small = fold(graph)
    assert small.repeats[0].count == 8
    assert small.bytes_of(Role.STATE) == cache.nbytes


def test_a_broken_chain_is_not_folded():
    """A layer that reads the first layer's result instead of the one before it is no iteration of the same loop."""
    graph = mlp(layers=8)
    ops = list(graph.ops)
    ops[12] = replace(ops[12], inputs=("y0", "w4"))
    broken = replace(graph, ops=tuple(ops))
    small = fold(broken)
    assert all(repeat.count < 8 for repeat in small.repeats)
    assert total(small, lambda w: w.flops) == total(broken, lambda w: w.flops)


def test_peak_of_a_stack_is_two_layers_wide():
    """Alive while a layer adds: its input, the matmul's result read by relu, and what is written: 3 tensors."""
    graph = mlp(layers=5, width=64, rows=8)
    tensor = 8 * 64 * 2
    assert usage(graph).peak_activations == 3 * tensor
    assert usage(fold(graph)).peak_activations == pytest.approx(3 * tensor)


def test_graph_file_round_trip():
    graph = fold(mlp(layers=6))
    assert read_graph(dump_graph(graph)) == graph


def forward_and_backward(layers: int) -> Graph:
    """A stack whose backward reads each layer's saved result, last layer first, and leaves a gradient per layer."""
    graph = mlp(layers=layers)
    tensors = dict(graph.tensors)
    ops = list(graph.ops)
    stream = f"y{layers - 1}"
    for layer in reversed(range(layers)):
        down, grad = f"d{layer}", f"g{layer}"
        tensors[down] = Tensor(down, (8, 64), "bf16")
        tensors[grad] = Tensor(grad, (64, 64), "bf16", Role.OUTPUT)
        sizes = {"batch": 1, "m": 64, "n": 64, "k": 8}
        ops.append(Op(Kind.MATMUL, (stream, f"h{layer}"), (grad,), sizes, "mm_weight"))
        numel = {"function": "mul", "numel": 512}
        ops.append(Op(Kind.ELEMENTWISE, (stream, f"r{layer}"), (down,), numel, "mul"))
        ops.append(Op(Kind.ELEMENTWISE, (down,), (f"e{layer}",), {"function": "neg", "numel": 512}, "neg"))
        tensors[f"e{layer}"] = Tensor(f"e{layer}", (8, 64), "bf16")
        stream = f"e{layer}"
    return replace(graph, tensors=tensors, ops=tuple(ops))


@pytest.mark.parametrize("layers", [6, 20])
def test_peak_of_training_is_the_same_folded(layers):
    """Saved activations go while gradients come: the peak is that of the graph written out."""
    graph = forward_and_backward(layers)
    small = fold(graph)
    assert len(small.repeats) == 2
    assert usage(small).peak_activations == pytest.approx(usage(graph).peak_activations, rel=0.02)
