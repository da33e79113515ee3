"""Operators that onnxruntime contributes: shapes against its own runs."""

import pytest

pytest.importorskip("onnx")

import numpy as np
from onnx import helper, numpy_helper
from onnx_nets import FLOAT, INT64, MICROSOFT, Net, only

from hwsim.graph import Kind
from hwsim.work import work_of


def contributed(net: Net, case: str) -> list[str]:
    """One com.microsoft operator with inputs, its output names returned."""
    if case == "MultiHeadAttention":
        names = [net.feed(name, 2, 3, 32) for name in "qkv"] + ["", "", ""]
        names += [net.feed(name, 2, 4, 5, 8) for name in ("pk", "pv")]
        net.add(case, names, ["y", "nk", "nv"], MICROSOFT, num_heads=4)
        return ["y", "nk", "nv"]
    if case == "GroupQueryAttention":
        names = [net.feed("q", 2, 1, 32), net.feed("k", 2, 1, 16), net.feed("v", 2, 1, 16)]
        names += [net.feed(name, 2, 2, 9, 8) for name in ("pk", "pv")]
        names += [
            net.hold(numpy_helper.from_array(np.array([5, 6], np.int32), "lens")),
            net.hold(numpy_helper.from_array(np.int32(7), "total")),
        ]
        net.add(case, names, ["y", "nk", "nv"], MICROSOFT, num_heads=4, kv_num_heads=2)
        return ["y", "nk", "nv"]
    if case == "SkipLayerNormalization":
        names = [net.feed("a", 2, 3, 8), net.feed("b", 2, 3, 8), net.feed("g", 8), net.feed("h", 8)]
        net.add(case, names, ["y", "", "", "s"], MICROSOFT)
        return ["y", "s"]
    if case == "FusedMatMul":
        net.add(case, [net.feed("a", 2, 5, 3), net.feed("b", 2, 7, 5)], ["y"], MICROSOFT, transA=1, transB=1)
        return ["y"]
    if case == "RotaryEmbedding":
        names = [
            net.feed("x", 2, 4, 3, 8),
            net.feed("at", 2, 3, kind=INT64),
            net.feed("cos", 50, 4),
            net.feed("sin", 50, 4),
        ]
        net.add(case, names, ["y"], MICROSOFT)
        return ["y"]
    names = [net.feed("x", 2, 3, 32), net.feed("w", 32, 96), net.feed("b", 96)]
    net.add("Attention", names, ["y", "present"], MICROSOFT, num_heads=4)
    return ["y", "present"]


CONTRIBUTED = {
    "MultiHeadAttention": 2 * 2 * 4 * 3 * 8 * 16,
    "GroupQueryAttention": 2 * 2 * 4 * 1 * 7 * 16,
    "SkipLayerNormalization": 0,
    "FusedMatMul": 2 * 2 * 3 * 7 * 5,
    "RotaryEmbedding": 0,
    "Attention": 2 * 6 * 32 * 96 + 2 * 2 * 4 * 3 * 3 * 16,
}


@pytest.mark.parametrize("case", CONTRIBUTED)
def test_contributed_operators(net: Net, case: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    net.opset = 17
    outputs = contributed(net, case)
    graph = net.load(*outputs)
    assert graph.matmul_flops == CONTRIBUTED[case] and graph.unmodelled == ()
    model = net.model(*outputs)
    for value in model.graph.output:
        value.CopyFrom(helper.make_tensor_value_info(value.name, FLOAT, None))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {}
    for value in net.inputs:
        tensor = value.type.tensor_type
        kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        feeds[value.name] = np.zeros([dim.dim_value for dim in tensor.shape.dim], kind)
    for name, array in zip(outputs, session.run(outputs, feeds), strict=True):
        assert graph.tensors[name].shape == array.shape, name


def test_rotary_tables_are_read_by_the_row(net: Net) -> None:
    net.opset = 17
    contributed(net, "RotaryEmbedding")
    graph = net.load("y")
    work = work_of(only(graph, Kind.ELEMENTWISE), graph)
    # x, 3 rows of 4 of each table, and the positions.
    assert work.read_bytes == 2 * 4 * 3 * 8 * 4 + 2 * 3 * 4 * 4 + 2 * 3 * 8
