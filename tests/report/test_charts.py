"""What the charts say, against arithmetic on the frames that they were made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import hwsim
from hwsim.device import load_device
from hwsim.report.bound_share import bound_shares
from hwsim.report.breakdown import breakdown_figure, by_category
from hwsim.report.capacity import capacity_figure, crossing
from hwsim.report.frames import cases_of, count_text, detailed, kernels_of, number_text, representative, spread
from hwsim.report.growth import growth_figure
from hwsim.report.pareto import front, pareto_figure, undominated
from hwsim.report.roofline import roofline_figure
from hwsim.report.roofs import rate_of
from hwsim.report.scatter import scatter_figure
from hwsim.report.theme import notes_of
from hwsim.report.timeline import timeline_figure
from hwsim.units import format_seconds


def traces(figure: Any, level: str | None) -> list[Any]:
    return [trace for trace in figure.data if (trace.meta or {}).get("choice") == level]


class TestRoofline:
    def test_a_dot_is_flops_over_bytes_and_over_busy_seconds(self, make: Any) -> None:
        one = make(models=["llama"], devices=["nvidia-h200"], batches=[1], prompts=[2048])
        figure = roofline_figure(one.cases, one.kernels, one.cards)
        (trace,) = traces(figure, "main")
        # matmul: 1e14 FLOP/s and 1e12 B/s of busy time; norm: half of its time waits, so twice its rates.
        assert set(np.round(trace.x, 6)) == {100.0, 1.0}
        assert sorted(trace.y)[-1] == pytest.approx(1e14)
        assert sorted(trace.y)[0] == pytest.approx(2e12)
        (cache,) = traces(figure, "cache")
        assert sorted(cache.x)[-1] == pytest.approx(25.0)

    def test_masked_attention_is_drawn_no_higher_than_the_peak(self, make: Any) -> None:
        one = make(models=["llama"], devices=["nvidia-h200"], batches=[1], prompts=[2048])
        attention = one.kernels["kind"] == "attention"
        kernels = one.kernels.assign(matmul_flops=one.kernels["matmul_flops"].where(~attention, 1.0e15))
        figure = roofline_figure(one.cases, kernels, one.cards)
        (trace,) = traces(figure, "main")
        assert max(trace.y) == pytest.approx(one.cards["nvidia-h200"].matmul["bf16"])
        assert any("times these FLOPs are counted" in text for text in trace.hovertext)

    def test_a_roof_rises_with_the_bandwidth_to_the_ridge(self, make: Any) -> None:
        one = make(models=["llama"], devices=["nvidia-h200"], batches=[1], prompts=[2048])
        figure = roofline_figure(one.cases, one.kernels, one.cards)
        card = one.cards["nvidia-h200"]
        (slope,) = [trace for trace in figure.data if trace.name == "roof of hbm"]
        assert slope.y[0] / slope.x[0] == pytest.approx(card.main.bandwidth)
        assert slope.x[1] == pytest.approx(card.matmul["bf16"] / card.main.bandwidth)

    def test_cases_left_out_are_counted(self, make: Any) -> None:
        many = make(models=["llama"], devices=["nvidia-h200"], batches=range(1, 21), prompts=[2048])
        assert "4 of 20 cases drawn" in " ".join(notes_of(roofline_figure(many.cases, many.kernels, many.cards)))

    def test_a_device_without_a_card_is_named(self, stored: Any) -> None:
        cards = {"sn40l": stored.cards["sn40l"]}
        notes = notes_of(roofline_figure(stored.cases, stored.kernels, cards))
        assert "No card found for nvidia-h200: no panel." in notes

    def test_a_format_that_the_card_lacks_runs_in_the_next_wider_one(self) -> None:
        card = load_device("nvidia-a100-80gb").card
        assert "fp8" not in card.matmul
        assert rate_of(card, "fp8") == card.matmul["bf16"]
        assert rate_of(card, "fp64") == card.matmul["fp64"]


class TestCapacity:
    def test_a_line_crosses_between_its_points(self) -> None:
        assert crossing(pd.Series([10.0, 30.0], index=[100, 200]), 20.0) == 150.0

    def test_a_line_is_continued_beyond_its_points(self) -> None:
        assert crossing(pd.Series([10.0, 30.0], index=[100, 200]), 50.0) == 300.0

    def test_a_flat_line_never_crosses(self) -> None:
        assert crossing(pd.Series([10.0, 10.0], index=[100, 200]), 20.0) is None

    def test_one_point_has_no_direction(self) -> None:
        assert crossing(pd.Series([10.0], index=[100]), 20.0) is None

    def test_a_crossing_far_away_is_not_claimed(self) -> None:
        assert crossing(pd.Series([10.0, 10.001], index=[100, 200]), 1000.0) is None

    def test_weights_and_state_fill_the_memory_at_the_computed_context(self, make: Any) -> None:
        one = make(models=["llama"], devices=["nvidia-h200"], batches=[8])
        figure = capacity_figure(one.cases, one.cards)
        (trace,) = [trace for trace in figure.data if trace.name == "capacity crossed"]
        # 16 GB of weights, 1 MB of activations, 8 MB per token of context in 141 GB
        assert trace.x[0] == pytest.approx((141e9 - 16e9 - 1e6) / 8e6)

    def test_the_swept_batch_is_the_axis_where_it_has_more_values(self, make: Any) -> None:
        one = make(batches=[1, 2, 4, 8], prompts=[2048])
        assert capacity_figure(one.cases, one.cards).layout.xaxis.title.text == "Batch (sequences)"


class TestShares:
    def test_shares_of_the_time_and_the_wait_add_up(self, stored: Any) -> None:
        table = bound_shares(detailed(stored.cases, stored.kernels), ["case"])
        assert np.allclose(table.sum(axis=1), 1.0)
        assert table["matmul"].iloc[0] == pytest.approx(0.5)
        assert table["host wait"].iloc[0] == pytest.approx(0.075)

    def test_kinds_and_the_wait_add_up_to_the_latency(self, stored: Any) -> None:
        table = by_category(detailed(stored.cases, stored.kernels))
        assert table.sum(axis=1).sum() == pytest.approx(stored.cases["latency_s"].sum())

    def test_a_button_shows_seconds(self, stored: Any) -> None:
        menu = breakdown_figure(stored.cases, stored.kernels).layout.updatemenus[0]
        assert [button.label for button in menu.buttons] == ["share of the time", "seconds"]
        assert menu.buttons[1].args[1]["xaxis"]["title"]["text"].endswith("(s)")


@pytest.fixture(scope="module")
def streamed() -> Any:
    options = {"weights": [0.0, 1.0, 0.0]}
    return hwsim.estimate("llama-3.2-1b", "nvidia-a6000", mapper="offload", mapper_options=options)


class TestTransfers:
    """Steps that overlap, of a model whose weights stream from the host."""

    def test_time_adds_up_and_is_the_transfers_while_no_kernel_runs(self, streamed: Any) -> None:
        frame = detailed(cases_of([streamed]), kernels_of([streamed]))
        table = by_category(frame)
        assert table.sum(axis=1).iloc[0] == pytest.approx(streamed.latency)
        assert table["transfer"].iloc[0] > 0.5 * streamed.latency
        assert "unmodelled" not in table

    def test_the_timeline_is_as_long_as_the_run(self, streamed: Any) -> None:
        figure = timeline_figure(cases_of([streamed]), kernels_of([streamed]))
        assert format_seconds(streamed.latency) in figure.layout.annotations[0].text
        assert "transfer" in {trace.name for trace in figure.data}


class TestTimeline:
    def test_repeated_kernels_are_drawn_once_with_their_count(self, make: Any) -> None:
        one = make(models=["llama"], devices=["nvidia-h200"], batches=[1], prompts=[2048])
        figure = timeline_figure(one.cases, one.kernels)
        assert [note.text for note in figure.layout.annotations if note.name == "count"] == ["×32"]
        drawn = sum(sum(trace.x) for trace in figure.data if trace.type == "bar")
        # a millisecond in all: a tenth in the copy, the rest in 32 alike layers
        assert drawn == pytest.approx(1e-3 * (0.1 + 0.9 / 32))
        assert "1 ms" in figure.layout.annotations[0].text

    def test_every_model_has_a_button(self, stored: Any) -> None:
        menu = timeline_figure(stored.cases, stored.kernels).layout.updatemenus[0]
        assert [button.label for button in menu.buttons] == ["llama", "mamba"]


class TestPareto:
    def test_only_rows_that_nothing_beats_are_kept(self) -> None:
        goals = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0], [1.0, 3.0]])
        assert list(undominated(goals)) == [True, True, False, True]

    def test_a_front_descends(self) -> None:
        assert front([3.0, 1.0, 2.0], [1.0, 3.0, 4.0], flip=False) == ([1.0, 3.0], [3.0, 1.0])

    def test_a_front_of_throughput_starts_at_the_fastest(self) -> None:
        assert front([10.0, 20.0, 5.0], [1.0, 3.0, 2.0], flip=True) == ([20.0, 10.0], [3.0, 1.0])

    def test_without_tokens_there_are_two_panels(self, make: Any) -> None:
        images = make()
        figure = pareto_figure(images.cases.assign(tokens_per_s=None))
        assert "xaxis3" not in figure.to_plotly_json()["layout"]


class TestGrowth:
    def test_devices_that_do_not_calculate_are_named_not_drawn(self) -> None:
        cards = [load_device(name).card for name in ("nvidia-h200", "nvidia-a100-80gb", "samsung-980-pro")]
        figure = growth_figure(cards)
        assert list(figure.data[0].x) == [2020, 2024]
        assert "samsung-980-pro" in notes_of(figure)[-1]


class TestScatter:
    def test_errors_are_over_all_usable_rows(self) -> None:
        rows = pd.DataFrame(
            {"predicted": [1.0, 1.5, 0.0], "measured": [1.0] * 3, "family": ["a"] * 3, "label": list("xyz")}
        )
        notes = notes_of(scatter_figure(rows))
        assert "mean absolute error 25.0%" in notes[0]
        assert "worst off by a factor of 1.50" in notes[0]
        assert "1 rows without" in notes[1]


class TestSamples:
    def test_a_sample_is_even_and_keeps_the_ends(self, make: Any) -> None:
        many = make(models=["llama"], devices=["sn40l"], batches=range(1, 12), prompts=[2048]).cases
        assert list(spread(many, 3)["batch"]) == [1, 6, 11]

    def test_the_representative_case_is_the_largest_that_all_share(self, make: Any) -> None:
        given = make(failing=(6,))  # llama on the H200, batch 8, prompt 8k: the others' largest
        chosen = representative(given.cases[given.cases["status"] == "ok"])
        assert len(chosen) == 4
        assert set(zip(chosen["batch"], chosen["prompt"], strict=True)) == {(8, 4096)}


def test_counts_and_numbers_are_written_as_people_do() -> None:
    assert [count_text(value) for value in (128, 2048, 3 * 2**20, 5000)] == ["128", "2k", "3M", "5\u2009000"]
    assert [number_text(value) for value in (0.123456, 41990.4)] == ["0.1235", "41,990"]
