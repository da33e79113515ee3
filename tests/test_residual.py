"""A learned correction against truths that are known: a smooth distortion, none, and noise of whole shapes."""

from __future__ import annotations

from collections.abc import Iterator
from math import log, sin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import residual_learning
from hwsim.cost import Cost
from hwsim.device import Device, Replay, estimate_all, load_device, timed
from hwsim.kernel_spec import spec_kernel
from hwsim.measurements import Measurement, Measurements, split_rows
from hwsim.residual import Residual
from hwsim.residual_features import Features, features, shape_key
from hwsim.residual_learning import chosen, learn


@pytest.fixture(scope="module", autouse=True)
def few_rounds() -> Iterator[None]:
    """A quarter of the rounds of boosting, which are enough for hundreds of rows and take a quarter of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residual_learning, "ROUNDS", residual_learning.ROUNDS // 4)
        yield


@pytest.fixture(scope="module")
def device() -> Device:
    return load_device("nvidia-h200", calibration=None)


def specs(count: int, dtype: str = "bf16", seed: int = 0) -> list[dict[str, object]]:
    """Matrix products of log-uniform sizes between 64 and 4,096."""
    sizes = np.exp(np.random.default_rng(seed).uniform(log(64), log(4096), (count, 3))).astype(int).tolist()
    return [{"op": "matmul", "m": m, "n": n, "k": k, "batch": 1, "dtype": dtype} for m, n, k in sizes]


def made_up(device: Device, rows: list[dict[str, object]], factors: np.ndarray) -> Measurements:
    """Measurements that are the model's seconds times ``factors``."""
    kernels = [spec_kernel(spec, device) for spec in rows]
    seconds = [cost.seconds for cost in estimate_all(timed(device, Replay()), kernels)]
    measured = [
        Measurement(spec, None, t * f, None) for spec, t, f in zip(rows, seconds, factors.tolist(), strict=True)
    ]
    return Measurements("made up", (), tuple(measured))


def ratios(residual: Residual, device: Device, rows: list[dict[str, object]]) -> np.ndarray:
    kernels = [spec_kernel(spec, device) for spec in rows]
    return residual.of("matmul", True, kernels, estimate_all(timed(device, Replay()), kernels))


def distortion(rows: list[dict[str, object]]) -> np.ndarray:
    """Smooth in the logarithms of sizes: within a factor of 1.42 of 1."""
    return np.exp([0.2 * sin(log(spec["m"])) + 0.15 * sin(2 * log(spec["k"])) for spec in rows])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def learned(device: Device) -> Residual:
    rows = specs(300)
    return Residual.train(device, [made_up(device, rows, distortion(rows))])


def test_a_smooth_distortion_is_found_at_shapes_that_were_not_seen(device: Device, learned: Residual) -> None:
    rows = [spec for spec in specs(300, seed=1) if min(spec["m"], spec["n"], spec["k"]) >= 80]  # type: ignore[type-var]
    truth, found = distortion(rows), ratios(learned, device, rows)
    assert np.mean(found != 1.0) > 0.9
    assert np.mean(np.abs(found / truth - 1)) < 0.35 * np.mean(np.abs(1 / truth - 1))


def test_ratios_stay_within_those_that_were_seen(device: Device, learned: Residual) -> None:
    seen, found = distortion(specs(300)), ratios(learned, device, specs(300, seed=2))
    assert seen.min() <= found.min() < found.max() <= seen.max()


def test_sizes_beyond_the_rows_and_formats_that_they_lack_keep_their_time(device: Device, learned: Residual) -> None:
    inside = {"op": "matmul", "m": 500, "n": 600, "k": 700, "batch": 1, "dtype": "bf16"}
    others = [inside | {"m": 9000}, inside | {"k": 16}, inside | {"batch": 2}, inside | {"dtype": "fp16"}]
    found = ratios(learned, device, [inside, *others])
    assert found[0] != 1.0
    assert found[1:].tolist() == [1.0] * len(others)


@given(sizes=st.lists(st.tuples(*[st.integers(1, 20_000)] * 3), min_size=1, max_size=50))
@settings(max_examples=15, deadline=None)
def test_no_product_is_corrected_by_more_than_was_seen_or_beyond_the_sizes_seen(
    device: Device, learned: Residual, sizes: list[tuple[int, int, int]]
) -> None:
    rows = specs(300)
    seen = np.array([[spec[name] for name in "mnk"] for spec in rows])
    asked = [dict(zip("mnk", size, strict=True)) | {"op": "matmul", "batch": 1, "dtype": "bf16"} for size in sizes]
    truth, found = distortion(rows), ratios(learned, device, asked)
    assert np.all((min(1.0, truth.min()) <= found) & (found <= max(1.0, truth.max())))
    beyond = np.any((np.array(sizes) < seen.min(axis=0)) | (np.array(sizes) > seen.max(axis=0)), axis=1)
    assert np.all(found[beyond] == 1.0)


