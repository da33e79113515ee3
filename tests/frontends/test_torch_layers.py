"""Every layer and loss of torch.nn, forward and backward: matrix FLOPs equal torch's counter, nothing unmodelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
hypothesis = pytest.importorskip("hypothesis")

import torch.nn.functional as F  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import hwsim  # noqa: E402
from hwsim.graph import Kind  # noqa: E402

fast = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Call(nn.Module):
    """A function of the output of a layer."""

    def __init__(self, function: Callable[[Tensor], Any], layer: nn.Module) -> None:
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, x: Tensor) -> Any:
        return self.function(self.layer(x))


def agree(module: nn.Module, args: tuple[Tensor, ...], counted: Callable[..., int]) -> None:
    """Forward and backward traces count what torch counts and know every op."""
    for backward in (False, True):
        graph = hwsim.trace(module, args, backward=backward)
        assert graph.matmul_flops == counted(module, *args, backward=backward)
        assert not graph.unmodelled
        assert graph.parameters == sum(p.numel() for p in module.parameters())
        assert graph.flops >= graph.matmul_flops
        graph.to_frame()


small = st.integers(1, 3)


@fast
@given(data=st.data(), dims=st.integers(1, 3), transposed=st.booleans(), groups=small, bias=st.booleans())
def test_convolutions(
    data: st.DataObject, dims: int, transposed: bool, groups: int, bias: bool, counted_flops: Callable[..., int]
) -> None:
    kernel, stride, dilation, padding = (data.draw(small) for _ in range(4))
    inputs, outputs = (groups * data.draw(small) for _ in range(2))
    layers = {
        1: (nn.Conv1d, nn.ConvTranspose1d),
        2: (nn.Conv2d, nn.ConvTranspose2d),
        3: (nn.Conv3d, nn.ConvTranspose3d),
    }
    layer = layers[dims][transposed](inputs, outputs, kernel, stride=stride, padding=min(padding, kernel - 1),
                                     dilation=dilation, groups=groups, bias=bias)  # fmt: skip
    size = data.draw(st.integers(7, 9))
    agree(nn.Sequential(layer, nn.Tanh()), (torch.randn(data.draw(small), inputs, *[size] * dims),), counted_flops)


@fast
@given(batch=small, tokens=st.integers(1, 5), width=st.integers(1, 8), out=st.integers(1, 8), bias=st.booleans())
def test_linear(batch: int, tokens: int, width: int, out: int, bias: bool, counted_flops: Callable[..., int]) -> None:
    layer = nn.Sequential(nn.Linear(width, out, bias), nn.GELU(), nn.Linear(out, width))
    agree(layer, (torch.randn(batch, tokens, width),), counted_flops)


@fast
@given(
    batch=small, heads=st.sampled_from([2, 4]), queries=st.integers(2, 5), keys=st.integers(2, 5), causal=st.booleans()
)
def test_attention(
    batch: int, heads: int, queries: int, keys: int, causal: bool, counted_flops: Callable[..., int]
) -> None:
    def attend(x: Tensor) -> Tensor:
        q, kv = x[:, :, :queries], x[:, :, queries:]
        return F.scaled_dot_product_attention(q, kv, kv, is_causal=causal)

    agree(Call(attend, nn.Linear(8, 8)), (torch.randn(batch, heads, queries + keys, 8),), counted_flops)


def test_bilinear_is_counted_although_torch_does_not() -> None:
    graph = hwsim.trace(nn.Bilinear(4, 5, 6), (torch.randn(3, 4), torch.randn(3, 5)))
    assert graph.matmul_flops == 2 * 3 * 4 * 5 * 6


def test_recurrent_layers() -> None:
    # On the CPU torch runs one op that its counter does not know: gates · hidden · (input + hidden) MACs a step.
    for layer, gates in ((nn.RNN(5, 6), 1), (nn.GRU(5, 6), 3), (nn.LSTM(5, 6), 4)):
        graph = hwsim.trace(layer, (torch.randn(4, 2, 5),), backward=False)
        assert graph.matmul_flops == 2 * 4 * 2 * gates * 6 * (5 + 6)
        assert not hwsim.trace(layer, (torch.randn(4, 2, 5),), backward=True).unmodelled


def test_mixture_of_experts() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 8, 16))

        def forward(self, rows: Tensor, ends: Tensor) -> Tensor:
            return F.grouped_mm(rows, self.weight, offs=ends)

    args = torch.randn(12, 8), torch.tensor([3, 6, 9, 12], dtype=torch.int32)
    (op,) = (op for op in hwsim.trace(Experts(), args).ops if op.kind is Kind.MATMUL)
    assert dict(op.attrs) == {"batch": 1, "m": 12, "n": 16, "k": 8, "experts": 4}
    assert hwsim.trace(Experts(), args, backward=True).matmul_flops == 2 * 2 * 12 * 16 * 8


ON_ROWS: list[nn.Module] = [
    nn.ELU(), nn.Hardshrink(), nn.Hardsigmoid(), nn.Hardtanh(), nn.Hardswish(), nn.LeakyReLU(), nn.LogSigmoid(),
    nn.PReLU(), nn.ReLU(), nn.ReLU6(), nn.RReLU(), nn.SELU(), nn.CELU(), nn.GELU(), nn.GELU("tanh"), nn.Sigmoid(),
    nn.SiLU(), nn.Mish(), nn.Softplus(), nn.Softshrink(), nn.Softsign(), nn.Tanh(), nn.Tanhshrink(),
    nn.Threshold(0.1, 2.0), nn.GLU(), nn.Softmin(-1), nn.Softmax(-1), nn.LogSoftmax(-1), nn.Dropout(),
    nn.AlphaDropout(), nn.FeatureAlphaDropout(), nn.ReLU(inplace=True), nn.SiLU(inplace=True), nn.LayerNorm(8),
    nn.RMSNorm(8), nn.Flatten(), nn.Identity(),
]  # fmt: skip
ON_SIGNALS: list[nn.Module] = [
    nn.BatchNorm1d(4), nn.InstanceNorm1d(4, affine=True), nn.GroupNorm(2, 4), nn.LocalResponseNorm(2), nn.MaxPool1d(2),
    nn.AvgPool1d(2), nn.LPPool1d(2, 2), nn.AdaptiveAvgPool1d(3), nn.AdaptiveMaxPool1d(3), nn.Upsample(scale_factor=2),
    nn.Upsample(scale_factor=2, mode="linear"), nn.ReflectionPad1d(1), nn.ReplicationPad1d(1), nn.ZeroPad1d(1),
    nn.CircularPad1d(1), nn.Dropout1d(),
]  # fmt: skip
ON_IMAGES: list[nn.Module] = [
    nn.BatchNorm2d(4), nn.InstanceNorm2d(4, track_running_stats=True), nn.MaxPool2d(2), nn.AvgPool2d(2),
    nn.AdaptiveAvgPool2d((2, 3)), nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(2), nn.Upsample(scale_factor=2),
    nn.UpsamplingBilinear2d(scale_factor=2), nn.Upsample(scale_factor=2, mode="bicubic"), nn.Dropout2d(),
    nn.ReflectionPad2d(1), nn.ReplicationPad2d(1), nn.LPPool2d(2, 2), nn.FractionalMaxPool2d(2, output_size=3),
    nn.Softmax2d(), nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.ChannelShuffle(2), nn.Unfold(2),
]  # fmt: skip
ON_VOLUMES: list[nn.Module] = [
    nn.BatchNorm3d(4), nn.MaxPool3d(2), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d(2), nn.AdaptiveMaxPool3d(2),
    nn.Upsample(scale_factor=2, mode="trilinear"), nn.Dropout3d(),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "layers", "shape"),
    [
        (nn.Linear(8, 8), ON_ROWS, (2, 4, 8)),
        (nn.Conv1d(4, 4, 1), ON_SIGNALS, (2, 4, 8)),
        (nn.Conv2d(4, 4, 1), ON_IMAGES, (2, 4, 8, 8)),
        (nn.Conv3d(4, 4, 1), ON_VOLUMES, (2, 4, 4, 4, 4)),
    ],
    ids=["rows", "signals", "images", "volumes"],
)
def test_layers(
    before: nn.Module, layers: list[nn.Module], shape: tuple[int, ...], counted_flops: Callable[..., int]
) -> None:
    for layer in layers:
        agree(nn.Sequential(before, layer), (torch.randn(shape),), counted_flops)


def test_embeddings(counted_flops: Callable[..., int]) -> None:
    bags = [nn.EmbeddingBag(10, 4, mode=mode) for mode in ("sum", "mean", "max")]
    for layer in (nn.Embedding(10, 4, padding_idx=0), *bags):
        agree(layer, (torch.randint(10, (3, 5)),), counted_flops)


def test_transformer_layers(counted_flops: Callable[..., int]) -> None:
    x = torch.randn(4, 2, 8)
    agree(nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True, add_zero_attn=True),
          (x, torch.randn(3, 2, 4), torch.randn(3, 2, 6)), counted_flops)  # fmt: skip
    agree(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), (x,), counted_flops)
    agree(nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0), (x, x), counted_flops)


def test_losses(counted_flops: Callable[..., int]) -> None:
    wanted, labels = torch.randn(3, 6), torch.randint(6, (3,))
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.l1_loss(x, wanted), lambda x: F.mse_loss(x, wanted), lambda x: F.cross_entropy(x, labels),
        lambda x: F.cross_entropy(x, labels, label_smoothing=0.1), lambda x: F.nll_loss(x, labels),
        lambda x: F.ctc_loss(x.log_softmax(-1)[:, None].expand(3, 2, 6), torch.tensor([[1, 2], [3, 4]]),
                             torch.tensor([3, 3]), torch.tensor([2, 2])),
        lambda x: F.poisson_nll_loss(x, wanted.abs(), full=True), lambda x: F.kl_div(x, wanted, reduction="batchmean"),
        lambda x: F.binary_cross_entropy_with_logits(x, wanted.sigmoid()),
        lambda x: F.binary_cross_entropy(x.sigmoid(), wanted.sigmoid()),
        lambda x: F.margin_ranking_loss(x, wanted, wanted.sign()), lambda x: F.hinge_embedding_loss(x, wanted.sign()),
        lambda x: F.multilabel_margin_loss(x, labels[:, None].expand(3, 6)), lambda x: F.huber_loss(x, wanted),
        lambda x: F.smooth_l1_loss(x, wanted), lambda x: F.soft_margin_loss(x, wanted.sign()),
        lambda x: F.multilabel_soft_margin_loss(x, (wanted > 0).float()), lambda x: F.multi_margin_loss(x, labels),
        lambda x: F.cosine_embedding_loss(x, wanted, torch.ones(3)),
        lambda x: F.triplet_margin_loss(x, wanted, wanted + 1),
    ]  # fmt: skip
    for loss in losses:
        agree(Call(loss, nn.Linear(8, 6)), (torch.randn(3, 8),), counted_flops)


def test_functions(counted_flops: Callable[..., int]) -> None:
    index = torch.zeros(3, 2, dtype=torch.int64)
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: torch.cdist(x, x + 1), F.pdist, lambda x: F.cosine_similarity(x, x),
        lambda x: torch.einsum("ij,kj->ik", x, x),
        lambda x: torch.fft.irfft(torch.fft.rfft(x)), lambda x: x.sort(-1)[0], lambda x: x.topk(2)[0],
        lambda x: x.cumsum(-1), lambda x: x[torch.tensor([0, 2])], lambda x: torch.where(x > 0, x, 0.0),
        lambda x: x.var(-1), lambda x: x.median(-1)[0], torch.tril, lambda x: x.roll(1, 0), F.normalize,
        lambda x: x.logsumexp(-1), lambda x: torch.stack([x, x]), lambda x: x.gather(1, index),
        lambda x: x.scatter(1, index, 1.0), lambda x: torch.outer(x[0], x[1]), lambda x: x.clamp(0, 1), torch.std,
        lambda x: x.masked_fill(x > 0, 0.0), lambda x: x % 2, lambda x: x.add_(1).mul_(2), lambda x: x.prod(-1),
        lambda x: F.grid_sample(x.view(1, 2, 3, 3), torch.zeros(1, 2, 2, 2), align_corners=False),
        lambda x: torch.linalg.solve_triangular(x[:, :3] + 1, x, upper=True), lambda x: F.pad(x, (1, 2)),
        lambda x: x.repeat_interleave(2, 0), lambda x: x.index_add(0, torch.tensor([0, 2]), x[:2]),
        lambda x: x.flip(0), lambda x: torch.linalg.inv(x[:, :3] + 3 * torch.eye(3)),
    ]  # fmt: skip
    for function in functions:
        agree(Call(function, nn.Linear(8, 6)), (torch.randn(3, 8),), counted_flops)
