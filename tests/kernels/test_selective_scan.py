"""The selective scan op: against Mamba's published reference, its gradient, state handed on."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hwsim.kernels.selective_scan import selective_scan

ORACLE = Path(__file__).parents[1] / "oracle" / "mamba1_selective_scan.npz"


@pytest.fixture
def data() -> dict[str, Tensor]:
    """The oracle's arrays, tokens before channels."""
    arrays = np.load(ORACLE, allow_pickle=False)
    return {
        key: torch.from_numpy(arrays[key]).mT if arrays[key].ndim == 3 else torch.from_numpy(arrays[key])
        for key in arrays.files
        if key != "meta"
    }


@pytest.fixture
def inputs(data: dict[str, Tensor]) -> list[Tensor]:
    """x, Δ, A, B, C, D."""
    delta = F.softplus(data["delta"] + data["delta_bias"])
    return [data["u"], delta, data["A"], data["B"], data["C"], data["D"]]


def test_equals_the_published_reference(data: dict[str, Tensor], inputs: list[Tensor]) -> None:
    y, state = selective_scan(*inputs, None)
    torch.testing.assert_close(y * F.silu(data["z"]), data["y"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, data["last_state"].mT, rtol=1e-5, atol=1e-5)


def test_two_calls_equal_one(inputs: list[Tensor]) -> None:
    x, delta, a, b, c, d = inputs
    expected, last = selective_scan(*inputs, None)
    first, state = selective_scan(x[:, :7], delta[:, :7], a, b[:, :7], c[:, :7], d, None)
    second, state = selective_scan(x[:, 7:], delta[:, 7:], a, b[:, 7:], c[:, 7:], d, state)
    torch.testing.assert_close(torch.cat([first, second], 1), expected)
    torch.testing.assert_close(state, last)


@pytest.mark.parametrize("skip", [True, False])
def test_gradient_equals_that_of_the_recurrence_by_autograd(inputs: list[Tensor], skip: bool) -> None:
    state = torch.randn(2, 6, 4)
    leaves = [x.clone().requires_grad_() for x in (*inputs[: 6 if skip else 5], state)]

    def plain(x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        h, ys = rest[-1], []
        for t in range(x.shape[1]):
            step = delta[:, t, :, None]
            h = (step * a).exp() * h + step * b[:, t, None] * x[:, t, :, None]
            ys.append((h * c[:, t, None]).sum(-1))
        y = torch.stack(ys, 1)
        return (y + rest[0] * x if skip else y), h

    arguments = leaves if skip else [*leaves[:5], None, leaves[5]]
    torch.library.opcheck(selective_scan, tuple(arguments))
    for ours, theirs in zip(
        _gradients(selective_scan(*arguments), leaves), _gradients(plain(*leaves), leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def _gradients(outputs: tuple[Tensor, Tensor], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(outputs[0].square().sum() + outputs[1].square().sum(), leaves)
