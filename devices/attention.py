"""What attention really needs: the scores inside a causal triangle and a sliding window."""

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
    """The share of an attention kernel's full square that is not masked (1 for other kernels)."""
    if kernel.kind is not Kind.ATTENTION:
        return 1.0
    q_len, kv_len = kernel.size("q_len", 1), kernel.size("kv_len", 1)
    causal = bool(kernel.attrs.get("causal", False))
    return needed_scores(q_len, kv_len, causal, kernel.size("window")) / (float(q_len) * kv_len)


def needed_work(kernel: Kernel) -> Work:
    """The kernel's work with masked scores left out of the arithmetic."""
    work, share = kernel.work, needed_share(kernel)
    return Work(
        share * work.matmul_flops,
        share * work.vector_flops,
        share * work.special_ops,
        work.accesses,
        work.dtype,
        work.unmodelled,
    )
