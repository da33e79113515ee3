"""How operands lie in memory, against torch's own tests, and what the trace makes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

import hwsim  # noqa: E402
from hwsim.frontends.aten_layout import contiguous, dense  # noqa: E402
from hwsim.graph import Kind, Op  # noqa: E402


@st.composite
def views(draw):
    """A tensor of up to four dimensions, cut, permuted and broadcast."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    whole = torch.empty([size + draw(st.integers(0, 1)) for size in shape])
    cut = whole[tuple(slice(0, size) for size in shape)].permute(draw(st.permutations(range(len(shape)))))
    dim = draw(st.integers(0, cut.dim() - 1))
    return cut.expand(*(3 if at == dim and size == 1 else -1 for at, size in enumerate(cut.shape)))


@given(views())
def test_layouts_are_what_torch_says(tensor):
    assert contiguous(tensor) == tensor.is_contiguous()
    assert dense(tensor) == torch.ops.aten.is_non_overlapping_and_dense(tensor)


class Calls(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def ops(function, *tensors) -> list[Op]:
    graph = hwsim.trace(Calls(function), tensors)
    return [op for op in graph.ops if op.kind is not Kind.VIEW]


@pytest.mark.parametrize(
    ("function", "flags"),
    [
        (lambda x, y: x + y, set()),
        (lambda x, y: x.transpose(1, 2) * y.transpose(1, 2), set()),  # both the same way: walked over as they lie
        (lambda x, y: x * 2.0, set()),
        (lambda x, y: x * y[:, :, :1], {"gaps"}),
        (lambda x, y: F.silu(x[:, :, 3:]), {"gaps"}),
        (lambda x, y: x.transpose(0, 1) + y.view(5, 3, 7), {"gaps"}),  # runs of 7 in another order
        (lambda x, y: x.transpose(1, 2) + y.view(3, 7, 5), {"gaps", "across"}),
    ],
)
def test_elementwise_ops_tell_how_their_operands_lie(function, flags):
    (op,) = [op for op in ops(function, torch.empty(3, 5, 7), torch.empty(3, 5, 7)) if op.kind is Kind.ELEMENTWISE]
    assert {name for name in ("gaps", "across") if op.attrs.get(name)} == flags


def test_a_convolution_of_transposed_sequences_copies_them_first():
    weight = torch.empty(8, 1, 4)
    kinds = [op.kind for op in ops(lambda x: F.conv1d(x.transpose(1, 2), weight, groups=8), torch.empty(2, 16, 8))]
    assert kinds == [Kind.COPY, Kind.CONV]
    straight = [op.kind for op in ops(lambda x: F.conv1d(x, weight, groups=8), torch.empty(2, 8, 16))]
    assert straight == [Kind.CONV]


def test_images_with_channels_last_are_taken_as_they_are():
    images, weight = torch.empty(2, 8, 16, 16).to(memory_format=torch.channels_last), torch.empty(4, 8, 3, 3)
    assert [op.kind for op in ops(lambda x: F.conv2d(x, weight), images)] == [Kind.CONV]


def test_a_transposed_copy_reads_lone_elements_and_one_of_heads_whole_ones():
    (copy,) = ops(lambda x: x.transpose(0, 1).contiguous(), torch.empty(64, 32))
    assert copy.size("run") == 1
    (heads,) = ops(lambda x: x.transpose(1, 2).contiguous(), torch.empty(2, 16, 4, 64))
    assert heads.flag("strided") and "run" not in heads.attrs
