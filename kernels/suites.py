"""The kernel suite: per op of the interchange, a stream of specs and the torch call that runs one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hwsim.kernels.families import DTYPES, Call, Draw, Family, Fields, endless, noise, width

FLOATS = ("bf16", "bf16", "fp16", "fp32")
HALVES = ("bf16", "bf16", "fp16")
LLAMA_8B_LINEARS = ((4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336), (128256, 4096))  # (n, k)


def matmul_specs(draw: Draw) -> Iterator[Fields]:
    """Large squares, the linears of an 8B Llama at three batches, then draws; all within the limits."""
    squares = [(size, size, size, dtype) for size in (4096, 8192) for dtype in DTYPES]
    linears = [(m, n, k, "bf16") for m in (1, 64, 2048) for n, k in LLAMA_8B_LINEARS]
    for m, n, k, dtype in squares + linears:
        fits = 2 * m * n * k <= draw.limits.flops_of(dtype) and n * k * 2 <= draw.limits.operand_bytes
        if fits and dtype in draw.limits.matmul_dtypes:
            yield {"m": m, "n": n, "k": k, "batch": 1, "dtype": dtype}
    while True:
        yield draw_matmul(draw)


def draw_matmul(draw: Draw) -> Fields:
    """m 1..16k, n and k up to 64k and 32k; a third batched; odd sizes where the library allows them."""
    dtype = draw.choice(draw.limits.matmul_dtypes)
    flops, room = draw.limits.flops_of(dtype), draw.limits.operand_bytes
    aligned = {"int8": 16, "fp8": 16}.get(dtype, 1)
    batch = draw.size(2, 256) if aligned == 1 and draw.chance(0.3) else 1
    m = draw.size(17 if dtype == "int8" else 1, min(16384, flops / (8192 * batch)))
    n = draw.size(64, min(65536, flops / (128 * batch * m), room / (4 * batch * m)), aligned, nice=0.75)
    k_top = min(32768, flops / (2 * batch * m * n), room / (4 * batch * (m + n)))
    k = draw.size(64, k_top, aligned, nice=0.75)
    return {"m": m, "n": n, "k": k, "batch": batch, "dtype": dtype}


def matmul(device: torch.device, m: int, n: int, k: int, batch: int, dtype: str) -> Call:
    """x @ w.T with w stored as n rows of k, as in a linear layer; int8 gives int32, fp8 gives bf16."""
    if batch > 1:
        x, w = noise(device, batch, m, k, dtype=dtype), noise(device, batch, n, k, dtype=dtype)
        return partial(torch.bmm, x, w.transpose(1, 2))
    x, w = noise(device, m, k, dtype=dtype), noise(device, n, k, dtype=dtype)
    if dtype == "int8":
        return partial(torch._int_mm, x, w.t())
    if dtype == "fp8":
        one = torch.ones((), device=device)
        return partial(torch._scaled_mm, x, w.t(), one, one, out_dtype=torch.bfloat16, use_fast_accum=True)
    return partial(F.linear, x, w)


def draw_rows(draw: Draw) -> Fields:
    """Rows and columns of one matrix of at most a quarter of the operand limit."""
    dtype = draw.choice(FLOATS)
    cells = draw.limits.operand_bytes / (4 * width(dtype))
    cols = draw.size(16, min(131072, cells))
    return {"rows": draw.size(1, min(262144, cells / cols)), "cols": cols, "dtype": dtype}


def rowwise(
    function: Callable[..., object], vectors: int, device: torch.device, rows: int, cols: int, dtype: str
) -> Call:
    """A function of a rows x cols matrix and of `vectors` vectors of cols elements (scale, bias)."""
    operands = [noise(device, cols, dtype=dtype) for _ in range(vectors)]
    return partial(function, noise(device, rows, cols, dtype=dtype), *operands)


def softmax(x: Tensor) -> Tensor:
    """Softmax of each row."""
    return F.softmax(x, dim=-1)


def layernorm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layer normalisation of each row, with scale and bias."""
    return F.layer_norm(x, weight.shape, weight, bias)


def rmsnorm(x: Tensor, weight: Tensor) -> Tensor:
    """Root-mean-square normalisation of each row, with scale."""
    return F.rms_norm(x, weight.shape, weight, 1e-5)


def row_sum(x: Tensor) -> Tensor:
    """Sum of each row."""
    return x.sum(dim=-1)


def row_cumsum(x: Tensor) -> Tensor:
    """Running sum along each row."""
    return x.cumsum(dim=-1)


def transpose_copy(x: Tensor) -> Tensor:
    """The transpose, written out; clone copies even the row that is its own transpose."""
    return x.t().clone(memory_format=torch.contiguous_format)


