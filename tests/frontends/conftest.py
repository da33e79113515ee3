"""The reference for FLOPs, torch's own counter; an ONNX model under construction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from onnx_nets import Net


@pytest.fixture
def net(tmp_path: Path) -> Net:
    """An ONNX model without nodes yet."""
    pytest.importorskip("onnx")
    from onnx_nets import Net

    return Net(tmp_path / "net.onnx")


@pytest.fixture
def counted_flops() -> Callable[..., int]:
    """FLOPs of ``module(*args, **kwargs)`` by FlopCounterMode, on real tensors; with ``backward``, those of the
    gradient of its first result too. Attention on the CPU is counted by torch's formulas for the other devices."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    def forward(q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    def backward_(grad: Any, q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> int:
        return int(sdpa_backward_flop_count(grad, q, k, v))

    aten = torch.ops.aten
    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward_,
    }

    def count(module: Any, *args: Any, backward: bool = False, **kwargs: Any) -> int:
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            if backward:
                result = module(*args, **kwargs)
                result = result if isinstance(result, torch.Tensor) else result[0]
                result.sum().backward()
            else:
                with torch.no_grad():
                    module(*args, **kwargs)
        return int(counter.get_total_flops())

    return count
