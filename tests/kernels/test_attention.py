"""The attention op: windows, queries after cached keys, grouped heads, gradients."""

import pytest
import torch

from hwsim.kernels.attention import attention, causal_attention, sliding_window_attention


def inputs(queries: int, keys: int) -> list[torch.Tensor]:
    """q [2, 4, queries, 8], k and v [2, 2, keys, 8]."""
    torch.manual_seed(0)
    return [torch.randn(2, heads, rows, 8) for heads, rows in ((4, queries), (2, keys), (2, keys))]


def test_window_of_one_returns_the_value() -> None:
    q, k, v = inputs(6, 6)
    torch.testing.assert_close(sliding_window_attention(q, k, v, 1), v.repeat_interleave(2, dim=1))


def test_window_limits_what_a_query_sees() -> None:
    q, k, v = inputs(9, 9)
    out = sliding_window_attention(q, k, v, 4)
    last = causal_attention(q[:, :, -1:], k[:, :, -4:], v[:, :, -4:])
    torch.testing.assert_close(out[:, :, -1:], last)


@pytest.mark.parametrize("queries", [1, 3, 9])
def test_queries_are_the_last_positions(queries: int) -> None:
    q, k, v = inputs(9, 9)
    out = causal_attention(q[:, :, -queries:], k, v)
    torch.testing.assert_close(out, causal_attention(q, k, v)[:, :, -queries:])


@pytest.mark.parametrize(("causal", "window"), [(True, 0), (True, 3), (False, 0), (True, 100)])
def test_op_is_well_formed_and_its_gradient_right(causal: bool, window: int) -> None:
    q, k, v = (x.requires_grad_() for x in inputs(5, 7))
    torch.library.opcheck(attention, (q, k, v, causal, window))
    torch.library.opcheck(attention, (q, k, v, causal, window, 0.3))
    gradients = torch.autograd.grad(attention(q, k, v, causal, window, 0.3).square().sum(), (q, k, v))
    distance = torch.arange(2, 7)[:, None] - torch.arange(7)
    seen = (distance >= 0 if causal else distance > -9) & (distance < (window or 100))
    scores = (q @ k.repeat_interleave(2, 1).mT * 0.3).masked_fill(~seen, float("-inf"))
    expected = torch.autograd.grad((scores.softmax(-1) @ v.repeat_interleave(2, 1)).square().sum(), (q, k, v))
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
