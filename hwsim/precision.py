"""A graph in another number format than the one it was captured in.

bf16, fp16 and fp32 replace the format that most weights were captured in, everywhere. int8 and fp8 quantise the
weights of matrix products and convolutions and compute them in that format, activations and caches staying as they
are (W8A8 with 16-bit storage). int4 stores these weights in 4 bits and computes in the captured format (W4A16).
"""

from __future__ import annotations

from dataclasses import replace

from hwsim.errors import InputError, Problem, nearest_name
from hwsim.graph import Graph, Kind, Op, Role

EVERYWHERE = ("bf16", "fp16", "fp32")
QUANTISED = ("int8", "fp8")
STORED = ("int4",)
PRECISIONS = (*EVERYWHERE, *QUANTISED, *STORED)


def check_precision(name: str) -> str:
    """``name`` if graphs can be converted to it."""
    if name not in PRECISIONS:
        nearest = nearest_name(name, PRECISIONS)
        raise InputError(Problem(f"unknown dtype '{name}'", expected=", ".join(PRECISIONS), nearest=nearest))
    return name


def native_format(graph: Graph) -> str:
    """The floating format of most of the weights (of most tensors, where no weight is a float); bf16 without any."""
    for tensors in (tuple(graph.of_role(Role.WEIGHT)), tuple(graph.tensors.values())):
        formats = [tensor.dtype for tensor in tensors if tensor.dtype in EVERYWHERE]
        if formats:
            return max(EVERYWHERE, key=formats.count)
    return "bf16"


def in_precision(graph: Graph, name: str) -> Graph:
    """``graph`` in the format ``name``."""
    native = native_format(graph)
    if name == native:
        return graph
    if name in EVERYWHERE:
        tensors = {
            key: replace(tensor, dtype=name) if tensor.dtype == native else tensor
            for key, tensor in graph.tensors.items()
        }
        return replace(graph, tensors=tensors)
    quantised = _weights_of_products(graph, native)
    tensors = {
        key: replace(tensor, dtype=name) if graph.storage(key) in quantised else tensor
        for key, tensor in graph.tensors.items()
    }
    compute = name if name in QUANTISED else native
    ops = tuple(_computing_in(op, compute) if _reads(graph, op, quantised) else op for op in graph.ops)
    return replace(graph, tensors=tensors, ops=ops)


def _weights_of_products(graph: Graph, native: str) -> set[str]:
    """Storages that only matrix products and convolutions read: these are quantised; an embedding table is not."""
    by_products, by_others = set[str](), set[str]()
    for op in graph.ops:
        if op.kind is Kind.VIEW:
            continue
        storages = {graph.storage(name) for name in op.inputs}
        (by_products if op.kind in (Kind.MATMUL, Kind.CONV) else by_others).update(storages)
    return {
        name
        for name in by_products - by_others
        if graph.tensors[name].role is Role.WEIGHT
        and len(graph.tensors[name].shape) > 1
        and graph.tensors[name].dtype == native
    }


def _reads(graph: Graph, op: Op, storages: set[str]) -> bool:
    return op.kind in (Kind.MATMUL, Kind.CONV) and any(graph.storage(name) in storages for name in op.inputs)


def _computing_in(op: Op, compute: str) -> Op:
    return replace(op, attrs={**op.attrs, "compute": compute})
