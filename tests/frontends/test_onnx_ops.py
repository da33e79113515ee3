"""Lowering of single ONNX operators and small patterns, against arithmetic done by hand."""

import pytest

pytest.importorskip("onnx")

import numpy as np
from onnx import numpy_helper
from onnx_nets import HALF, INT8, MICROSOFT, UINT8, Net, ints, only, weight

import hwsim
from hwsim.errors import GraphError
from hwsim.frontends.onnx_node import RULES, rule
from hwsim.graph import Graph, Kind, Role
from hwsim.work import compute_dtype, work_of


def test_a_second_rule_for_an_operator_is_a_defect() -> None:
    assert hwsim.load_onnx and len(RULES) > 200
    with pytest.raises(GraphError, match="MatMul exists already"):
        rule("MatMul")(lambda node: None)


# Shapes and views ------------------------------------------------------------------------------------------------


def test_shape_arithmetic_leaves_no_op(net: Net) -> None:
    """x [2, 6, 8] -> [2, 6, 2, 4] by Shape, Gather and Concat."""
    net.feed("x", 2, 6, 8)
    for name in ("zero", "one"):
        net.hold(ints(name, int(name == "one")))
    net.hold(ints("tail", 2, -1))
    net.add("Shape", ["x"], ["s"])
    net.add("Gather", ["s", "zero"], ["a"])
    net.add("Gather", ["s", "one"], ["b"])
    net.add("Concat", ["a", "b", "tail"], ["shape"], axis=0)
    net.add("Reshape", ["x", "shape"], ["y"])
    graph = net.load("y")
    assert [op.kind for op in graph.ops] == [Kind.VIEW]
    assert graph.tensors["y"].shape == (2, 6, 2, 4) and graph.tensors["y"].base == "x"
    assert graph.bytes_of(Role.BUFFER, Role.WEIGHT) == 0


def test_constants_are_folded_when_the_model_is_loaded(net: Net) -> None:
    """The transposed weight is the weight: one storage, no op, read once."""
    net.feed("x", 4, 8)
    net.hold(weight("w", 16, 8))
    net.add("Transpose", ["w"], ["t"], perm=[1, 0])
    net.add("MatMul", ["x", "t"], ["y"])
    graph = net.load("y")
    assert [op.kind for op in graph.ops] == [Kind.MATMUL]
    assert graph.tensors["t"].base == "w" and graph.tensors["t"].role is Role.WEIGHT
    assert graph.parameters == 128
    assert work_of(graph.ops[0], graph).bytes_of_role(Role.WEIGHT) == 128 * 4


def test_what_copies_and_what_is_free(net: Net) -> None:
    net.feed("x", 2, 3, 4, 1)
    net.hold(ints("three", 3))
    net.hold(ints("wide", 2, 3, 4, 5))
    net.add("Squeeze", ["x", "three"], ["a"])
    net.add("Transpose", ["a"], ["b"], perm=[0, 2, 1])
    net.add("Identity", ["b"], ["c"])
    net.add("Split", ["c"], ["d", "e"], axis=1, num_outputs=2)
    net.add("Concat", ["d", "e"], ["f"], axis=0)
    net.add("Transpose", ["x"], ["g"], perm=[0, 1, 3, 2])
    net.add("Expand", ["x", "wide"], ["h"])
    graph = net.load("f", "g", "h")
    kinds = [op.kind for op in graph.ops]
    assert kinds == [Kind.VIEW, Kind.COPY, Kind.VIEW, Kind.COPY, Kind.COPY, Kind.VIEW, Kind.COPY]
    assert graph.tensors["f"].shape == (4, 2, 3) and graph.tensors["h"].shape == (2, 3, 4, 5)