def draw_numel(draw: Draw) -> Fields:
    """One flat tensor of at most a quarter of the operand limit."""
    dtype = draw.choice(FLOATS)
    return {"numel": draw.size(256, draw.limits.operand_bytes / (4 * width(dtype))), "dtype": dtype}


def elementwise(function: Callable[..., object], inputs: int, device: torch.device, numel: int, dtype: str) -> Call:
    """A function of `inputs` flat tensors."""
    return partial(function, *(noise(device, numel, dtype=dtype) for _ in range(inputs)))


def draw_embedding(draw: Draw) -> Fields:
    """A table of up to the operand limit and tokens whose rows fill up to a quarter of it."""
    dtype, room = draw.choice(FLOATS), draw.limits.operand_bytes
    dim = draw.size(64, 16384)
    vocab = draw.size(1000, min(262144, room / (dim * width(dtype))))
    tokens = draw.size(1, min(65536, room / (4 * dim * width(dtype))))
    return {"vocab": vocab, "dim": dim, "tokens": tokens, "dtype": dtype}


def embedding(device: torch.device, vocab: int, dim: int, tokens: int, dtype: str) -> Call:
    """Rows of a table by random 64-bit token ids."""
    ids = torch.randint(vocab, (tokens,), device=device)
    return partial(F.embedding, ids, noise(device, vocab, dim, dtype=dtype))


def draw_heads(draw: Draw, most_batch: int) -> dict[str, int]:
    """Batch, query heads, key-value heads (grouped or not) and head size of an attention."""
    kv_heads = draw.choice((1, 2, 4, 8, 8, 16, 32))
    heads = kv_heads * draw.choice([group for group in (1, 1, 2, 4, 8) if group * kv_heads <= 64])
    head_dim = draw.choice((64, 64, 80, 96, 128, 128, 128, 256))
    batch = draw.size(1, most_batch)
    return {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}


def draw_prefill(draw: Draw) -> Fields:
    """Prefill attention: causal with as many keys as queries, or full with another number of keys."""
    fields = draw_heads(draw, 32)
    per_row = fields["batch"] * fields["heads"] * fields["head_dim"]
    causal = draw.chance(0.5)
    room = draw.limits.operand_bytes / (8 * per_row)
    q_len = draw.size(16, min(32768, math.sqrt(draw.limits.flops / (4 * per_row)), room))
    kv_top = min(32768, draw.limits.flops / (4 * per_row * q_len), room)
    kv_len = q_len if causal or draw.chance(0.5) else draw.size(16, kv_top)
    return {**fields, "q_len": q_len, "kv_len": kv_len, "causal": causal, "dtype": draw.choice(HALVES)}


def attention(
    device: torch.device,
    batch: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    kv_len: int,
    dtype: str,
    q_len: int = 1,
    causal: bool = False,
) -> Call:
    """torch's scaled_dot_product_attention with its own choice of backend; grouped heads by enable_gqa."""
    q = noise(device, batch, heads, q_len, head_dim, dtype=dtype)
    k, v = (noise(device, batch, kv_heads, kv_len, head_dim, dtype=dtype) for _ in range(2))
    grouped = heads != kv_heads
    return partial(F.scaled_dot_product_attention, q, k, v, is_causal=causal, enable_gqa=grouped)


def draw_decode(draw: Draw) -> Fields:
    """Decode attention: one query per sequence over a cache of up to half the operand limit."""
    fields = draw_heads(draw, 256)
    row_bytes = 2 * fields["batch"] * fields["kv_heads"] * fields["head_dim"] * 2
    kv_len = draw.size(16, min(131072, draw.limits.operand_bytes / (2 * row_bytes)))
    return {**fields, "kv_len": kv_len, "dtype": draw.choice(HALVES)}


