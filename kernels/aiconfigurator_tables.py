"""What the Parquet tables of AIConfigurator hold, as kernels of the interchange.

How each was run is read from its collector (ai-dynamo/aiconfigurator 095f58a, folder collector/):

- GEMM: one graph holds `rotation` linear layers with a weight each, vLLM and SGLang 6, TensorRT-LLM 5 and since 1.3 as
  few as exceed the L2, down to 1. vLLM and TensorRT-LLM give all the same activations, SGLang gives each its own.
  Operands are random normal, but vLLM's weights are as allocated, not initialised (fp8: all 0.01), which may save
  power: its compute-bound products take 3 to 14 % less time than those of the others (medians). fp8 is per tensor
  or per token and quantises its bf16 activations within the time. int8 and int4 weights with 16-bit activations,
  blockwise fp8 and nvfp4 have no equivalent in the interchange and are left out.
- Attention: one graph holds one call, on the same operands each time; what fits the L2 is found there. The new keys and
  values are written to the paged cache within the time (TensorRT-LLM also rotates them). Context is causal over
  `isl` + `step` positions; generation attends to `step` cached ones and its own. Windows and fp8 caches are left
  out. Encoder attention is not causal and has no cache.
- Absorbed products of latent attention: a batched product per head between 128 and 512 features, one call a graph.
- Linear attention: ten calls a graph (KDA: one) on the same operands, states in fp32; context kernels start from a
  given state and return the last, KDA's also normalise and make the gate. Kernels that fuse the convolution or the
  norm, grouped value heads, convolutions and speculative checks are left out. Mamba-2's scan is in none of the tables.
- Collectives: nccl-tests, one process, all GPUs of one host (GB200, GB300: four a host), 60 to 100 launches in a row
  without a graph. fp16 sums; the rows of int8 are the same sizes again.

No op of the interchange stands for experts (routed token counts are distributions), latent attention itself (keys and
values of different width), sparse attention, quantisation and hyper-connections: those tables are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import InputError, Problem
from hwsim.measurements import Measurement

if TYPE_CHECKING:
    import pandas as pd

MILLISECOND = 1e-3
BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class Origin:
    """Who measured a table: system, framework and its version."""

    system: str
    framework: str
    version: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of a table that have become specs: lists of one length, and what all rows share."""

    specs: list[dict[str, Any]]
    milliseconds: list[float]
    kernels: list[str]
    rotations: list[int] = field(default_factory=list)
    rotates_inputs: bool = False
    companions: list[tuple[Mapping[str, Any], ...]] = field(default_factory=list)

    def measurements(self) -> Iterator[Measurement]:
        """One measurement a row, in seconds."""
        companions: Iterable[tuple[Mapping[str, Any], ...]] = self.companions or [()] * len(self.specs)
        rotations = self.rotations or [1] * len(self.specs)
        rows = zip(self.specs, self.milliseconds, self.kernels, rotations, companions, strict=True)
        for spec, latency, kernel, rotation, also in rows:
            seconds = latency * MILLISECOND
            yield Measurement(spec, None, seconds, None, rotation, self.rotates_inputs, also, kernel)


Convert = Callable[["pd.DataFrame", Origin], Iterable[Rows]]


@dataclass(frozen=True, slots=True)
class Table:
    """One kind of table: its folder and file name, the columns it needs, the ops that it can give and how."""

    family: str
    name: str
    ops: tuple[str, ...]
    columns: tuple[str, ...]
    method: str
    convert: Convert


TABLES: list[Table] = []


def table(family: str, name: str, ops: str, columns: str, method: str) -> Callable[[Convert], Convert]:
    """Register the reader of a kind of table; ``ops`` and ``columns`` are separated by spaces."""

    def register(convert: Convert) -> Convert:
        TABLES.append(Table(family, name, tuple(ops.split()), tuple(columns.split()), method, convert))
        return convert

    return register


