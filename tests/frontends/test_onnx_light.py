"""The networks that ship with onnx against their literature: layer tables worked out by hand here.

Each table is written from the paper (or the Caffe prototxt that the file was converted from): output channels,
kernel, stride and groups, with floor division for pooling as Caffe2 had it. Where a figure is published for the same
geometry it is stated too.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")

import hwsim  # noqa: E402
from hwsim.graph import Kind, Role  # noqa: E402

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def conv(size: int, c_in: int, c_out: int, kernel: int, groups: int = 1) -> int:
    """MACs of a convolution with ``size`` x ``size`` outputs."""
    return size * size * c_out * (c_in // groups) * kernel * kernel


def alexnet() -> int:
    """Krizhevsky et al. 2012 with its two groups (BVLC), at 224 pixels: 54, 26, 12 and 6 positions a side."""
    convs = conv(54, 3, 96, 11) + conv(26, 96, 256, 5, 2) + conv(12, 256, 384, 3)
    return convs + conv(12, 384, 384, 3, 2) + conv(12, 384, 256, 3, 2) + 9216 * 4096 + 4096 * 4096 + 4096 * 1000


def zfnet512() -> int:
    """Zeiler and Fergus 2013 (strides 2 and 2 in front), 512 maps wide behind; the classifier is 4096, 1024, 1000."""
    convs = conv(109, 3, 96, 7) + conv(25, 96, 256, 5) + conv(12, 256, 512, 3) + 2 * conv(12, 512, 512, 3)
    return convs + 512 * 36 * 4096 + 4096 * 1024 + 1024 * 1000


def vgg19() -> int:
    """Simonyan and Zisserman 2014, configuration E. Published: 19.6 G multiply-adds, 143.67 M parameters."""
    total, channels = 0, 3
    for size, width, depth in ((224, 64, 2), (112, 128, 2), (56, 256, 4), (28, 512, 4), (14, 512, 4)):
        for _ in range(depth):
            total += conv(size, channels, width, 3)
            channels = width
    return total + 25088 * 4096 + 4096 * 4096 + 4096 * 1000


def squeezenet() -> int:
    """Iandola et al. 2016, version 1.1. Published with torchvision's weights: 0.349 G multiply-adds."""
    total, channels = conv(111, 3, 64, 3), 64
    fires = (
        (55, 16, 64),
        (55, 16, 64),
        (27, 32, 128),
        (27, 32, 128),
        (13, 48, 192),
        (13, 48, 192),
        (13, 64, 256),
        (13, 64, 256),
    )
    for size, squeeze, expand in fires:
        total += conv(size, channels, squeeze, 1) + conv(size, squeeze, expand, 1) + conv(size, squeeze, expand, 3)
        channels = 2 * expand
    return total + conv(13, channels, 1000, 1)


def resnet50() -> int:
    """He et al. 2015 with the stride in the 3x3 (v1.5). Published with torchvision's weights: 4.089 G multiply-adds."""
    total, channels = conv(112, 3, 64, 7), 64
    for size, width, blocks in ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)):
        for block in range(blocks):
            before = size * 2 if block == 0 and size < 56 else size
            total += conv(before, channels, width, 1) + conv(size, width, width, 3) + conv(size, width, 4 * width, 1)
            total += conv(size, channels, 4 * width, 1) if block == 0 else 0
            channels = 4 * width
    return total + 2048 * 1000