def test_a_slice_reads_what_it_keeps(net: Net) -> None:
    """The last row of each of 2 x 100 rows of 8: 2 runs of 8 floats read, not the whole."""
    net.feed("x", 2, 100, 8)
    for name, value in (("start", -1), ("end", 2**62), ("axis", 1)):
        net.hold(ints(name, value))
    net.add("Slice", ["x", "start", "end", "axis"], ["y"])
    graph = net.load("y")
    work = work_of(only(graph, Kind.GATHER), graph)
    assert graph.tensors["y"].shape == (2, 1, 8)
    assert work.read_bytes == work.write_bytes == 2 * 8 * 4


# Products --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bij,bjk->bik", ((3, 4, 5), (3, 5, 6)), 3 * 4 * 5 * 6),
        ("bhqd,bhkd->bhqk", ((2, 4, 7, 8), (2, 4, 9, 8)), 2 * 4 * 7 * 9 * 8),
        ("...ij,jk", ((2, 3, 4, 5), (5, 6)), 2 * 3 * 4 * 5 * 6),
        ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5)), 2 * 3 * 4 + 2 * 4 * 5),
        ("i,j->ij", ((4,), (5,)), 0),
        ("ij->ji", ((4, 5),), 0),
    ],
)
def test_einsum(net: Net, equation: str, shapes: tuple[tuple[int, ...], ...], macs: int) -> None:
    """numpy gives the shape, counting the indices of each pair of terms gives the multiply-adds."""
    names = [net.feed(f"x{index}", *shape) for index, shape in enumerate(shapes)]
    net.add("Einsum", names, ["y"], equation=equation)
    graph = net.load("y")
    assert graph.matmul_flops == 2 * macs
    assert graph.tensors["y"].shape == np.einsum(equation, *(np.zeros(shape) for shape in shapes)).shape


def test_one_weight_for_all_rows_is_one_product(net: Net) -> None:
    net.feed("x", 2, 3, 4, 8)
    net.hold(weight("w", 8, 5))
    net.add("MatMul", ["x", "w"], ["y"])
    op = only(net.load("y"), Kind.MATMUL)
    assert (op.size("batch"), op.size("m"), op.size("n"), op.size("k")) == (1, 24, 5, 8)


def test_gemm_transposes_as_it_reads(net: Net) -> None:
    net.feed("x", 8, 3)
    net.hold(weight("w", 5, 8))
    net.hold(weight("b", 5))
    net.add("Gemm", ["x", "w", "b"], ["y"], transA=1, transB=1)
    graph = net.load("y")
    assert graph.tensors["y"].shape == (3, 5) and graph.matmul_flops == 2 * 3 * 5 * 8
    assert graph.parameters == 45


def test_shapes_that_do_not_multiply_are_refused(net: Net) -> None:
    net.feed("x", 3, 4)
    net.hold(weight("w", 5, 6))
    net.add("MatMul", ["x", "w"], ["y"], name="bad")
    with pytest.raises(GraphError, match=r"node 'bad' .*: 3x4 and 5x6 do not multiply"):
        net.load("y")


# Quantisation ----------------------------------------------------------------------------------------------------


def quantised(net: Net, activations: bool) -> Graph:
    """DequantizeLinear of an int8 weight into a MatMul, with or without quantised activations."""
    net.feed("x", 4, 64)
    net.hold(weight("w", 64, 32, kind=INT8))
    net.hold(weight("scale", 32))
    net.hold(weight("one"))
    net.hold(weight("zero", kind=INT8))
    net.add("DequantizeLinear", ["w", "scale"], ["wide"], axis=1)
    source = "x"
    if activations:
        net.add("QuantizeLinear", ["x", "one", "zero"], ["q"])
        net.add("DequantizeLinear", ["q", "one", "zero"], ["d"])
        source = "d"
    net.add("MatMul", [source, "wide"], ["y"])
    return net.load("y")


def test_a_quantised_weight_is_read_at_its_width(net: Net) -> None:
    graph = quantised(net, activations=False)
    op = only(graph, Kind.MATMUL)
    assert [op.kind for op in graph.ops] == [Kind.MATMUL]
    assert work_of(op, graph).bytes_of_role(Role.WEIGHT) == 64 * 32
    assert compute_dtype(op, graph) == "fp32"