def table_rows(table: Table, file: Path, origin: Origin) -> Iterator[Measurement]:
    """The measurements of one file; `InputError` where it cannot be read or lacks a column."""
    import pandas as pd

    try:
        frame = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise InputError(Problem(f"cannot be read: {error}", str(file))) from None
    missing = [name for name in (*table.columns, "kernel_source", "latency") if name not in frame]
    if missing:
        expected = ", ".join((*table.columns, "kernel_source", "latency"))
        raise InputError(Problem(f"column '{missing[0]}' is missing", str(file), expected=expected))
    for rows in table.convert(frame[frame["latency"] > 0], origin):
        yield from rows.measurements()


def specs(op: str, columns: Mapping[str, pd.Series | str | int | bool]) -> list[dict[str, Any]]:
    """The specs of a table's rows: a column gives each row its integer, anything else is the same in all."""
    lists = {name: column.astype(int).tolist() for name, column in columns.items() if hasattr(column, "astype")}
    same = {name: column for name, column in columns.items() if name not in lists}
    return [{"op": op, **dict(zip(lists, sizes, strict=True)), **same} for sizes in zip(*lists.values(), strict=True)]


def rows_of(frame: pd.DataFrame, made: list[dict[str, Any]], **conditions: Any) -> Rows:
    """The rows of ``frame`` with the specs made of them."""
    return Rows(made, frame["latency"].tolist(), frame["kernel_source"].astype(str).tolist(), **conditions)


GEMM_COPIES = {"vllm": 6, "sglang": 6, "trtllm": 5}
L2_BYTES = {
    "h100_sxm": 50 * 2**20,
    "h200_sxm": 60 * 2**20,
    "l40s": 96 * 2**20,
    "rtx_pro_6000_server": 128 * 2**20,
    **dict.fromkeys(("b200_sxm", "b300_sxm", "gb200", "gb300"), 253 * 2**19),
}
"""What the driver reports: markdewing/AI_kernels, latency/README.md, and the cards."""
GEMM_FORMATS = {"bfloat16": "bf16", "float16": "fp16", "fp8": "fp8"}


@table("gemm", "gemm_perf", "matmul", "gemm_dtype m n k", "a graph of `rotation` layers, each with its own weight")
def _gemm(frame: pd.DataFrame, origin: Origin) -> Iterator[Rows]:
    for given, fmt in GEMM_FORMATS.items():
        part = frame[frame["gemm_dtype"] == given]
        made = specs("matmul", {"m": part["m"], "n": part["n"], "k": part["k"], "batch": 1, "dtype": fmt})
        yield rows_of(
            part,
            made,
            rotations=[_copies(spec, origin) for spec in made],
            rotates_inputs=origin.framework == "sglang",
            companions=[_quantised(spec) for spec in made] if fmt == "fp8" else [],
        )


def _copies(spec: Mapping[str, Any], origin: Origin) -> int:
    """How many weights take turns."""
    most = GEMM_COPIES[origin.framework]
    if origin.framework != "trtllm" or origin.version.startswith("1.0") or origin.system not in L2_BYTES:
        return most
    weight_bytes: int = spec["n"] * spec["k"] * (1 if spec["dtype"] == "fp8" else BF16_BYTES)
    return max(1, min(most, ceil(L2_BYTES[origin.system] / weight_bytes)))


def _quantised(spec: Mapping[str, int]) -> tuple[Mapping[str, Any], ...]:
    """Activations from bf16 to fp8."""
    return ({"op": "quantize_rows", "rows": spec["m"], "cols": spec["k"], "dtype": "bf16"},)


def _copy(nbytes: int) -> Mapping[str, Any]:
    return {"op": "copy_d2d", "bytes": max(1, nbytes)}


ATTENTION = "batch_size isl num_heads num_key_value_heads head_dim attn_dtype kv_cache_dtype step"
ONE_CALL = "a graph of one call on the same operands, the write of new keys and values included"
SAME_OPERANDS = "a graph of calls on the same operands"
NCCL_TESTS = "nccl-tests of one process, launched in a row without a graph"


