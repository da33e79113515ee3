"""Mappers: every op in one kernel, work conserved, valid order, intermediates of a fused kernel never moved."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from toys import mlp, mlps, toy_device

from hwsim.device import load_device
from hwsim.fold import unfold
from hwsim.graph import Graph, Kind, Op, Role, Tensor
from hwsim.mapper import Launch, Policy
from hwsim.mappers.eager import Eager
from hwsim.mappers.fused import Fused

MAPPERS = [Eager(), Fused()]


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    return toy_device(tmp_path_factory.mktemp("card"))


def total(schedule, quantity):
    return sum(n * quantity(kernel) for kernel, n in zip(schedule.kernels, schedule.counts, strict=True))


@pytest.mark.parametrize("mapper", MAPPERS, ids=lambda mapper: mapper.name)
@settings(max_examples=30, deadline=None)
@given(graph=mlps())
def test_work_is_conserved(device, mapper, graph):
    schedule = mapper.schedule(graph, device, Policy())
    assert total(schedule, lambda k: k.work.matmul_flops) == pytest.approx(graph.matmul_flops)
    assert total(schedule, lambda k: k.work.flops) == pytest.approx(graph.flops)
    assert total(schedule, lambda k: k.work.bytes_of_role(Role.WEIGHT)) == pytest.approx(
        sum(tensor.nbytes for tensor in graph.of_role(Role.WEIGHT))
        if len({op.inputs[1] for op in graph.ops if op.kind is Kind.MATMUL}) > 1
        else sum(graph.tensors[op.inputs[1]].nbytes for op in graph.ops if op.kind is Kind.MATMUL)
    )


@pytest.mark.parametrize("mapper", MAPPERS, ids=lambda mapper: mapper.name)
def test_folded_and_unfolded_graphs_give_one_schedule(device, mapper):
    graph = mlp(layers=12)
    folded = mapper.schedule(graph, device, Policy())
    assert mapper.schedule(unfold(graph), device, Policy()) == folded


def test_eager_launches_each_op_from_the_host(device):
    schedule = Eager().schedule(mlp(layers=1), device, Policy())
    assert [kernel.name for kernel in schedule.kernels] == ["matmul", "relu", "add"]
    assert {kernel.launch for kernel in schedule.kernels} == {Launch.EAGER}


def test_fused_epilogue_moves_operands_and_result_only(device):
    """matmul + relu + add: x is read by both ends and counted once, as is the weight; only y is written."""
    rows, width = 8, 64
    (kernel,) = Fused().schedule(mlp(1, width, rows), device, Policy()).kernels
    assert kernel.kind is Kind.MATMUL
    assert kernel.name == "matmul+relu+add"
    assert kernel.read_bytes == 2 * (rows * width + width * width)
    assert kernel.write_bytes == 2 * rows * width


def graph_of(*ops):
    """Ops over 8x8 activations; `x` is the input and every name made is kept."""
    names = {name for op in ops for name in (*op.inputs, *op.outputs)}
    tensors = {name: Tensor(name, (8, 8), "fp32") for name in names}
    tensors["x"] = Tensor("x", (8, 8), "fp32", Role.INPUT)
    return Graph("g", tensors, ops)


def pointwise(function, inputs, output):
    return Op(Kind.ELEMENTWISE, tuple(inputs), (output,), {"function": function, "numel": 64}, function)


def product(left, right, output):
    return Op(Kind.MATMUL, (left, right), (output,), {"batch": 1, "m": 8, "n": 8, "k": 8}, "mm")


def test_fusion_does_not_close_a_cycle(device):
    """exp feeds a product whose result meets exp's own: the sum may not join exp's kernel, which must run before."""
    graph = graph_of(
        pointwise("exp", ["x"], "e"), product("e", "x", "p"), product("p", "e", "q"), pointwise("add", ["e", "q"], "s")
    )
    kernels = Fused().schedule(graph, device, Policy()).kernels
    assert [kernel.name for kernel in kernels] == ["exp", "matmul", "matmul+add"]


def test_a_norm_takes_its_neighbours(device):
    norm = Op(Kind.NORM, ("a",), ("n",), {"function": "rmsnorm", "rows": 8, "cols": 8}, "rms_norm")
    graph = graph_of(pointwise("add", ["x", "x"], "a"), norm, pointwise("mul", ["n", "x"], "m"))
    (kernel,) = Fused().schedule(graph, device, Policy()).kernels
    assert kernel.kind is Kind.NORM
    assert kernel.write_bytes == 64 * 4  # the sum is read by nobody else, the product is the result


def test_parallel_branches_that_meet_are_one_kernel(device):
    """x·cos and x·sin, made for their difference only, as in a rotary embedding."""
    graph = graph_of(
        pointwise("mul", ["x", "c"], "a"), pointwise("mul", ["x", "s"], "b"), pointwise("sub", ["a", "b"], "y")
    )
    (kernel,) = Fused().schedule(graph, device, Policy()).kernels
    assert kernel.name == "mul+sub"
    assert (kernel.read_bytes, kernel.write_bytes) == (3 * 256, 256)


def test_a_branch_that_others_read_stays_its_own_kernel(device):
    graph = graph_of(
        pointwise("exp", ["x"], "e"),
        product("e", "x", "p"),
        pointwise("neg", ["x"], "n"),
        pointwise("add", ["e", "n"], "s"),
        product("s", "p", "q"),
    )
    kernels = Fused().schedule(graph, device, Policy()).kernels
    assert [kernel.name for kernel in kernels] == ["exp", "matmul", "neg+add", "matmul"]


def test_memory_in_use_peaks_at_the_peak(device):
    schedule = Eager().schedule(mlp(layers=6), device, Policy())
    assert len(schedule.in_use) == len(schedule.kernels)
    assert max(schedule.in_use) == pytest.approx(sum(schedule.peak.values()))


def test_a_state_read_before_it_is_updated_is_read(device):
    """state · x, then state += x in place: the old value comes from memory once, the new one goes there once."""
    update = Op(Kind.ELEMENTWISE, ("state", "a"), ("state",), {"function": "add", "numel": 64}, "add_")
    graph = graph_of(pointwise("mul", ["state", "x"], "a"), update)
    state = Tensor("state", (8, 8), "fp32", Role.STATE)
    graph = Graph("g", {**graph.tensors, "state": state}, graph.ops)
    (kernel,) = Fused().schedule(graph, device, Policy()).kernels
    assert (kernel.read_bytes, kernel.write_bytes) == (2 * 256, 256)


@pytest.mark.parametrize("mapper", MAPPERS, ids=lambda mapper: mapper.name)
@pytest.mark.parametrize("name", ["nvidia-h200", "amd-epyc-7742", "sn40l"])
def test_a_batch_of_none_takes_launches_and_moves_nothing(mapper, name):
    """Formulas of matrix products are for sizes above zero; a runtime returns at once."""
    device = load_device(name)
    schedule = mapper.schedule(mlp(rows=0), device, Policy())
    assert total(schedule, lambda k: k.work.nbytes) == 0
    assert 0 <= total(schedule, lambda k: device.estimate(k).seconds) < 1e-4
