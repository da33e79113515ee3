"""What-if cards: fewer units or half the bandwidth are never faster, in any op; what does not wait for memory stays."""

from __future__ import annotations

from math import exp, log
from random import Random

import pytest

from hwsim.device import Replay, estimate_all, load_device, timed
from hwsim.errors import CardError
from hwsim.kernel_ops import SPEC_OPS
from hwsim.kernel_spec import spec_kernel

H200 = load_device("nvidia-h200")
FEWER = load_device("nvidia-h200", {"compute.units": 66})
SLOWER = load_device("nvidia-h200", {"memories.hbm.bandwidth": "2.4 TB/s"})
COLD, WARM = None, Replay()
DRAWS = 60
# Ranges (logarithmic) and choices of sizes, those of an op before those of any.
SIZES: dict[str, tuple[int, int] | list[int]] = {
    "matmul n": (64, 16384), "matmul k": (64, 16384), "m": (64, 16384), "conv2d n": (1, 64), "conv2d k": [1, 3],
    "batch": (1, 64), "heads": [8, 16, 32, 64], "kv_heads": [1, 2, 4, 8], "head_dim": [64, 128], "d_k": [64, 128],
    "d_v": [64, 128], "dim": (64, 8192), "cols": (64, 8192), "rows": (16, 32768), "tokens": (64, 8192),
    "q_len": (16, 8192), "kv_len": (16, 8192), "numel": (1000, 2**28), "bytes": (1000, 2**28), "vocab": [50000],
    "row_bytes": (32, 8192), "table_bytes": (2**20, 2**32), "ranks": [2, 4, 8], "chunk": [64], "padding": [1],
    "groups": [1], "stride": [1, 2], "c": [16, 64, 256], "o": [16, 64, 256], "h": [14, 56, 112], "w": [14, 56, 112],
}  # fmt: skip
# The least that half the units may take of the whole chip's time. Attention fetches queries in one burst of all units,
# even where there are fewer tiles, so that half of them wait a little less. Keys are cut into powers of two of parts
# for all units, and join once more than on a smaller chip that cuts them less.
LEAST = {"attention_prefill": 0.99, "attention_decode": 0.9}
PREFILL = {
    "op": "attention_prefill", "batch": 1, "heads": 8, "kv_heads": 8, "head_dim": 128, "q_len": 500, "kv_len": 500,
    "causal": True, "dtype": "bf16",
}  # fmt: skip


def drawn(op, draw):
    """A spec of ``op`` in bf16 with sizes from `SIZES`."""
    spec = {"op": op, "tokens": 1} if op.startswith("recurrent") else {"op": op}
    for name, field in SPEC_OPS[op].fields.items():
        if name == "dtype":
            spec[name] = "bf16"
        elif field.choices:
            spec[name] = draw.choice(field.choices)
        elif name not in spec:
            sizes = SIZES.get(f"{op} {name}") or SIZES[name]
            spec[name] = draw.choice(sizes) if isinstance(sizes, list) else int(exp(draw.uniform(*map(log, sizes))))
    return spec


def seconds(device, specs, replay):
    return [cost.seconds for cost in estimate_all(timed(device, replay), [spec_kernel(one, device) for one in specs])]


@pytest.mark.parametrize("replay", [COLD, WARM], ids=["cold", "warm"])
@pytest.mark.parametrize("op", SPEC_OPS)
def test_less_of_a_chip_is_never_faster(op, replay):
    draw = Random(op)
    specs = [drawn(op, draw) for _ in range(DRAWS)]
    base = seconds(H200, specs, replay)
    for other, least in ((FEWER, LEAST.get(op, 1.0)), (SLOWER, 1.0)):
        for spec, before, after in zip(specs, base, seconds(other, specs, replay), strict=True):
            assert after >= least * before * (1 - 1e-9), spec


def test_fewer_units_do_not_speed_up_few_tiles():
    """Units stay as strong as they are: few tiles take as long on a chip that has room for them."""
    for units in (66, 33):
        fewer = load_device("nvidia-h200", {"compute.units": units})
        assert seconds(fewer, [PREFILL], COLD) == pytest.approx(seconds(H200, [PREFILL], COLD), rel=0.01)


@pytest.mark.parametrize(
    ("spec", "factor"),
    [
        ({"op": "matmul", "m": 8192, "n": 8192, "k": 8192, "dtype": "bf16"}, 1.0),
        ({**PREFILL, "batch": 4, "heads": 32, "q_len": 4096, "kv_len": 4096}, 1.0),
        ({"op": "add", "numel": 2**28, "dtype": "bf16"}, 2.0),
        ({"op": "attention_decode", **{k: PREFILL[k] for k in ("heads", "kv_heads", "head_dim", "dtype")},
          "batch": 64, "kv_len": 8192}, 2.0),
    ],
    ids=["matmul", "prefill", "add", "decode"],
)  # fmt: skip
def test_half_the_bandwidth_moves_what_it_binds_and_nothing_else(spec, factor):
    cost = timed(H200, WARM).estimate(spec_kernel(spec, H200))
    assert cost.bound in (("matmul", "l2") if factor == 1.0 else ("hbm",))
    assert seconds(SLOWER, [spec], WARM)[0] / cost.seconds == pytest.approx(factor, rel=0.03)


def test_units_and_clock_scale_what_follows_from_them_and_say_so():
    changed = load_device(
        "nvidia-h200", {"compute.units": 66, "compute.clock": "3.66 GHz", "compute.vector.fp32": "1 TFLOP/s"}
    ).card
    base = H200.card
    assert changed.matmul == pytest.approx(base.matmul)  # half as many, twice as fast
    fewer = FEWER.card
    assert fewer.matmul == pytest.approx({fmt: rate / 2 for fmt, rate in base.matmul.items()})
    assert fewer.special == pytest.approx(base.special / 2)
    assert fewer.memory("l2").bandwidth == pytest.approx(base.memory("l2").bandwidth / 2)
    assert fewer.main == base.main
    assert changed.vector["fp32"] == 1e12
    figure = fewer.figures["compute.matmul.bf16"]
    assert (figure.mark, figure.note[:37]) == ("derived", "scaled by 66/132 with compute.units; ")
    assert load_device("nvidia-h200", {"compute.units": 132}).card.matmul == base.matmul


@pytest.mark.parametrize("value", ["many", 0, -1])
def test_units_that_are_no_count_are_refused(value):
    with pytest.raises(CardError, match=r"compute\.units"):
        load_device("nvidia-h200", {"compute.units": value})
