"""Folding keeps what a graph does; unfolding undoes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
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


def products(picks: Sequence[int], ahead: int) -> Graph:
    """A stack whose layers read the weights that ``picks`` names, each through a view of its own made ``ahead`` layers
    before (0: right before it is read)."""
    graph = mlp(layers=len(picks))
    tensors = {name: tensor for name, tensor in graph.tensors.items() if tensor.role is not Role.WEIGHT}
    tensors |= {f"w{pick}": Tensor(f"w{pick}", (64, 64), "bf16", Role.WEIGHT) for pick in picks}
    tensors |= {f"v{k}": Tensor(f"v{k}", (64, 64), "bf16", base=f"w{pick}") for k, pick in enumerate(picks)}
    views = [Op(Kind.VIEW, (f"w{pick}",), (f"v{k}",), {}, "t") for k, pick in enumerate(picks)]
    ops = views[:ahead]
    for layer in range(len(picks)):
        product, *others = graph.ops[3 * layer : 3 * layer + 3]
        ops += views[layer + ahead : layer + ahead + 1]
        ops += [replace(product, inputs=(product.inputs[0], f"v{layer}")), *others]
    return replace(graph, tensors=tensors, ops=tuple(ops))


@st.composite
def picked(draw: st.DrawFn) -> list[int]:
    """Weights in any order, or first to last as in a forward pass, then back in parts as in a backward."""
    if draw(st.booleans()):
        return draw(st.lists(st.integers(0, 5), min_size=1, max_size=12))
    layers = st.integers(0, 10)
    parts = draw(st.lists(st.tuples(layers, layers), min_size=1, max_size=3))
    there = [pick for first, last in parts for pick in range(first, last)]
    return [*range(10), *there[::-1]]


@settings(max_examples=60, deadline=None)
@given(picked(), st.integers(0, 12))
@example([*range(8)], 1)  # the view of a later layer's weight is made inside each iteration: a carry
@example([*range(8)], 8)  # all views are made before the first layer
@example([*range(9), *range(9)[6::-1]], 0)  # a run over 0 to 8, then one over 6 to 0
@example([0, 1, 2, 3, 2, 3, 4, 5, 6, 7], 0)
def test_weights_behind_views_are_counted_as_often_as_they_are_there(picks, ahead):
    graph = products(picks, ahead)
    small = fold(graph)
    assert small.parameters == unfold(small).parameters == len(set(picks)) * 64 * 64
    for quantity in (lambda w: w.flops, lambda w: w.nbytes):
        assert total(small, quantity) == pytest.approx(total(graph, quantity), rel=1e-12)
    assert sum(small.counts) == len(graph.ops)


def test_a_run_does_not_start_between_a_view_and_its_use():
    """The first view is made before the run could start, the others inside it: it starts after the first product."""
    graph = products(range(10), ahead=0)
    first, second = graph.ops[:2]
    copy = Op(Kind.ELEMENTWISE, ("x",), ("c",), {"function": "neg", "numel": 8 * 64}, "neg")
    second = replace(second, inputs=("c", "v0"))
    tensors = {**graph.tensors, "c": replace(graph.tensors["x"], name="c", role=Role.ACTIVATION)}
    small = fold(replace(graph, tensors=tensors, ops=(first, copy, second, *graph.ops[2:])))
    (repeat,) = small.repeats
    assert small.parameters == 10 * 64 * 64
    assert small.ops[repeat.start].kind is not Kind.MATMUL


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
