"""What a kernel really needs where the counted work is more: masked scores, and groups of a convolution's gradient."""

from __future__ import annotations

from hwsim.graph import Kind
from hwsim.mapper import Kernel
from hwsim.work import Work


def needed_scores(q_len: int, kv_len: int, causal: bool, window: int = 0) -> float:
    """Query-key pairs that are not masked, for one head.

    With the last query at the last key, query i of q sees the first max(0, kv - q) + i + 1 keys, at most all of
    them, and of those only the last ``window`` (0: all).
    """
    most = min(kv_len, window or kv_len)
    if not causal:
        return float(q_len) * most
    first = min(most, max(0, kv_len - q_len) + 1)
    growing = min(q_len, most - first)
    return growing * first + growing * (growing - 1) / 2 + float(q_len - growing) * most


def needed_share(kernel: Kernel) -> float:
    """The share of an attention's full square that is not masked; 1/groups for the gradient of a convolution's weight,
    which torch's formula counts as if it were dense; 1 for other kernels."""
    if kernel.kind is Kind.CONV and kernel.attrs.get("direction") == "grad_weight":
        return 1.0 / kernel.size("groups", 1)
    if kernel.kind is not Kind.ATTENTION:
        return 1.0
    q_len, kv_len = kernel.size("q_len", 1), kernel.size("kv_len", 1)
    causal = bool(kernel.attrs.get("causal", False))
    return needed_scores(q_len, kv_len, causal, kernel.size("window")) / (float(q_len) * kv_len)


def needed_work(kernel: Kernel) -> Work:
    """The kernel's work without the arithmetic that no kernel does."""
    work, share = kernel.work, needed_share(kernel)
    return Work(
        share * work.matmul_flops,
        share * work.vector_flops,
        share * work.special_ops,
        work.accesses,
        work.dtype,
        work.unmodelled,
    )
