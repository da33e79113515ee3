"""Attention on a GPU: prefill, decode and backward, as the libraries of its generation run them.

torch's scaled_dot_product_attention takes cuDNN on cards with warpgroup instructions (ATen, sdp_utils.cpp,
check_prefer_cudnn_attention: cuDNN above 9.15 and compute capability 9 or 10) and FlashAttention-2 on others; serving
frameworks bring FlashAttention-2 and -3, FlashInfer or TensorRT-LLM's kernels, which cut the work like FlashAttention.
`attention_style` says which of both a card's attention is like.
"""

from __future__ import annotations

import numpy as np

from hwsim.devices.gpu.attention_decode import decode
from hwsim.devices.gpu.attention_flash import flash
from hwsim.devices.gpu.attention_tiles import Attention, whole
from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.dtypes import dtype
from hwsim.mapper import Kernel

PURE = 0.01  # shares below this, and above its complement, are none and all


def shape(kernel: Kernel) -> Attention:
    """The sizes of an attention kernel."""
    heads, kv_heads = kernel.size("heads", 1), kernel.size("kv_heads", 1)
    head_dim = kernel.size("head_dim", 1)
    cached = kernel.attrs.get("cached_bytes")  # of an element, where a cache has another format than the queries
    sizes = (
        kernel.size("batch", 1) * kv_heads,
        heads / kv_heads,
        kernel.size("q_len", 1),
        kernel.size("kv_len", 1),
        head_dim,
        kernel.size("v_dim", head_dim),
        bool(kernel.attrs.get("causal", False)),
        kernel.size("window"),
        cached if isinstance(cached, float) else dtype(kernel.work.dtype).bytes_for(1),
        bool(kernel.attrs.get("backward", False)),
    )
    return Attention._make(sizes)


def timing(x: Attention, load: Load, chip: Chip) -> Timing:
    """The kernels that torch and serving frameworks would take, in the proportion that fits the card."""
    share = min(1.0, max(0.0, chip["attention_style"] - PURE) / (1.0 - 2 * PURE))
    if share == 1.0:
        return flash(x, load, chip)
    torch = _cudnn(x, load, chip) if chip.warpgroups else flash(x, load, chip, served=False)
    return torch if share == 0.0 else _mixed(np.asarray(share), torch, flash(x, load, chip))


def _cudnn(x: Attention, load: Load, chip: Chip) -> Timing:
    """Kernels for single queries, and for more or their gradients."""
    single = (x.q_len <= 1) & (x.backward == 0)
    if single.all():
        return decode(x, load, chip)
    tiles = whole(x, load, chip)
    return _mixed(single.astype(float), tiles, decode(x, load, chip)) if single.any() else tiles


def _mixed(share: Array, a: Timing, b: Timing) -> Timing:
    """``a``, as far as ``share`` is not 1, and ``b`` where it is."""

    def mix(first: Array | float, second: Array | float) -> Array:
        return (1.0 - share) * first + share * second

    return Timing(
        mix(a.seconds, b.seconds),
        {name: mix(a.busy[name], b.busy[name]) for name in a.busy},
        cache_again=mix(a.cache_again, b.cache_again),
        padding=mix(a.padding, b.padding),
        launches=mix(a.launches, b.launches),
        issued=mix(a.issued, b.issued),
    )


ATTENTION = Family(shape, timing)
