"""Binding: what graphs of one structure share changes nothing about any of them."""

from __future__ import annotations

import pytest

from hwsim.capture import find_model
from hwsim.device import load_device, plain_roofline
from hwsim.engine import run
from hwsim.errors import GraphError
from hwsim.graph import Graph, Kind, Op, Role, Tensor
from hwsim.mapper import Policy
from hwsim.mappers import eager, fused, kernels
from hwsim.precision import in_precision
from hwsim.simulation import load_mapper, with_optimizer
from hwsim.sizes import symbol
from hwsim.work import work_of

CASES = [
    ("llama-3.1-8b", "decode", "bf16"),
    ("llama-3.1-8b", "prefill", "int4"),
    ("llama-3.2-1b", "train", "fp32"),
    ("mixtral-8x7b", "decode", "fp8"),
    ("mamba2-130m", "prefill", "bf16"),
    ("sambay-3.8b", "decode", "int8"),
    ("resnet-18", "train", "bf16"),
    ("switch-base-8", "prefill", "fp16"),
]
SIZES = [(1, 128), (64, 1000), (1, 129)]  # (batch, prompt), some alike where others differ


def written_out(graph: Graph) -> Graph:
    """The same graph, nothing known about it yet."""
    tensors = {name: Tensor(t.name, t.shape, t.dtype, t.role, t.base, t.distinct) for name, t in graph.tensors.items()}
    return Graph(graph.name, tensors, graph.ops, graph.repeats, graph.level)


@pytest.mark.parametrize("mapper", ["eager", "fused", "recorded"])
@pytest.mark.parametrize(("model", "phase", "dtype"), CASES)
def test_cases_of_one_structure_are_scheduled_as_if_alone(model, phase, dtype, mapper):
    """In a row through the caches, and each on its own with a structure that no cache has seen."""
    device = plain_roofline(load_device("nvidia-h200").card)
    free = in_precision(find_model(model).capture(phase), dtype)
    chosen, policy = load_mapper(mapper), Policy(spill=True)
    for batch, prompt in (*SIZES, SIZES[0]):
        bound = free.bind(batch=batch, prompt=prompt)
        alone = written_out(bound)
        assert bound.structure is free.structure is not alone.structure
        assert (bound.nbytes, bound.elements) == (alone.nbytes, alone.elements)
        shared, fresh = (chosen.schedule(graph, device, policy) for graph in (bound, alone))
        assert shared == fresh
        assert run(shared, device).spans == run(fresh, device).spans


@pytest.mark.parametrize("model", ["llama-3.2-1b", "mamba2-130m", "resnet-18"])
def test_the_optimizer_may_come_before_the_sizes(model):
    free = find_model(model).capture("train")
    sizes = {"batch": 2, "prompt": 512}
    first, last = with_optimizer(free).bind(**sizes), with_optimizer(free.bind(**sizes))
    assert first == last
    assert [work_of(op, first) for op in first.ops] == [work_of(op, last) for op in last.ops]


def test_fusion_follows_the_sizes_of_each_case():
    """x + x over 8·n elements, then a product's epilogue of 64: they are one space for n = 8 only."""
    n = symbol("n")
    tensors = {name: Tensor(name, (n, 8), "fp32") for name in ("x", "a")}
    tensors |= {"x": Tensor("x", (n, 8), "fp32", Role.INPUT), "y": Tensor("y", (8, 8), "fp32", Role.OUTPUT)}
    ops = (
        Op(Kind.ELEMENTWISE, ("x", "x"), ("a",), {"function": "add", "numel": 8 * n}),
        Op(Kind.ELEMENTWISE, ("a",), ("y",), {"function": "neg", "numel": 64}),
    )
    graph, device = Graph("g", tensors, ops), load_device("nvidia-h200")
    found = [len(fused.Fused().schedule(graph.bind(n=size), device, Policy()).kernels) for size in (4, 8, 16, 8)]
    assert found == [2, 1, 2, 1]


def test_changed_graphs_have_a_structure_of_their_own():
    """An int8 model, a training step and a graph that somebody edits share nothing with what they came from."""
    graph = find_model("llama-3.2-1b").capture("train")
    others = [in_precision(graph, "fp32"), with_optimizer(graph), written_out(graph)]
    assert len({id(other.structure) for other in (graph, *others)}) == 4
    assert in_precision(graph, "bf16") is graph


def test_caches_are_bounded():
    for function in (kernels._plan, fused._groups, eager._alone):
        assert function.cache_info().maxsize


def test_free_sizes_are_named():
    free = find_model("llama-3.2-1b").capture("decode")
    with pytest.raises(GraphError, match="size 'prompt' is free: give it a value"):
        free.bind(batch=1)
    with pytest.raises(GraphError, match="free"):
        free.nbytes  # noqa: B018
