"""Matrix multiplication whose rows choose among several weights: the work of a mixture of experts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("hwsim::grouped_matmul", mutates_args=())
def grouped_matmul(x: Tensor, weight: Tensor, expert_of_row: Tensor) -> Tensor:
    """y_r = W_{e(r)} x_r, in 2·rows·n·k FLOP however the rows are spread.

    x [rows, k]; weight [experts, n, k]; expert_of_row [rows], ascending; y [rows, n].
    """
    return F.grouped_mm(x, weight.mT, offs=_ends(expert_of_row, weight.shape[0]))


@grouped_matmul.register_fake
def _(x: Tensor, weight: Tensor, expert_of_row: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op("hwsim::grouped_matmul_backward", mutates_args=())
def grouped_matmul_backward(grad: Tensor, x: Tensor, weight: Tensor, expert_of_row: Tensor) -> tuple[Tensor, Tensor]:
    """dx_r = W_{e(r)}ᵀ g_r and dW_e = Σ_{e(r)=e} g_r x_rᵀ; grad [rows, n], the others as `grouped_matmul`."""
    ends = _ends(expert_of_row, weight.shape[0])
    grad = grad.contiguous()
    return F.grouped_mm(grad, weight, offs=ends), F.grouped_mm(grad.mT, x, offs=ends)


@grouped_matmul_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, expert_of_row: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


def reference(x: Tensor, weight: Tensor, expert_of_row: Tensor) -> Tensor:
    """`grouped_matmul` row by row."""
    return torch.stack([weight[int(expert)] @ row for row, expert in zip(x, expert_of_row, strict=True)])


def _ends(expert_of_row: Tensor, experts: int) -> Tensor:
    """Where the rows of each expert end, [experts], int32, found without a trip to the host."""
    names = torch.arange(experts, device=expert_of_row.device, dtype=expert_of_row.dtype)
    return torch.searchsorted(expert_of_row.contiguous(), names, right=True, out_int32=True)


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    dx, dweight = grouped_matmul_backward(grad, *ctx.saved_tensors)  # type: ignore[attr-defined]
    return dx, dweight, None


grouped_matmul.register_autograd(_backward, setup_context=_save)
