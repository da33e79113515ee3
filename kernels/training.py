"""A training step in mixed precision, as one repeatable call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class TrainStep:
    """Forward, backward from a fixed random gradient of the result, and AdamW on fp32 copies of the weights.

    The gradients of the weights are cast into those of the copies, and the copies' new values into the weights. A
    CUDA graph can record the whole step.
    """

    def __init__(self, network: nn.Module, forward: Callable[[], Tensor]) -> None:
        self.forward = forward
        self.weights: list[Tensor] = list(network.parameters())
        self.masters = [weight.detach().float().clone() for weight in self.weights]
        self.gradients = [torch.zeros_like(master) for master in self.masters]
        for master, gradient in zip(self.masters, self.gradients, strict=True):
            master.grad = gradient
        on_gpu = self.weights[0].is_cuda
        self.optimizer = torch.optim.AdamW(self.masters, lr=1e-5, fused=True, capturable=on_gpu)
        with torch.no_grad():
            self.slope = torch.randn_like(forward())

    def __call__(self) -> None:
        """One step; the gradients of the weights are given up at the end."""
        self.forward().backward(self.slope)  # type: ignore[no-untyped-call]
        found = [weight.grad for weight in self.weights if weight.grad is not None]
        with torch.no_grad():
            torch._foreach_copy_(self.gradients, found)
            self.optimizer.step()
            torch._foreach_copy_(self.weights, self.masters)
        for weight in self.weights:
            weight.grad = None