def densenet121() -> int:
    """Huang et al. 2016, growth 32. Published with torchvision's weights: 2.834 G multiply-adds."""
    total, channels = conv(112, 3, 64, 7), 64
    for size, layers in ((56, 6), (28, 12), (14, 24), (7, 16)):
        for _ in range(layers):
            total += conv(size, channels, 128, 1) + conv(size, 128, 32, 3)
            channels += 32
        if size > 7:
            total += conv(size, channels, channels // 2, 1)
            channels //= 2
    return total + channels * 1000


# Table 1 of Szegedy et al. 2014: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
GOOGLENET = (
    (27, (64, 96, 128, 16, 32, 32)), (27, (128, 128, 192, 32, 96, 64)),
    (13, (192, 96, 208, 16, 48, 64)), (13, (160, 112, 224, 24, 64, 64)), (13, (128, 128, 256, 24, 64, 64)),
    (13, (112, 144, 288, 32, 64, 64)), (13, (256, 160, 320, 32, 128, 128)),
    (6, (256, 160, 320, 32, 128, 128)), (6, (384, 192, 384, 48, 128, 128)),
)  # fmt: skip


def inception_v1() -> int:
    """Szegedy et al. 2014. Floor pooling makes the maps 55, 27, 13 and 6 wide (the paper's are 56, 28, 14 and 7)."""
    total, channels = conv(112, 3, 64, 7) + conv(55, 64, 64, 1) + conv(55, 64, 192, 3), 192
    for size, (one, three_in, three, five_in, five, pool) in GOOGLENET:
        reduced = conv(size, channels, one, 1) + conv(size, channels, three_in, 1) + conv(size, channels, five_in, 1)
        total += reduced + conv(size, three_in, three, 3) + conv(size, five_in, five, 5) + conv(size, channels, pool, 1)
        channels = one + three + five + pool
    return total + channels * 1000


# Ioffe and Szegedy 2015, figure 5: 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool projection.
BN_INCEPTION = (
    (28, (64, 64, 64, 64, 96, 32)), (28, (64, 64, 96, 64, 96, 64)), (14, (0, 128, 160, 64, 96, 0)),
    (14, (224, 64, 96, 96, 128, 128)), (14, (192, 96, 128, 96, 128, 128)), (14, (160, 128, 160, 128, 160, 96)),
    (14, (96, 128, 192, 160, 192, 96)), (7, (0, 128, 192, 192, 256, 0)),
    (7, (352, 192, 320, 160, 224, 128)), (7, (352, 192, 320, 192, 224, 128)),
)  # fmt: skip


def inception_v2() -> int:
    """Published: 2.0 G multiply-adds. A module without 1x1 halves the map: what reduces still sees the wide one."""
    total, channels = conv(112, 3, 64, 7) + conv(56, 64, 64, 1) + conv(56, 64, 192, 3), 192
    for size, (one, three_in, three, double_in, double, pool) in BN_INCEPTION:
        wide = size if one else 2 * size
        total += conv(size, channels, one, 1) + conv(wide, channels, three_in, 1) + conv(size, three_in, three, 3)
        total += conv(wide, channels, double_in, 1) + conv(wide, double_in, double, 3) + conv(size, double, double, 3)
        total += conv(size, channels, pool, 1)
        channels = one + three + double + pool if one else three + double + channels
    return total + channels * 1000


def shufflenet() -> int:
    """Zhang et al. 2017 with 4 groups, as Caffe2 built it: stages 136, 272 and 544 wide, no narrower bottleneck."""
    total, channels = conv(112, 3, 24, 3), 24
    for size, width, units in ((28, 136, 4), (14, 272, 8), (7, 544, 4)):
        for unit in range(units):
            # The first unit joins its input to its output, so it makes only the difference.
            made = width - channels if unit == 0 else width
            before = 2 * size if unit == 0 else size
            total += conv(before, channels, made, 1, 4) + conv(size, made, made, 3, made) + conv(size, made, made, 1, 4)
            channels = width
    return total + channels * 1000


NETWORKS = {
    "bvlc_alexnet": alexnet, "densenet121": densenet121, "inception_v1": inception_v1, "inception_v2": inception_v2,
    "resnet50": resnet50, "shufflenet": shufflenet, "squeezenet": squeezenet, "vgg19": vgg19, "zfnet512": zfnet512,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_equal_the_layer_table(name: str) -> None:
    graph = hwsim.load_onnx(LIGHT / f"light_{name}.onnx")
    assert graph.matmul_flops / 2 == pytest.approx(NETWORKS[name](), rel=1e-3)
    assert graph.unmodelled == ()


def test_published_figures() -> None:
    """Multiply-adds in units of 1e9 and parameters as published with torchvision's weights."""
    published = {"resnet50": 4.089, "vgg19": 19.632, "densenet121": 2.834, "squeezenet": 0.349}
    for name, figure in published.items():
        graph = hwsim.load_onnx(LIGHT / f"light_{name}.onnx")
        assert graph.matmul_flops / 2e9 == pytest.approx(figure, abs=6e-4), name


def test_parameters_equal_torchvision() -> None:
    """Caffe's DenseNet scales after each norm once more, which adds its 83,648 scales and shifts."""
    published = {
        "resnet50": 25_557_032,
        "vgg19": 143_667_240,
        "squeezenet": 1_235_496,
        "densenet121": 7_978_856 + 83_648,
    }
    for name, count in published.items():
        assert hwsim.load_onnx(LIGHT / f"light_{name}.onnx").parameters == count, name


def shapes(model: "onnx.ModelProto") -> Iterator[tuple[str, tuple[int, ...]]]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in inferred.graph.value_info:
        yield value.name, tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_shapes_equal_onnx_inference(name: str) -> None:
    """Independent of our rules: every tensor of the graph that onnx names too."""
    path = LIGHT / f"light_{name}.onnx"
    graph = hwsim.load_onnx(path)
    inferred = dict(shapes(onnx.load(path)))
    common = [tensor for tensor in graph.tensors.values() if tensor.name in inferred]
    assert len(common) > 30
    assert [t.name for t in common if t.shape != inferred[t.name]] == []


def test_dropout_is_free_and_weights_are_weights() -> None:
    graph = hwsim.load_onnx(LIGHT / "light_bvlc_alexnet.onnx", name="alexnet")
    assert graph.name == "alexnet" and graph.level == "onnx"
    assert {op.kind for op in graph.ops if op.source == "onnx::Dropout"} <= {Kind.VIEW, Kind.FILL}
    first = next(op for op in graph.ops if op.kind is Kind.CONV)
    assert [graph.tensors[name].role for name in first.inputs] == [Role.INPUT, Role.WEIGHT, Role.WEIGHT]
    # Five convolutions and three products, from the parameters of the paper's table.
    assert graph.parameters == 60_965_224
