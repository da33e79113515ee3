"""Tables of AIConfigurator become measurements: made-up rows under the real column names, checked by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hwsim.errors import InputError
from hwsim.kernel_spec import Cache, predict
from hwsim.kernels import aiconfigurator
from hwsim.kernels.aiconfigurator import read_tables, table_systems
from hwsim.measurements import read_measurements, split_rows

GEMM = {"kernel_source": "linear", "gemm_dtype": "bfloat16", "m": 8, "n": 64, "k": 32, "latency": 0.004}
HEADS = {"batch_size": 2, "num_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "beam_width": 1}
ATTENTION = {"kernel_source": "fa3", **HEADS, "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "window_size": 0}


def put(root: Path, where: str, *rows: dict[str, object]) -> Path:
    """A table ``system/family/framework/version/name`` below the package folder ``root``."""
    file = root / "systems" / "data" / f"{where}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(file)
    return root


def gemm(root: Path, *rows: dict[str, object], framework: str = "vllm", version: str = "0.24.0") -> Path:
    return put(root, f"x1/gemm/{framework}/{version}/gemm_perf", *(GEMM | row for row in rows))


CACHE_WRITE = {"op": "cache_write", "kv_heads": 4, "head_dim": 64, "dtype": "bf16"}


def test_gemm_becomes_matmul_in_seconds(tmp_path):
    """4 us a call; each of the six layers of the graph has its own weight."""
    (row,) = read_tables("x1", folder=gemm(tmp_path, {})).rows
    assert row.spec == {"op": "matmul", "m": 8, "n": 64, "k": 32, "batch": 1, "dtype": "bf16"}
    assert row.seconds_warm == pytest.approx(4e-6)
    assert (row.seconds_cold, row.joules_warm) == (None, None)
    assert (row.rotation, row.rotates_inputs, row.companions, row.kernel) == (6, False, (), "linear")


def test_fp8_quantises_its_activations_within_the_time(tmp_path):
    rows = read_tables("x1", folder=gemm(tmp_path, {"gemm_dtype": "fp8"}, {"gemm_dtype": "fp8_block"})).rows
    assert [row.spec["dtype"] for row in rows] == ["fp8"]
    assert rows[0].companions == ({"op": "quantize_rows", "rows": 8, "cols": 32, "dtype": "bf16"},)


def test_frameworks_differ_in_what_they_rotate(tmp_path):
    for framework in ("sglang", "trtllm"):
        gemm(tmp_path, {}, framework=framework, version="1.0")
    sglang, trtllm = (read_tables("x1", name, folder=tmp_path).rows[0] for name in ("sglang", "trtllm"))
    assert (sglang.rotation, sglang.rotates_inputs) == (6, True)
    assert (trtllm.rotation, trtllm.rotates_inputs) == (5, False)


def test_trtllm_takes_as_few_weights_as_exceed_the_cache(tmp_path):
    """Weights of 40 and 20 MiB against the 60 MiB of an H200: two and three, and small ones five."""
    sizes = [{"n": n, "k": 1024} for n in (20480, 10240, 64, 65536)]
    put(tmp_path, "h200_sxm/gemm/trtllm/1.3.0/gemm_perf", *(GEMM | size for size in sizes))
    assert [row.rotation for row in read_tables("h200_sxm", "trtllm", folder=tmp_path).rows] == [2, 3, 5, 1]


def test_vllm_comes_first_and_the_newest_version(tmp_path):
    for framework, version, m in (("sglang", "1.9", 1), ("vllm", "0.9.1", 2), ("vllm", "0.14.0", 3)):
        gemm(tmp_path, {"m": m}, framework=framework, version=version)
    assert read_tables("x1", folder=tmp_path).rows[0].spec["m"] == 3
    assert read_tables("x1", "vllm/0.9.1", folder=tmp_path).rows[0].spec["m"] == 2
    assert read_tables("x1", "sglang", folder=tmp_path).rows[0].spec["m"] == 1


def test_context_attention_is_causal_over_past_and_new_positions(tmp_path):
    """Keys and values of 2 x 16 tokens, 4 heads of 64 in bf16, are written."""
    place = "x1/attention/vllm/0.24.0/context_attention_perf"
    windowed, fp8, ragged = {"window_size": 128}, {"kv_cache_dtype": "fp8"}, {"num_heads": 6}
    wide = {"head_dim": 512, "kernel_source": "vllm_flash_attn_fa4"}
    changes = ({}, windowed, fp8, ragged, wide)
    rows = [ATTENTION | {"isl": 16, "step": 48, "latency": 0.5} | change for change in changes]
    (row,) = read_tables("x1", folder=put(tmp_path, place, *rows)).rows
    heads = {"batch": 2, "heads": 8, "kv_heads": 4, "head_dim": 64}
    lengths = {"q_len": 16, "kv_len": 64}
    assert row.spec == {"op": "attention_prefill", **heads, **lengths, "causal": True, "dtype": "bf16"}
    assert (row.rotation, row.companions) == (1, (CACHE_WRITE | {"tokens": 32},))


def test_generation_attends_to_the_cached_positions_and_its_own(tmp_path):
    place = "x1/attention/vllm/0.24.0/generation_attention_perf"
    row = ATTENTION | {"isl": 1, "step": 1023, "latency": 0.25}
    (row,) = read_tables("x1", folder=put(tmp_path, place, row)).rows
    heads = {"batch": 2, "heads": 8, "kv_heads": 4, "head_dim": 64}
    assert row.spec == {"op": "attention_decode", **heads, "kv_len": 1024, "dtype": "bf16"}
    assert row.companions == (CACHE_WRITE | {"tokens": 2},)
    assert row.seconds_warm == pytest.approx(250e-6)


def test_flash_attention_2_copies_the_queries_and_outputs_of_groups(tmp_path):
    """Of 2 sequences x 8 heads of 64 in bf16: 2 KiB each; not of one sequence, and not without groups."""
    place = "x1/attention/vllm/0.24.0/generation_attention_perf"
    row = ATTENTION | {"isl": 1, "step": 1023, "latency": 0.25, "kernel_source": "vllm_flash_attn_fa2"}
    rows = [row, row | {"batch_size": 1}, row | {"num_heads": 4}, row | {"num_key_value_heads": 1}]
    found = read_tables("x1", folder=put(tmp_path, place, *rows)).rows
    assert [len(row.companions) for row in found] == [3, 1, 1, 1]
    assert found[0].companions[1:] == ({"op": "copy_d2d", "bytes": 2048},) * 2


def test_encoder_attention_is_square_and_not_causal(tmp_path):
    row = {"kernel_source": "fa3", "batch_size": 1, "isl": 9, "num_heads": 4, "head_dim": 64, "attn_dtype": "bfloat16"}
    put(tmp_path, "x1/encoder_attention/vllm/0.24.0/encoder_attention_perf", row | {"latency": 1.0})
    (row,) = read_tables("x1", folder=tmp_path).rows
    sizes = {"batch": 1, "heads": 4, "kv_heads": 4, "head_dim": 64, "q_len": 9, "kv_len": 9}
    assert row.spec == {"op": "attention_prefill", **sizes, "causal": False, "dtype": "bf16"}


def test_latent_products_are_batched_by_head(tmp_path):
    """Queries of 128 features meet 512 latent ones; what is attended comes back."""
    row = {"kernel_source": "bmm", "bmm_dtype": "bfloat16", "num_tokens": 3, "num_heads": 16, "latency": 0.002}
    rows = [row | {"op_name": name} for name in ("mla_gen_pre", "mla_gen_post")]
    put(tmp_path, "x1/mla_bmm/vllm/1/mla_bmm_perf", *rows, rows[0] | {"bmm_dtype": "fp8"})
    first, last = (row.spec for row in read_tables("x1", folder=tmp_path).rows)
    assert first == {"op": "matmul", "m": 3, "n": 512, "k": 128, "batch": 16, "dtype": "bf16"}
    assert (last["n"], last["k"]) == (128, 512)


def test_recurrences_take_plain_kernels_with_equal_heads(tmp_path):
    heads = {"num_k_heads": 4, "head_k_dim": 128, "num_v_heads": 4, "head_v_dim": 64}
    row = {"phase": "context", "batch_size": 2, "seq_len": 256, **heads, "latency": 0.1}
    step = {"phase": "generation", "seq_len": 1}
    kda = ("flashkda_fwd", "causal_conv1d_fn_qkv3")
    put(tmp_path, "x1/kda/vllm/1/kda_perf", *(row | {"kernel_source": name} for name in kda))
    gdn = [{"kernel_source": "chunk_gated_delta_rule", "num_k_heads": 2}, {"kernel_source": "causal_conv1d_update"}]
    gdn.append({"kernel_source": "fused_recurrent_gated_delta_rule_packed_decode", **step})
    put(tmp_path, "x1/linear_attention/vllm/1/gdn_perf", *(row | change for change in gdn))
    sizes = {"batch": 2, "heads": 4, "d_k": 128, "d_v": 64, "dtype": "bf16"}
    assert [found.spec for found in read_tables("x1", folder=tmp_path).rows] == [
        {"op": "chunk_kda", **sizes, "tokens": 256, "pass_": "fwd"},
        {"op": "recurrent_gated_delta_rule", **sizes, "tokens": 1, "pass_": "decode"},
    ]


def test_collectives_count_the_input_of_one_rank(tmp_path):
    """1,024 fp16 elements are 2 KiB: what four ranks gather, 512 B each, or what each of them gives."""
    row = {"kernel_source": "NCCL", "nccl_dtype": "half", "num_gpus": 4, "message_size": 1024, "latency": 0.01}
    ops = ("all_gather", "reduce_scatter", "alltoall", "all_reduce")
    put(tmp_path, "x1/comm/nccl/2.9/nccl_perf", *(row | {"op_name": op} for op in ops), row | {"op_name": "sendrecv"})
    found = {found.op: found.spec for found in read_tables("x1", folder=tmp_path).rows}
    assert found.pop("all_gather") == {"op": "all_gather", "bytes": 512, "ranks": 4}
    assert {op: spec["bytes"] for op, spec in found.items()} == dict.fromkeys(
        ("reduce_scatter", "all_to_all", "all_reduce"), 2048
    )


def test_ops_choose_tables(tmp_path):
    put(tmp_path, "x1/attention/vllm/1/generation_attention_perf", ATTENTION | {"isl": 1, "step": 7, "latency": 1.0})
    gemm(tmp_path, {})
    assert [row.op for row in read_tables("x1", ops=["matmul"], folder=tmp_path).rows] == ["matmul"]
    assert len(read_tables("x1", folder=tmp_path).rows) == 2


def test_specs_can_be_predicted(tmp_path):
    from toys import toy_device

    rows = read_tables("x1", folder=gemm(tmp_path / "tables", {"gemm_dtype": "bfloat16"})).rows
    (found,) = predict([row.spec for row in rows], toy_device(tmp_path), Cache.WARM)
    assert found["seconds"] > 0


def test_what_is_missing_is_said(tmp_path):
    root = gemm(tmp_path, {})
    with pytest.raises(InputError, match="unknown system 'x2'"):
        read_tables("x2", folder=root)
    with pytest.raises(InputError, match=r"unknown framework 'vlm'.*did you mean 'vllm'"):
        read_tables("x1", "vlm", folder=root)
    with pytest.raises(InputError, match=r"unknown version of vllm '0\.1'"):
        read_tables("x1", "vllm/0.1", folder=root)
    with pytest.raises(InputError, match="did you mean 'matmul'"):
        read_tables("x1", ops=["matmull"], folder=root)
    with pytest.raises(InputError, match="no table of x1 holds attention_decode"):
        read_tables("x1", ops=["attention_decode"], folder=root)
    put(tmp_path, "x3/gemm/vllm/1/gemm_perf", {name: value for name, value in GEMM.items() if name != "k"})
    with pytest.raises(InputError, match=r"gemm_perf.parquet: column 'k' is missing"):
        read_tables("x3", folder=root)
    assert table_systems(root) == ("x1", "x3")


def test_an_absent_package_names_the_line_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(aiconfigurator, "PACKAGE", "a_package_that_nobody_has")
    with pytest.raises(InputError, match=r"not installed.*pip install 'hwsim\[aic\]'"):
        read_tables("h200_sxm")
    with pytest.raises(InputError, match="holds no tables"):
        read_tables("h200_sxm", folder=tmp_path)


def test_an_installed_package_is_found_and_not_imported(tmp_path, monkeypatch):
    (tmp_path / "made_up_tables").mkdir()
    (tmp_path / "made_up_tables" / "__init__.py").write_text("raise RuntimeError('imported')")
    gemm(tmp_path / "made_up_tables", {})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(aiconfigurator, "PACKAGE", "made_up_tables")
    assert read_measurements("aic:x1/vllm").rows[0].spec["m"] == 8


def test_a_share_of_the_rows_is_the_same_in_any_order(tmp_path):
    rows = read_tables("x1", folder=gemm(tmp_path, *({"m": m} for m in range(1, 1001)))).rows
    tenth, rest = split_rows(rows)
    assert 60 < len(tenth) < 140
    assert sorted(tenth + rest, key=lambda row: row.spec["m"]) == list(rows)
    assert set(map(id, split_rows(rows[::-1])[0])) == set(map(id, tenth))


def test_formats_of_one_shape_stay_together(tmp_path):
    shapes = [{"m": m, "gemm_dtype": fmt} for m in range(1, 101) for fmt in ("bfloat16", "fp8")]
    tenth, _ = split_rows(read_tables("x1", folder=gemm(tmp_path, *shapes)).rows)
    assert {row.spec["m"] for row in tenth if row.spec["dtype"] == "fp8"} == {
        row.spec["m"] for row in tenth if row.spec["dtype"] == "bf16"
    }