def test_the_same_rows_teach_the_same(device: Device, learned: Residual) -> None:
    rows = specs(300)
    again = Residual.train(device, [made_up(device, rows, distortion(rows))])
    asked = specs(50, seed=3)
    assert ratios(again, device, asked).tolist() == ratios(learned, device, asked).tolist()


def test_noise_teaches_nothing(device: Device) -> None:
    rows = specs(100)
    noise = np.exp(np.random.default_rng(4).normal(0, 0.1, len(rows)))
    assert not Residual.train(device, [made_up(device, rows, noise)]).learned


def test_what_is_true_of_one_shape_alone_is_not_learned_from_its_other_rows() -> None:
    """Each shape has a ratio of its own in all of its five rows: rows of other shapes tell nothing of it. If rows of a
    shape were both learned from and held out, it would look as if they did."""
    random = np.random.default_rng(5)
    table, logs = np.repeat(random.normal(size=(50, 4)), 5, axis=0), np.repeat(random.normal(0, 0.2, 50), 5)
    shapes = np.repeat(np.arange(50), 5).tolist()
    assert learn(table, logs, shapes) is None
    assert learn(table, logs, range(len(logs))) is not None


def test_formats_of_a_shape_and_what_runs_beside_it_are_one_shape(device: Device) -> None:
    one, other = (spec_kernel(specs(1, dtype)[0], device) for dtype in ("bf16", "fp8"))
    assert shape_key(one) == shape_key(other) != shape_key(spec_kernel(specs(2)[1], device))


def test_the_split_keeps_shapes_apart(device: Device) -> None:
    rows = made_up(device, specs(200) + specs(200, "fp8"), np.ones(400)).rows
    keys = [{shape_key(spec_kernel(row.spec, device)) for row in part} for part in split_rows(rows, 2)]
    assert not keys[0] & keys[1]


@pytest.mark.parametrize(
    ("told", "weights"),
    [
        ((1.0, -1.0, -1.0), (1.0, 0.0, 0.0)),
        ((2.0, -1.0, -1.0), (0.5, 0.0, 0.0)),
        ((-1.0, 4.0, -1.0), (0.0, 0.25, 0.0)),
        ((1.5, -1.0, 0.5), (0.5, 0.0, 0.5)),
        ((-1.0, -1.0, -1.0), None),
    ],
)
def test_the_blend_is_the_one_with_the_least_error_held_out(
    told: tuple[float, ...], weights: tuple[float, ...] | None
) -> None:
    """Learners that tell so many times the truth."""
    logs = np.random.default_rng(6).normal(0, 0.3, 200)
    assert chosen(np.outer(logs, told), logs) == weights


def told(device: Device, spec: dict[str, object], units: float) -> Features:
    return features([spec_kernel(spec, device)], [Cost(1e-5)], units)


def test_features_tell_alignment_tiles_and_waves(device: Device) -> None:
    """384 = 3 x 128: 128 divides it, whole tiles of 256 are a third larger; 3 x 6 tiles of 128 x 128 on 12 units are
    one and a half waves, which take two."""
    hints = told(device, {"op": "matmul", "m": 384, "n": 768, "k": 1000, "batch": 1, "dtype": "bf16"}, 12).hints
    assert hints["power of two in m"] == 7
    assert hints["power of two in k"] == 3
    assert hints["m in tiles of 128"] == 0
    assert hints["m in tiles of 256"] == pytest.approx(log(512 / 384))
    assert hints["waves, tiles of 128 x 128"] == pytest.approx(log(1.5))
    assert hints["whole waves, tiles of 128 x 128"] == pytest.approx(log(2 / 1.5))


def test_features_tell_layouts_and_taps(device: Device) -> None:
    spec = {"op": "conv2d", "n": 8, "c": 64, "h": 56, "w": 56, "o": 64, "k": 3, "stride": 1, "padding": 1, "groups": 1}
    for layout in ("nhwc", "nchw"):
        found = told(device, spec | {"dtype": "bf16", "layout": layout}, 132)
        assert found.words[f"layout {layout}"] == 1
        assert found.sizes["size kernel 0"] == found.sizes["size kernel 1"] == log(1 + 3)


def test_features_of_a_kernel_are_the_same_among_others(device: Device) -> None:
    """Columns hold zeros where a kernel of another kind has none."""
    mixed = [
        specs(1)[0],
        {"op": "attention_decode", "batch": 4, "heads": 32, "kv_heads": 8, "kv_len": 1000, "head_dim": 128},
        {"op": "add", "numel": 1000},
    ]
    kernels = [spec_kernel({"dtype": "bf16"} | spec, device) for spec in mixed]
    costs = estimate_all(device, kernels)
    among = features(kernels, costs, 132).columns
    for row, (kernel, cost) in enumerate(zip(kernels, costs, strict=True)):
        alone = {name: column[0] for name, column in features([kernel], [cost], 132).columns.items()}
        assert {name: column[row] for name, column in among.items() if column[row] or name in alone} == alone
