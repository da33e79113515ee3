"""Lowering of ONNX attention, caches and recurrent layers, against arithmetic done by hand."""

import pytest

pytest.importorskip("onnx")

from onnx_nets import HALF, INT64, Net, only, weight

from hwsim.errors import GraphError
from hwsim.graph import Kind, Role
from hwsim.work import work_of


def test_attention_appends_to_its_cache(net: Net) -> None:
    """One token against 7 past ones, 4 heads over 2: only new rows are written, the whole cache is read once."""
    net.feed("q", 3, 4, 1, 16, kind=HALF)
    net.feed("k", 3, 2, 1, 16, kind=HALF)
    net.feed("v", 3, 2, 1, 16, kind=HALF)
    net.feed("past_k", 3, 2, 7, 16, kind=HALF)
    net.feed("past_v", 3, 2, 7, 16, kind=HALF)
    net.add("Attention", ["q", "k", "v", "", "past_k", "past_v"], ["y", "new_k", "new_v"], is_causal=1)
    graph = net.load("y", "new_k", "new_v")
    op = only(graph, Kind.ATTENTION)
    assert graph.matmul_flops == 2 * 3 * 4 * 1 * 8 * (16 + 16)
    assert op.size("kv_heads") == 2 and op.flag("causal")
    assert graph.bytes_of(Role.STATE) == 2 * 3 * 2 * 8 * 16 * 2
    assert work_of(op, graph).bytes_of_role(Role.STATE) == 2 * 3 * 2 * 8 * 16 * 2
    writes = [work_of(op, graph) for op in graph.ops if op.kind is Kind.WRITE]
    assert [work.write_bytes for work in writes] == [3 * 2 * 16 * 2] * 2
    assert graph.storage("past_k") == "new_k"


def test_a_fixed_cache_is_written_in_place(net: Net) -> None:
    net.feed("cache", 2, 4, 100, 8)
    net.feed("new", 2, 4, 3, 8)
    net.feed("at", 2, kind=INT64)
    net.add("TensorScatter", ["cache", "new", "at"], ["out"])
    graph = net.load("out")
    op = only(graph, Kind.WRITE)
    assert work_of(op, graph).write_bytes == 2 * 4 * 3 * 8 * 4
    assert graph.tensors["out"].base == "cache" and graph.bytes_of(Role.STATE) == 2 * 4 * 100 * 8 * 4


def test_concat_on_a_cache_is_an_append_and_others_copy(net: Net) -> None:
    net.feed("past", 2, 4, 7, 8)
    net.feed("new", 2, 4, 1, 8)
    net.add("Concat", ["past", "new"], ["present"], axis=2)
    net.add("Concat", ["present", "present"], ["twice"], axis=2)
    net.add("Relu", ["twice"], ["y"])
    graph = net.load("present", "y")
    assert [op.kind for op in graph.ops] == [Kind.WRITE, Kind.COPY, Kind.ELEMENTWISE]
    assert graph.tensors["past"].role is Role.STATE and graph.bytes_of(Role.STATE) == 2 * 4 * 8 * 8 * 4


def test_linear_attention_keeps_its_state(net: Net) -> None:
    """A gated delta rule over one token: 7 FLOP for each of d_k x d_v a head."""
    net.opset = 27
    net.feed("q", 2, 1, 64)
    net.feed("k", 2, 1, 64)
    net.feed("v", 2, 1, 128)
    net.feed("past", 2, 4, 16, 32)
    net.feed("decay", 2, 1, 4)
    net.feed("beta", 2, 1, 4)
    net.add("LinearAttention", ["q", "k", "v", "past", "decay", "beta"], ["y", "state"], q_num_heads=4, kv_num_heads=4)
    graph = net.load("y", "state")
    op = only(graph, Kind.RECURRENCE)
    assert work_of(op, graph).vector_flops == 2 * 4 * 7 * 16 * 32
    assert graph.bytes_of(Role.STATE) == 2 * 4 * 16 * 32 * 4
    assert graph.tensors["y"].shape == (2, 1, 128)


def test_recurrent_layers_run_their_steps(net: Net) -> None:
    """LSTM, bidirectional, T 7, B 2, I 5, H 3: both products of 4H columns for each step."""
    net.feed("x", 7, 2, 5)
    net.hold(weight("w", 2, 12, 5))
    net.hold(weight("r", 2, 12, 3))
    net.hold(weight("b", 2, 24))
    net.add("LSTM", ["x", "w", "r", "b"], ["y", "h", "c"], hidden_size=3, direction="bidirectional")
    graph = net.load("y", "h", "c")
    assert graph.matmul_flops == 2 * 7 * 2 * 2 * 12 * (5 + 3)
    assert graph.parameters == 2 * 12 * 5 + 2 * 12 * 3 + 48
    assert [repeat.count for repeat in graph.repeats] == [7, 7]
    assert graph.tensors["y"].shape == (7, 2, 2, 3)
    assert graph.bytes_of(Role.WEIGHT) == graph.parameters * 4


@pytest.mark.parametrize("directions", [0, 3])
def test_recurrent_layers_have_one_direction_or_two(net: Net, directions: int) -> None:
    net.feed("x", 7, 2, 5)
    net.hold(weight("w", directions, 12, 5))
    net.hold(weight("r", directions, 12, 3))
    net.add("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)
    with pytest.raises(GraphError, match=f"{directions} directions; expected 1 or 2"):
        net.load("y")