def draw_conv(draw: Draw) -> Fields:
    """Convolutions of image networks: dense or depthwise, strided or not, in both layouts."""
    dtype, k, stride = draw.choice(FLOATS), draw.choice((1, 1, 3, 3, 3, 5, 7)), draw.choice((1, 1, 2))
    depthwise = draw.chance(0.25)
    c = draw.choice((3, 4)) if not depthwise and draw.chance(0.1) else draw.size(8, 1024, 8)
    o = c if depthwise else draw.size(8, 1024, 8)
    h = draw.size(7, 224)
    w = h if draw.chance(0.8) else draw.size(7, 224)
    per_image = 2 * o * (1 if depthwise else c) * k * k * h * w / stride**2
    image_bytes = (c + o) * h * w * width(dtype)
    limits = draw.limits
    n = draw.size(1, min(256, limits.flops_of(dtype) / per_image, limits.operand_bytes / (4 * image_bytes)))
    padding = draw.choice((k // 2, k // 2, 0))
    shape: Fields = {"n": n, "c": c, "h": h, "w": w, "o": o, "k": k, "stride": stride, "padding": padding}
    groups = c if depthwise else 1
    return shape | {"groups": groups, "dtype": dtype, "layout": draw.choice(("nhwc", "nchw"))}


def conv2d(
    device: torch.device,
    n: int,
    c: int,
    h: int,
    w: int,
    o: int,
    k: int,
    stride: int,
    padding: int,
    groups: int,
    dtype: str,
    layout: str,
) -> Call:
    """Convolution without bias; nhwc is torch's channels_last for input and weight."""
    order = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    x = noise(device, n, c, h, w, dtype=dtype).contiguous(memory_format=order)
    weight = noise(device, o, c // groups, k, k, dtype=dtype).contiguous(memory_format=order)
    return partial(F.conv2d, x, weight, None, stride, padding, 1, groups)


def draw_gather(draw: Draw) -> Fields:
    """Rows of 16 B to 128 KiB out of a table of up to four times the operand limit."""
    room = draw.limits.operand_bytes
    row_bytes = draw.size(16, 131072, 4, nice=0.8)
    rows = draw.size(64, min(2**20, room / (4 * row_bytes)))
    table_rows = draw.size(max(64, 2**24 // row_bytes), max(128, 4 * room / row_bytes))
    return {"rows": rows, "row_bytes": row_bytes, "table_bytes": table_rows * row_bytes}


def gather_rows(device: torch.device, rows: int, row_bytes: int, table_bytes: int) -> Call:
    """index_select of random rows of 4-byte words."""
    table = torch.randn(table_bytes // row_bytes, row_bytes // 4, device=device)
    return partial(torch.index_select, table, 0, torch.randint(len(table), (rows,), device=device))


def draw_copy(draw: Draw) -> Fields:
    """A copy within one memory."""
    return {"bytes": draw.size(64, draw.limits.operand_bytes / 4)}


def draw_link_copy(draw: Draw) -> Fields:
    """A copy over the host link."""
    return {"bytes": draw.size(64, draw.limits.link_bytes)}


def copy(source_type: str, target_type: str, device: torch.device, bytes: int) -> Call:
    """A copy of random bytes between the device and page-locked host memory, or within the device."""
    source = torch.randint(256, (bytes,), dtype=torch.uint8, device=device)
    if source_type == "host":
        source = source.cpu().pin_memory()
    if target_type == "host":
        target = torch.empty(bytes, dtype=torch.uint8, pin_memory=True)
    else:
        target = torch.empty(bytes, dtype=torch.uint8, device=device)
    return partial(target.copy_, source, non_blocking=True)


def kernel_families(device: torch.device) -> dict[str, Family]:
    """Every op measured on a kind of device; a host has no link copies."""
    families = {
        "matmul": Family(matmul_specs, matmul, weight=4),
        "softmax": Family(endless(draw_rows), partial(rowwise, softmax, 0)),
        "layernorm": Family(endless(draw_rows), partial(rowwise, layernorm, 2)),
        "rmsnorm": Family(endless(draw_rows), partial(rowwise, rmsnorm, 1)),
        "sum": Family(endless(draw_rows), partial(rowwise, row_sum, 0)),
        "cumsum": Family(endless(draw_rows), partial(rowwise, row_cumsum, 0)),
        "transpose_copy": Family(endless(draw_rows), partial(rowwise, transpose_copy, 0)),
        "gelu": Family(endless(draw_numel), partial(elementwise, F.gelu, 1)),
        "silu": Family(endless(draw_numel), partial(elementwise, F.silu, 1)),
        "add": Family(endless(draw_numel), partial(elementwise, torch.add, 2)),
        "mul": Family(endless(draw_numel), partial(elementwise, torch.mul, 2)),
        "embedding": Family(endless(draw_embedding), embedding),
        "attention_prefill": Family(endless(draw_prefill), attention, weight=2),
        "attention_decode": Family(endless(draw_decode), attention, weight=2),
        "conv2d": Family(endless(draw_conv), conv2d, weight=2),
        "gather_rows": Family(endless(draw_gather), gather_rows),
        "copy_d2d": Family(endless(draw_copy), partial(copy, "device", "device")),
    }
    if device.type == "cuda":
        families["copy_h2d_pinned"] = Family(endless(draw_link_copy), partial(copy, "host", "device"))
        families["copy_d2h_pinned"] = Family(endless(draw_link_copy), partial(copy, "device", "host"))
    return families
