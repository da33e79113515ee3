"""The families of kernels that errors and intervals are told by."""

from __future__ import annotations

from hwsim.graph import Kind
from hwsim.mapper import Kernel
from hwsim.work import Pattern

END_TO_END = "end to end"
_BY_KIND = {
    Kind.MATMUL: "matmul",
    Kind.CONV: "convolution",
    Kind.ATTENTION: "attention",
    Kind.RECURRENCE: "sequence",
    Kind.COLLECTIVE: "collective",
    **dict.fromkeys((Kind.SOFTMAX, Kind.NORM, Kind.REDUCE, Kind.SCAN), "norm, softmax, reduction"),
    **dict.fromkeys((Kind.GATHER, Kind.SCATTER), "embedding, gather"),
}


def kernel_family(kernel: Kernel) -> str:
    """The family of ``kernel``; what has none of its own counts as elementwise."""
    if kernel.kind is Kind.COPY:
        return "transpose" if any(flow.pattern is Pattern.STRIDED for flow in kernel.flows) else "copy"
    return _BY_KIND.get(kernel.kind, "elementwise")
