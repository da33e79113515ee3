"""Which family times which kind of kernel."""

from __future__ import annotations

from hwsim.devices.gpu.attention import ATTENTION
from hwsim.devices.gpu.conv import CONV
from hwsim.devices.gpu.family import Family
from hwsim.devices.gpu.gather import GATHER
from hwsim.devices.gpu.matmul import MATMUL
from hwsim.devices.gpu.passes import FFT, SORT
from hwsim.devices.gpu.recurrence import RECURRENCE
from hwsim.devices.gpu.rows import NORM, REDUCTION, SCAN, SOFTMAX
from hwsim.devices.gpu.stream import STREAM
from hwsim.graph import Kind
from hwsim.mapper import Kernel

FAMILIES: dict[Kind, Family] = {
    Kind.ATTENTION: ATTENTION,
    Kind.CONV: CONV,
    Kind.MATMUL: MATMUL,
    Kind.RECURRENCE: RECURRENCE,
    Kind.SOFTMAX: SOFTMAX,
    Kind.NORM: NORM,
    Kind.REDUCE: REDUCTION,
    Kind.SCAN: SCAN,
    Kind.GATHER: GATHER,
    Kind.SCATTER: GATHER,
    Kind.SORT: SORT,
    Kind.FFT: FFT,
}

POINTWISE = frozenset({"batchnorm"})  # functions that only scale and shift, with statistics known from training


def family_of(kernel: Kernel) -> Family:
    """The family of ``kernel``: that of its kind, else a stream."""
    if kernel.attrs.get("function") in POINTWISE:
        return STREAM
    return FAMILIES.get(kernel.kind, STREAM)