@table("attention", "context_attention_perf", "attention_prefill", ATTENTION, ONE_CALL)
def _context(frame: pd.DataFrame, origin: Origin) -> Iterator[Rows]:
    part = _full_bf16(frame, origin)
    heads = {"batch": part["batch_size"], "heads": part["num_heads"], "kv_heads": part["num_key_value_heads"]}
    lengths = {"q_len": part["isl"], "kv_len": part["isl"] + part["step"]}
    made = specs(
        "attention_prefill", {**heads, "head_dim": part["head_dim"], **lengths, "causal": True, "dtype": "bf16"}
    )
    yield rows_of(part, made, companions=_companions(part, made, origin))


@table("attention", "generation_attention_perf", "attention_decode", ATTENTION, ONE_CALL)
def _generation(frame: pd.DataFrame, origin: Origin) -> Iterator[Rows]:
    part = _full_bf16(frame, origin)
    heads = {"batch": part["batch_size"], "heads": part["num_heads"], "kv_heads": part["num_key_value_heads"]}
    made = specs(
        "attention_decode",
        {**heads, "head_dim": part["head_dim"], "kv_len": part["isl"] + part["step"], "dtype": "bf16"},
    )
    yield rows_of(part, made, companions=_companions(part, made, origin))


def _full_bf16(frame: pd.DataFrame, origin: Origin) -> pd.DataFrame:
    """Rows without a window, in bf16 throughout, with whole groups of heads and values as wide as keys.

    SGLang's rows of head_dim 192 have values of 128, which the table does not say. Heads of 512 on Hopper are left out:
    vLLM's FlashAttention-4 joins as many parts as it has room for there, which takes 1,850 us for 512 sequences of 32
    keys and 440 us for 64 of 4,096.
    """
    keep = (frame["attn_dtype"] == "bfloat16") & (frame["kv_cache_dtype"] == "bfloat16")
    keep &= frame["num_heads"] % frame["num_key_value_heads"] == 0
    if "window_size" in frame:
        keep &= frame["window_size"] == 0
    if origin.framework == "sglang":
        keep &= frame["head_dim"] != 192
    keep &= (frame["kernel_source"] != HOPPER_WIDE) | (frame["head_dim"] <= WIDEST)
    return frame[keep]


HOPPER_WIDE, WIDEST = "vllm_flash_attn_fa4", 256
SWAPPING = ("vllm_flash_attn", "vllm_flash_attn_fa2")  # kernels of FlashAttention-2


def _companions(frame: pd.DataFrame, made: list[dict[str, Any]], origin: Origin) -> list[tuple[Mapping[str, Any], ...]]:
    """The write of new keys and values into the cache, and the copies that vLLM's FlashAttention-2 makes of queries and
    outputs to have single queries of a group of heads side by side (mha_varlen_fwd, seqlenq_ngroups_swapped)."""
    kernels = frame["kernel_source"].tolist()
    return [
        (_cached(spec), *((_swapped(spec),) * 2 if kernel in SWAPPING and _swaps(spec) else ()))
        for spec, kernel in zip(made, kernels, strict=True)
    ]


def _cached(spec: Mapping[str, int]) -> Mapping[str, Any]:
    """The write of a call's new keys and values."""
    tokens = spec["batch"] * spec.get("q_len", 1)
    return {"op": "cache_write", "tokens": tokens} | {key: spec[key] for key in ("kv_heads", "head_dim", "dtype")}


def _swaps(spec: Mapping[str, int]) -> bool:
    return spec.get("q_len", 1) == 1 and spec["heads"] > spec["kv_heads"] > 1 and spec["batch"] > 1


def _swapped(spec: Mapping[str, int]) -> Mapping[str, Any]:
    return _copy(BF16_BYTES * spec["batch"] * spec["heads"] * spec["head_dim"])


@table(
    "encoder_attention",
    "encoder_attention_perf",
    "attention_prefill",
    "batch_size isl num_heads head_dim attn_dtype",
    f"{SAME_OPERANDS}, not causal",
)
def _encoder(frame: pd.DataFrame, origin: Origin) -> Iterator[Rows]:
    part = frame[frame["attn_dtype"] == "bfloat16"]
    heads = {"batch": part["batch_size"], "heads": part["num_heads"], "kv_heads": part["num_heads"]}
    lengths = {"q_len": part["isl"], "kv_len": part["isl"]}
    made = specs(
        "attention_prefill", {**heads, "head_dim": part["head_dim"], **lengths, "causal": False, "dtype": "bf16"}
    )
    yield rows_of(part, made)


