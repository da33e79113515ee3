"""Kernel interchange: every op becomes the right kernel, and errors name index and field."""

from __future__ import annotations

import gc
import math

import pytest

from hwsim.cost import Cost
from hwsim.device import load_device
from hwsim.errors import InputError
from hwsim.graph import Kind
from hwsim.kernel_ops import SPEC_OPS
from hwsim.kernel_spec import Cache, predict, spec_kernel
from hwsim.mapper import Launch

H200 = load_device("nvidia-h200")
COST = Cost(1e-6, 1e-6, {"hbm": 1.0}, {"hbm": 1e-6}, "hbm")
RECURRENT = {"batch": 2, "heads": 4, "d_k": 64, "d_v": 128, "dtype": "bf16"}
SPECS = [
    {"op": "matmul", "m": 8, "n": 16, "k": 32, "batch": 2, "dtype": "bf16"},
    *({"op": op, "rows": 8, "cols": 16, "dtype": "fp32"} for op in ("softmax", "layernorm", "rmsnorm", "sum")),
    *({"op": op, "rows": 8, "cols": 16, "dtype": "fp32"} for op in ("cumsum", "transpose_copy")),
    *({"op": op, "numel": 128, "dtype": "bf16"} for op in ("gelu", "silu", "add", "mul")),
    {"op": "quantize_rows", "rows": 8, "cols": 16, "dtype": "bf16"},
    {"op": "embedding", "vocab": 100, "dim": 16, "tokens": 4, "dtype": "bf16"},
    {"op": "attention_prefill", "batch": 1, "heads": 4, "kv_heads": 2, "head_dim": 64, "q_len": 16, "kv_len": 32,
     "causal": True, "dtype": "bf16"},
    {"op": "cache_write", "tokens": 16, "kv_heads": 2, "head_dim": 64, "dtype": "bf16"},
    {"op": "attention_decode", "batch": 1, "heads": 4, "kv_heads": 2, "head_dim": 64, "kv_len": 32, "dtype": "bf16"},
    {"op": "conv2d", "n": 2, "c": 8, "h": 10, "w": 12, "o": 16, "k": 3, "stride": 2, "padding": 1, "groups": 2,
     "dtype": "bf16", "layout": "nchw"},
    {"op": "gather_rows", "rows": 10, "row_bytes": 100, "table_bytes": 10000},
    *({"op": f"copy_{way}", "bytes": 4096} for way in ("h2d_pinned", "d2h_pinned", "d2d", "peer")),
    *({"op": op, "bytes": 4096, "ranks": 2} for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")),
    *({"op": f"chunk_{rule}", **RECURRENT, "tokens": 256, "pass_": "fwd+bwd"}
      for rule in ("gla", "ssd", "delta_rule", "gated_delta_rule", "kda", "gdn2")),
    *({"op": f"recurrent_{rule}", **RECURRENT, "tokens": 1, "pass_": "decode"}
      for rule in ("gla", "ssd", "delta_rule", "gated_delta_rule", "kda", "gdn2")),
]  # fmt: skip


def spec(op: str) -> dict[str, object]:
    return next(dict(item) for item in SPECS if item["op"] == op)


def test_every_op_is_covered_here():
    assert {item["op"] for item in SPECS} == set(SPEC_OPS)


@pytest.mark.parametrize("cache", list(Cache))
def test_every_op_is_predicted(cache):
    for given, result in zip(SPECS, predict(SPECS, H200, cache), strict=True):
        assert {name: result[name] for name in given} == given
        assert result["seconds"] > 0 and result["joules"] > 0 and result["bytes"]
        assert result["bound"] in ("matmul", "vector", "special", "hbm", "l2", "pcie", "nvlink", "latency", "power")


@pytest.mark.parametrize(
    ("op", "kind", "matmul_flops", "nbytes"),
    [
        ("matmul", Kind.MATMUL, 2 * 2 * 8 * 16 * 32, 2 * 2 * (8 * 32 + 32 * 16 + 8 * 16)),
        ("layernorm", Kind.NORM, 0, 4 * (2 * 8 * 16 + 2 * 16)),
        ("sum", Kind.REDUCE, 0, 4 * (8 * 16 + 8)),
        ("add", Kind.ELEMENTWISE, 0, 2 * 3 * 128),
        ("quantize_rows", Kind.ELEMENTWISE, 0, 8 * 16 * 3 + 8 * 4),
        ("embedding", Kind.GATHER, 0, 4 * 8 + 2 * 2 * 4 * 16),
        ("attention_prefill", Kind.ATTENTION, 4 * 4 * 16 * 32 * 64, 2 * 64 * (2 * 4 * 16 + 2 * 2 * 32)),
        ("conv2d", Kind.CONV, 2 * 2 * 5 * 6 * 16 * 4 * 9, 2 * (2 * 8 * 120 + 16 * 4 * 9 + 2 * 16 * 30)),
        ("gather_rows", Kind.GATHER, 0, 10 * (100 + 8 + 100)),
        ("cache_write", Kind.SCATTER, 0, 16 * (2 * 2 * 2 * 2 * 64 + 8)),
        ("copy_d2d", Kind.COPY, 0, 2 * 4096),
        ("all_gather", Kind.COLLECTIVE, 0, 3 * 4096),
    ],
)
def test_work_and_bytes_by_hand(op, kind, matmul_flops, nbytes):
    kernel = spec_kernel(spec(op), H200)
    assert kernel.kind is kind
    assert kernel.work.matmul_flops == matmul_flops
    assert kernel.nbytes == nbytes


def test_int8_products_give_int32_and_fp8_ones_bf16():
    sizes = {"op": "matmul", "m": 16, "n": 16, "k": 16}
    assert spec_kernel({**sizes, "dtype": "int8"}, H200).write_bytes == 4 * 256
    assert spec_kernel({**sizes, "dtype": "fp8"}, H200).write_bytes == 2 * 256


def test_the_host_side_of_a_copy_goes_over_its_link():
    memories = {flow.memory: flow.write for flow in spec_kernel(spec("copy_h2d_pinned"), H200).flows}
    assert memories == {"host": False, "hbm": True}


def test_forward_and_backward_do_four_times_the_products_of_forward():
    both = spec_kernel(spec("chunk_gla"), H200).work.matmul_flops
    assert both == 4 * spec_kernel({**spec("chunk_gla"), "pass_": "fwd"}, H200).work.matmul_flops


def test_cold_is_one_launch_and_warm_a_replay():
    cold, warm = (predict([spec("add")], H200, cache)[0]["seconds"] for cache in Cache)
    assert cold > warm
    assert spec_kernel(spec("add"), H200).launch is Launch.GRAPH


def test_joules_hold_the_static_power():
    (result,) = predict([spec("add")], H200)
    assert result["joules"] > H200.card.static_power * result["seconds"]


def test_bytes_are_those_of_the_operands_and_traffic_is_by_memory():
    (result,) = predict([spec("add")], H200)
    assert result["bytes"] == 2 * 3 * 128
    assert result["traffic"] == {"hbm": 768, "l2": 768}


def test_results_can_be_predicted_again():
    first = predict(SPECS, H200)
    assert predict(first, H200) == first


def test_specs_alike_are_one_kernel(monkeypatch):
    """Whatever else they hold, and with a default written out."""
    asked = []
    monkeypatch.setattr(
        type(H200), "estimate_all", lambda self, kernels: asked.extend(kernels) or [COST] * len(kernels)
    )
    sizes = {"op": "matmul", "m": 8, "n": 8, "k": 8, "dtype": "bf16"}
    found = predict([sizes, {**sizes, "batch": 1, "name": "b"}, {**sizes, "k": 9}, spec("add")], H200)
    assert len(asked) == 3
    assert [result.get("name") for result in found] == [None, "b", None, None]
    assert found[0]["bytes"] == found[1]["bytes"] == 3 * 2 * 64


def test_the_collector_is_back_after_an_error():
    with pytest.raises(InputError):
        predict([{}], H200)
    assert gc.isenabled()


@pytest.mark.parametrize("given", SPECS, ids=lambda given: str(given["op"]))
def test_sizes_of_one_kernel_do_not_stay_with_the_next(given):
    """Each op's graph is drawn once: small, large and small again."""
    fixed = ("op", "dtype", "kv_heads", "groups", "ranks", "tokens")
    large = {
        name: value * 2 if isinstance(value, int) and name not in fixed else value for name, value in given.items()
    }
    large |= {
        name: given[name] for name in ("causal", "padding", "k", "stride") if name in given and given["op"] != "matmul"
    }
    first, other, again = (spec_kernel(each, H200) for each in (given, large, given))
    assert first == again != other


def test_other_fields_come_back_as_they_were():
    assert predict([{**spec("add"), "name": "first", "seconds": 1}], H200)[0]["name"] == "first"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"op": "matmull"}, r"\[1\]\.op: unknown op 'matmull'; did you mean 'matmul'\?"),
        ({}, r"\[1\]\.op: missing"),
        ({"op": 3}, r"\[1\]\.op: unknown op 3"),
        ({"op": "matmul", "m": 1, "n": 1, "dtype": "bf16"}, r"\[1\]\.k: missing"),
        ({"op": "add", "numell": 1, "dtype": "bf16"}, r"\[1\]\.numel: missing; is 'numell' meant\?"),
        (
            {"op": "matmul", "m": 1, "n": 1, "k": 1, "dtype": "bf16", "bacth": 2},
            r"\[1\]\.bacth: unknown; is 'batch' meant",
        ),
        ({**spec("matmul"), "m": 0}, r"\[1\]\.m: got 0, expected a whole number from 1 to 2\^50"),
        ({**spec("matmul"), "m": 1.5}, r"\[1\]\.m: got 1\.5"),
        ({**spec("matmul"), "m": True}, r"\[1\]\.m: got true"),
        ({**spec("matmul"), "dtype": "bf61"}, r"\[1\]\.dtype: got 'bf61', expected one of .*; did you mean 'bf16'\?"),
        ({**spec("attention_prefill"), "causal": 1}, r"\[1\]\.causal: got 1, expected one of true, false"),
        ({**spec("attention_decode"), "kv_heads": 3}, r"\[1\]\.kv_heads: got 3, expected a divisor of heads = 4"),
        ({**spec("conv2d"), "groups": 3}, r"\[1\]\.groups: got 3, expected a divisor of c = 8"),
        ({**spec("conv2d"), "k": 15}, r"\[1\]\.k: got 15, expected at most h"),
        ("matmul", r"\[1\]: got 'matmul', expected an object"),
    ],
)
def test_errors_name_index_and_field(wrong, message):
    with pytest.raises(InputError, match=message) as error:
        predict([spec("add"), wrong], H200)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("given", [1e9, 10.0**9])