def test_both_sides_quantised_use_integer_units(net: Net) -> None:
    graph = quantised(net, activations=True)
    op = only(graph, Kind.MATMUL)
    assert compute_dtype(op, graph) == "int8"
    assert [op.kind for op in graph.ops] == [Kind.ELEMENTWISE, Kind.VIEW, Kind.MATMUL]
    assert work_of(op, graph).read_bytes == 4 * 64 + 64 * 32
    assert graph.tensors["y"].dtype == "fp32"


def test_packed_four_bit_weight(net: Net) -> None:
    """K = 64, N = 32 in 4 bits: half a byte each, and a scale per block of 32."""
    net.feed("x", 4, 64, kind=HALF)
    net.hold(weight("w", 32, 2, 16, kind=UINT8))
    net.hold(weight("scales", 64, kind=HALF))
    net.add("MatMulNBits", ["x", "w", "scales"], ["y"], MICROSOFT, K=64, N=32, bits=4, block_size=32)
    graph = net.load("y")
    op = only(graph, Kind.MATMUL)
    assert graph.matmul_flops == 2 * 4 * 64 * 32
    assert graph.parameters == 64 * 32 + 64
    assert work_of(op, graph).bytes_of_role(Role.WEIGHT) == 64 * 32 / 2 + 64 * 2
    assert compute_dtype(op, graph) == "fp16" and graph.tensors["y"].dtype == "fp16"


def test_integer_operators(net: Net) -> None:
    net.feed("x", 1, 3, 8, 8, kind=UINT8)
    net.hold(numpy_helper.from_array(np.zeros((16, 3, 3, 3), np.int8), "w"))
    net.hold(numpy_helper.from_array(np.zeros(16, np.int32), "bias"))
    for name in ("sx", "sw", "sy"):
        net.hold(weight(name))
    for name, kind in (("zx", UINT8), ("zw", INT8), ("zy", UINT8)):
        net.hold(weight(name, kind=kind))
    net.add("QLinearConv", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "bias"], ["y"], pads=[1, 1, 1, 1])
    graph = net.load("y")
    op = only(graph, Kind.CONV)
    assert compute_dtype(op, graph) == "int8" and graph.tensors["y"].dtype == "uint8"
    assert graph.matmul_flops == 2 * 64 * 16 * 27
    assert graph.parameters == 16 * 27 + 16
    assert {name for name in op.inputs if graph.tensors[name].role is Role.WEIGHT} == {"w", "bias"}
    assert work_of(op, graph).bytes_of_role(Role.WEIGHT) == 16 * 27 + 16 * 4


@pytest.mark.parametrize("coordinates", [2**40, 3, 1])
def test_a_grid_names_as_many_coordinates_as_there_are_axes(net: Net, coordinates: int) -> None:
    net.feed("x", 1, 3, 8, 8)
    net.feed("grid", 1, 4, 4, coordinates)
    net.add("GridSample", ["x", "grid"], ["y"])
    with pytest.raises(GraphError, match=f"a grid of {coordinates} coordinates does not suit 2 axes"):
        net.load("y")


def test_convolutions(net: Net) -> None:
    """A depthwise stride 2, then a transposed one that doubles the map: 2 x 2 taps meet each input position."""
    net.feed("x", 2, 8, 16, 16)
    net.hold(weight("d", 8, 1, 3, 3))
    net.hold(weight("t", 8, 4, 2, 2))
    net.add("Conv", ["x", "d"], ["small"], group=8, strides=[2, 2], pads=[1, 1, 1, 1])
    net.add("ConvTranspose", ["small", "t"], ["y"], strides=[2, 2])
    graph = net.load("y")
    assert graph.tensors["small"].shape == (2, 8, 8, 8) and graph.tensors["y"].shape == (2, 4, 16, 16)
    assert graph.matmul_flops == 2 * 2 * (64 * 8 * 9 + 64 * 8 * 4 * 4)
