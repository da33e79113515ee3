"""The kernels of torch that calibrate a CPU: what is run, and how it is timed on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.measurements import Measurement

if TYPE_CHECKING:
    from torch import Tensor

Spec = Mapping[str, Any]
Call = Callable[[], object]

LEAST_ROUNDS, MOST_ROUNDS = 4, 16
REGION_S = 2e-4  # a warm region is at least this long, so that the clock does not show
COLD_CALLS = 2  # in a row, of which the last counts: its code has run since the other kernels did
LOW = 0.2  # the quantile of repeated timings that counts, as others on the machine can only add to a time
FLUSH_SHARE = 4  # sizes of the last cache that are written to empty it, as `hwsim measure` does


def _fields(names: str, rows: Sequence[tuple[object, ...]]) -> list[dict[str, object]]:
    return [dict(zip(names.split(), row, strict=True)) for row in rows]


PRODUCTS = _fields(
    "m n k batch dtype",
    [
        (1, 1024, 4096, 1, "fp32"), (1, 8192, 2048, 1, "fp32"), (3, 276, 768, 1, "fp32"), (16, 2048, 2048, 1, "fp32"),
        (16, 8192, 2048, 1, "fp32"), (64, 80, 112, 1, "fp32"), (96, 4096, 512, 1, "fp32"), (2, 512, 256, 32, "fp32"),
        (64, 8192, 2048, 1, "fp32"), (197, 768, 768, 1, "fp32"), (40, 886, 128, 24, "fp32"), (512, 512, 512, 1, "fp32"),
        (1024, 256, 96, 1, "fp32"), (256, 3072, 768, 1, "fp32"), (1, 1024, 4096, 1, "bf16"), (32, 512, 256, 1, "bf16"),
        (256, 256, 64, 1, "bf16"), (64, 1024, 96, 1, "bf16"),
        (64, 256, 512, 1, "fp16"), (64, 256, 256, 1, "int8"), (32, 512, 64, 1, "int8"),
    ],
)  # fmt: skip
CONVOLUTIONS = _fields(
    "n c h w o k stride padding groups dtype layout",
    [
        (1, 64, 56, 56, 64, 1, 1, 0, 1, "fp32", "nhwc"), (1, 64, 56, 56, 64, 3, 1, 1, 1, "fp32", "nhwc"),
        (1, 256, 14, 14, 256, 3, 1, 1, 1, "fp32", "nhwc"), (1, 512, 7, 7, 2048, 1, 1, 0, 1, "fp32", "nhwc"),
        (1, 3, 224, 224, 64, 7, 2, 3, 1, "fp32", "nhwc"), (2, 128, 28, 28, 512, 1, 1, 0, 1, "fp32", "nhwc"),
        (4, 96, 28, 28, 96, 3, 1, 1, 96, "fp32", "nhwc"), (2, 32, 56, 56, 48, 3, 2, 1, 1, "fp32", "nchw"),
        (2, 128, 28, 28, 128, 1, 1, 0, 1, "fp32", "nchw"), (1, 32, 28, 28, 64, 3, 1, 1, 1, "bf16", "nhwc"),
    ],
)  # fmt: skip
HEADS = "batch heads kv_heads head_dim"
SPECS: Mapping[str, list[dict[str, object]]] = {
    "matmul": PRODUCTS,
    "conv2d": CONVOLUTIONS,
    "softmax": _fields(
        "rows cols dtype",
        [(128, 32, "fp32"), (4096, 64, "fp32"), (512, 1024, "fp32"), (8, 8192, "fp32"), (1024, 512, "bf16")],
    ),
    "layernorm": _fields(
        "rows cols dtype",
        [(6, 384, "fp32"), (4096, 80, "fp32"), (197, 768, "fp32"), (2048, 2048, "fp32"), (256, 1536, "bf16")],
    ),
    "rmsnorm": _fields(
        "rows cols dtype", [(2, 64, "fp32"), (128, 2048, "fp32"), (4096, 96, "fp32"), (256, 1024, "bf16")]
    ),
    "sum": _fields(
        "rows cols dtype", [(8, 1024, "fp32"), (1280, 24, "fp32"), (1024, 2048, "fp32"), (512, 1024, "bf16")]
    ),
    "cumsum": _fields("rows cols dtype", [(64, 64, "fp32"), (96, 2222, "fp32"), (64, 4096, "bf16")]),
    "transpose_copy": _fields("rows cols dtype", [(64, 64, "fp32"), (640, 768, "fp32"), (1024, 640, "bf16")]),
    "gelu": _fields("numel dtype", [(1024, "fp32"), (65536, "fp32"), (2**20, "fp32"), (300000, "bf16")]),
    "silu": _fields("numel dtype", [(1024, "fp32"), (65536, "fp32"), (2**21, "fp32"), (300000, "bf16")]),
    "add": _fields(
        "numel dtype",
        [
            (16, "fp32"), (16384, "fp32"), (100000, "fp32"), (10**6, "fp32"), (4 * 10**6, "fp32"), (10**7, "fp32"),
            (2048, "bf16"), (600000, "bf16"),
        ],
    ),
    "embedding": _fields(
        "vocab dim tokens dtype", [(8000, 768, 2, "fp32"), (8000, 768, 197, "fp32"), (30000, 1024, 64, "bf16")]
    ),
    "gather_rows": _fields(
        "rows row_bytes table_bytes", [(2560, 64, 2**26), (40000, 192, 2**27), (64, 4096, 2**25), (1024, 16384, 2**27)]
    ),
    "copy_d2d": _fields("bytes", [(256,), (65536,), (2**20,), (2**24,)]),
    "attention_prefill": _fields(
        f"{HEADS} q_len kv_len causal dtype",
        [
            (1, 12, 12, 64, 197, 197, False, "fp32"), (1, 32, 8, 64, 128, 128, True, "fp32"),
            (2, 8, 8, 128, 32, 32, True, "bf16"), (1, 4, 4, 128, 256, 256, False, "bf16"),
        ],
    ),
    "attention_decode": _fields(
        f"{HEADS} kv_len dtype",
        [(1, 32, 8, 64, 512, "fp32"), (4, 8, 8, 64, 64, "bf16"), (2, 16, 4, 128, 256, "bf16")],
    ),
}  # fmt: skip
"""Calls of a few milliseconds at most: a machine that is busy elsewhere leaves such gaps, and minima find them."""


def measure_kernels(
    seconds: float, last_cache_bytes: float, alone: bool = False, progress: Callable[[float], None] = lambda part: None
) -> tuple[Measurement, ...]:
    """Time the kernels of `SPECS` for about ``seconds``, in rounds over all of them, each cold and then warm.

    ``progress`` takes the part that is done.

    ``alone``: on one core, and the shortest time counts. On a machine that is busy with other work, threads that wait
    for each other are seldom all running, while one thread finds a gap.
    """
    import torch

    threads = torch.get_num_threads()
    if alone:
        torch.set_num_threads(1)
    try:
        return _measured(seconds, last_cache_bytes, 0.0 if alone else LOW, progress)
    finally:
        torch.set_num_threads(threads)


def _measured(
    seconds: float, last_cache_bytes: float, low: float, progress: Callable[[float], None]
) -> tuple[Measurement, ...]:
    import torch

    calls = [(spec, build(spec)) for spec in all_specs()]
    cold: list[list[float]] = [[] for _ in calls]
    warm: list[list[float]] = [[] for _ in calls]
    flush = torch.ones(max(1, int(FLUSH_SHARE * last_cache_bytes / 4)))
    with torch.inference_mode():
        for _, call in calls:
            call()
        until = time.perf_counter() + seconds
        for turn in range(MOST_ROUNDS):
            if turn >= LEAST_ROUNDS and time.perf_counter() > until:
                break
            for i, (_, call) in enumerate(calls):
                progress(min(1.0, 1 - (until - time.perf_counter()) / seconds))
                for _ in range(COLD_CALLS):
                    flush.add_(1.0)
                    once = _seconds(call, 1)
                cold[i].append(once)
                once = _seconds(call, 1)
                warm[i].append(_seconds(call, max(1, min(50, int(REGION_S / once)))))
    return tuple(
        Measurement(spec, float(np.quantile(cold[i], low)), float(np.quantile(warm[i], low)), None)
        for i, (spec, _) in enumerate(calls)
    )


def all_specs() -> list[Spec]:
    """The kernels as objects of the interchange."""
    return [{"op": op, **fields} for op, rows in SPECS.items() for fields in rows]


def _seconds(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def build(spec: Spec) -> Call:
    """The call of torch that runs ``spec`` on random operands, as `hwsim measure` does."""
    fields = {name: value for name, value in spec.items() if name != "op"}
    return BUILDERS.get(str(spec["op"]), _rowwise(str(spec["op"])))(**fields)


def _noise(*shape: int, dtype: str) -> Tensor:
    import torch

    if dtype == "int8":
        return torch.randint(-128, 128, shape, dtype=torch.int8)
    formats = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    return torch.randn(shape, dtype=formats[dtype])


def _matmul(m: int, n: int, k: int, batch: int, dtype: str) -> Call:
    import torch

    if batch > 1:
        x, w = _noise(batch, m, k, dtype=dtype), _noise(batch, n, k, dtype=dtype)
        return lambda: torch.bmm(x, w.transpose(1, 2))
    x, w = _noise(m, k, dtype=dtype), _noise(n, k, dtype=dtype)
    return (lambda: torch._int_mm(x, w.t())) if dtype == "int8" else (lambda: torch.nn.functional.linear(x, w))


def _conv2d(
    n: int, c: int, h: int, w: int, o: int, k: int, stride: int, padding: int, groups: int, dtype: str, layout: str
) -> Call:
    import torch

    order = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    x = _noise(n, c, h, w, dtype=dtype).contiguous(memory_format=order)
    weight = _noise(o, c // groups, k, k, dtype=dtype).contiguous(memory_format=order)
    return lambda: torch.conv2d(x, weight, None, stride, padding, 1, groups)


def _attention(
    batch: int, heads: int, kv_heads: int, head_dim: int, kv_len: int, dtype: str, q_len: int = 1, causal: bool = False
) -> Call:
    import torch.nn.functional as F

    q = _noise(batch, heads, q_len, head_dim, dtype=dtype)
    k, v = (_noise(batch, kv_heads, kv_len, head_dim, dtype=dtype) for _ in range(2))
    grouped = heads != kv_heads
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)


def _embedding(vocab: int, dim: int, tokens: int, dtype: str) -> Call:
    import torch

    table, ids = _noise(vocab, dim, dtype=dtype), torch.randint(vocab, (tokens,))
    return lambda: torch.nn.functional.embedding(ids, table)


def _gather_rows(rows: int, row_bytes: int, table_bytes: int) -> Call:
    import torch

    table = _noise(table_bytes // row_bytes, row_bytes // 4, dtype="fp32")
    ids = torch.randint(len(table), (rows,))
    return lambda: torch.index_select(table, 0, ids)


def _copy(bytes: int) -> Call:
    import torch

    source = torch.randint(256, (bytes,), dtype=torch.uint8)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _rowwise(op: str) -> Callable[..., Call]:
    """The builder of an op on one matrix or one flat tensor."""

    def made(dtype: str, rows: int = 0, cols: int = 0, numel: int = 0) -> Call:
        import torch
        import torch.nn.functional as F

        x = _noise(*((rows, cols) if rows else (numel,)), dtype=dtype)
        second = _noise(cols or numel, dtype=dtype)
        calls: Mapping[str, Call] = {
            "softmax": lambda: F.softmax(x, dim=-1),
            "layernorm": lambda: F.layer_norm(x, (cols,), second, second),
            "rmsnorm": lambda: F.rms_norm(x, (cols,), second, 1e-5),
            "sum": lambda: x.sum(dim=-1),
            "cumsum": lambda: x.cumsum(dim=-1),
            "transpose_copy": lambda: x.t().clone(memory_format=torch.contiguous_format),
            "gelu": lambda: F.gelu(x),
            "silu": lambda: F.silu(x),
            "add": lambda: torch.add(x, second),
        }
        return calls[op]

    return made


BUILDERS: Mapping[str, Callable[..., Call]] = {
    "matmul": _matmul,
    "conv2d": _conv2d,
    "attention_prefill": _attention,
    "attention_decode": _attention,
    "embedding": _embedding,
    "gather_rows": _gather_rows,
    "copy_d2d": _copy,
}