def test_a_whole_number_may_be_written_as_json_writes_it(given):
    found, plain = (predict([{"op": "copy_d2d", "bytes": size}], H200)[0] for size in (given, 10**9))
    assert found == plain
    assert type(spec_kernel({"op": "copy_d2d", "bytes": given}, H200).attrs["numel"]) is int


@pytest.mark.parametrize(
    ("given", "got"),
    [(1.5, "1.5"), (math.nan, "nan"), (math.inf, "inf"), (-3.0, "-3"), (1e300, "1e"), (2**51, "2251799813685248")],
)
def test_other_numbers_are_no_sizes(given, got):
    with pytest.raises(InputError, match=rf"^\[0\]\.bytes: got {got}.*, expected a whole number from 1 to 2\^50$"):
        predict([{"op": "copy_d2d", "bytes": given}], H200)


def test_what_a_card_cannot_run_is_told_with_its_index():
    with pytest.raises(InputError, match=r"^\[1\]: card 'nvidia-rtx-4090' has no link to a peer") as error:
        predict([spec("add"), spec("all_reduce")], load_device("nvidia-rtx-4090"))
    assert error.value.exit_code == 2


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InputError) as error:
        predict([{"op": "matmul"}, 7, {"op": "x"}], H200)
    assert [problem.path for problem in error.value.problems] == [
        "[0].m",
        "[0].n",
        "[0].k",
        "[0].dtype",
        "[1]",
        "[2].op",
    ]
