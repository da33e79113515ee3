"""How operands lie in memory: whether a kernel finds their elements one after the other, as the result's."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import torch

from hwsim.frontends.aten import Call
from hwsim.graph import Kind


def order(tensor: torch.Tensor) -> list[int]:
    """The order of dimensions in memory, outermost first; broadcast ones and those of one element are left out."""
    shape, strides = _numbers(tensor.shape), _numbers(tensor.stride())
    dims = [dim for dim in range(tensor.dim()) if shape[dim] != 1 and strides[dim] != 0]
    return sorted(dims, key=lambda dim: (-strides[dim], dim))


def dense(tensor: torch.Tensor) -> bool:
    """Whether the elements lie side by side, in whatever order of dimensions."""
    shape, strides = _numbers(tensor.shape), _numbers(tensor.stride())
    between = 1
    for dim in reversed(order(tensor)):
        if strides[dim] != between:
            return False
        between *= shape[dim]
    return between == prod(shape)


def _numbers(sizes: Iterable[int | torch.SymInt]) -> list[int]:
    """Sizes while tracing: a layout does not depend on those that are left free, and comparing symbols takes long."""
    return [size.node.hint if isinstance(size, torch.SymInt) else size for size in sizes]


def contiguous(tensor: torch.Tensor) -> bool:
    """Whether the elements lie side by side in the order of dimensions."""
    return dense(tensor) and order(tensor) == sorted(order(tensor))


def reordering(source: torch.Tensor, result: torch.Tensor) -> dict[str, Any]:
    """The attributes of a copy of ``source`` as ``result``: it reads lone elements where these walk along different
    dimensions."""
    return {"strided": order(source) != order(result), **({"run": 1} if _across(source, result) else {})}


def addressing(call: Call) -> dict[str, Any]:
    """What keeps an elementwise kernel from walking over its operands, as attributes: ``gaps`` between elements,
    repeated ones or orders that differ; ``across`` where one walks along another dimension than the result. Scalars
    keep nothing.
    """
    result = call.result
    shape = _numbers(result.shape)
    operands = [tensor for tensor in (*call.inputs, result) if tensor.dim() > 0]
    alike = [tensor for tensor in operands if _numbers(tensor.shape) == shape]
    walks = len(alike) == len(operands) and all(dense(one) and order(one) == order(result) for one in alike)
    across = any(_across(one, result) for one in alike)
    return {name: True for name, found in (("gaps", not walks), ("across", across)) if found}


def _across(source: torch.Tensor, result: torch.Tensor) -> bool:
    return order(source)[-1:] != order(result)[-1:]


def packed(call: Call, tensor: torch.Tensor) -> torch.Tensor:
    """``tensor``, or the contiguous copy of it that a kernel needs, whose making is recorded."""
    if contiguous(tensor):
        return tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    call.emit(Kind.COPY, [tensor], [copy], numel=call.numel(tensor), **reordering(tensor, copy))
    return copy