LATENT_PRODUCTS = {"mla_gen_pre": (512, 128), "mla_gen_post": (128, 512)}
"""n and k of the products that replace keys and values by the latent ones, per head."""


@table("mla_bmm", "mla_bmm_perf", "matmul", "op_name bmm_dtype num_tokens num_heads", SAME_OPERANDS)
def _latent_products(frame: pd.DataFrame, origin: Origin) -> Iterator[Rows]:
    for name, (n, k) in LATENT_PRODUCTS.items():
        part = frame[(frame["op_name"] == name) & (frame["bmm_dtype"] == "bfloat16")]
        sizes = {"m": part["num_tokens"], "batch": part["num_heads"]}
        yield rows_of(part, specs("matmul", {**sizes, "n": n, "k": k, "dtype": "bf16"}))


RECURRENCE = "phase batch_size seq_len num_k_heads head_k_dim num_v_heads head_v_dim"
KDA = {
    "chunk_kda": ("chunk_kda", "chunk_kda_with_fused_gate", "flashkda_fwd"),
    "recurrent_kda": ("fused_recurrent_kda_packed_decode",),
}
GATED_DELTA_RULE = {
    "chunk_gated_delta_rule": tuple(f"chunk_gated_delta_rule{kind}" for kind in ("", "_flashinfer", "_triton")),
    "recurrent_gated_delta_rule": tuple(f"fused_recurrent_gated_delta_rule{kind}" for kind in ("", "_packed_decode")),
}


@table("kda", "kda_perf", " ".join(KDA), RECURRENCE, SAME_OPERANDS)
def _kda(frame: pd.DataFrame, origin: Origin) -> Iterator[Rows]:
    return _recurrences(frame, KDA)


@table("linear_attention", "gdn_perf", " ".join(GATED_DELTA_RULE), RECURRENCE, SAME_OPERANDS)
def _gated_delta_rule(frame: pd.DataFrame, origin: Origin) -> Iterator[Rows]:
    return _recurrences(frame, GATED_DELTA_RULE)


def _recurrences(frame: pd.DataFrame, kernels: Mapping[str, tuple[str, ...]]) -> Iterator[Rows]:
    """The rows of the named kernels that have as many key heads as value heads."""
    for op, names in kernels.items():
        chunked = op.startswith("chunk_")
        part = frame[(frame["phase"] == ("context" if chunked else "generation"))]
        part = part[part["kernel_source"].isin(names) & (part["num_k_heads"] == part["num_v_heads"])]
        sizes = {"batch": part["batch_size"], "tokens": part["seq_len"], "heads": part["num_v_heads"]}
        widths = {"d_k": part["head_k_dim"], "d_v": part["head_v_dim"]}
        same = {"dtype": "bf16", "pass_": "fwd" if chunked else "decode"}
        yield rows_of(part, specs(op, {**sizes, **widths, **same}))


COLLECTIVES = {name: name for name in ("all_reduce", "all_gather", "reduce_scatter")} | {"alltoall": "all_to_all"}
FP16_BYTES = 2


@table("comm", "nccl_perf", " ".join(COLLECTIVES.values()), "op_name nccl_dtype num_gpus message_size", NCCL_TESTS)
def _collectives(frame: pd.DataFrame, origin: Origin) -> Iterator[Rows]:
    """``message_size`` counts the elements of the larger side: what all ranks gather, else what one rank gives."""
    for name, op in COLLECTIVES.items():
        part = frame[(frame["op_name"] == name) & (frame["nccl_dtype"] == "half")]
        nbytes = part["message_size"] * FP16_BYTES
        mine = nbytes // part["num_gpus"] if op == "all_gather" else nbytes
        yield rows_of(part, specs(op, {"bytes": mine, "ranks": part["num_gpus"]}))
