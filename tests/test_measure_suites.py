"""The suites beyond single kernels: recurrences, collectives, whole models; their tuning and their energy counters."""

import json
import multiprocessing
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hwsim.kernels import (  # noqa: E402
    energy,
    families,
    fast_recurrence,
    onnx_session,
    suites_collective,
    suites_model,
    suites_sequence,
    timers,
    training,
    tuning,
)
from hwsim.kernels.recurrence import RULES, recurrence  # noqa: E402
from hwsim.workload import Workload  # noqa: E402
from hwsim.zoo import find_preset  # noqa: E402

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY_LLAMA = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "hidden": 48, "vocab": 64}
TINY_VIT = {"layers": 1, "width": 32, "heads": 2, "hidden": 48}


def drawn(family: families.Family, count: int) -> list[dict[str, Any]]:
    return list(islice(family.specs(families.Draw("7", CUDA)), count))


@pytest.mark.parametrize("rule", suites_sequence.SHAPES)
def test_operands_of_a_recurrence_are_those_of_the_reference_op(rule: str) -> None:
    q, k, v, *gates = suites_sequence.operands(rule, CPU, 2, 5, 3, 8, 4, "fp32")
    assert len(gates) == len(RULES[rule]) == len(fast_recurrence.GATES[rule])
    out, last = recurrence(q, k, v, gates, None, rule, 0)
    assert out.shape == (2, 5, 3, 4)
    assert last.shape == (2, 3, 8, 4)
    assert torch.isfinite(out).all()
    elements = sum(gate.numel() for gate in gates)
    assert elements == 2 * 5 * 3 * suites_sequence.gate_elements(rule, 8, 4)


def test_recurrences_are_drawn_within_the_operand_limit_and_from_the_tuned_shapes() -> None:
    for op, family in suites_sequence.sequence_families(CUDA).items():
        form, _, rule = op.partition("_")
        for fields in drawn(family, 200):
            assert (fields["heads"], fields["d_k"], fields["d_v"]) in suites_sequence.SHAPES[rule]
            assert (fields["tokens"] == 1) == (form == "recurrent") == (fields["pass_"] == "decode")
            values = fields["batch"] * fields["tokens"] * fields["heads"] * (2 * fields["d_k"] + 2 * fields["d_v"])
            assert values * 2 <= 1.1 * suites_sequence.OPERAND_BYTES
            assert form == "recurrent" or 64 <= fields["tokens"] <= suites_sequence.MOST_TOKENS
        tuned = {(spec["heads"], spec["d_k"], spec["d_v"]) for specs in family.tuning for spec in specs}
        assert tuned == (set(suites_sequence.SHAPES[rule]) if form == "chunk" else set())


def test_a_missing_package_makes_the_recurrences_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites_sequence, "find_spec", lambda name: None)
    reasons = {family.unavailable for family in suites_sequence.sequence_families(CUDA).values()}
    assert reasons == {"package fla-core is not installed"}


def test_the_backward_pass_gives_a_gradient_for_every_operand(monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*operands: Any, output_final_state: bool) -> tuple[Any, Any]:
        out, last = recurrence(*operands[:3], operands[3:], None, "kda", 0)
        return out, last

    monkeypatch.setattr(suites_sequence, "load_kernel", lambda form, rule: kernel)
    call = suites_sequence.build_chunk("kda", CPU, 1, 6, 2, 8, 4, "fp32", "fwd+bwd")
    gradients: Any = call()
    assert [tuple(gradient.shape[3:]) for gradient in gradients] == [(8,), (8,), (4,), (8,), ()]


def test_fast_recurrence_repeats_shared_heads_and_keeps_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def kernel(q: Any, k: Any, v: Any, *gates: Any, **options: Any) -> tuple[Any, Any]:
        seen.update(q=q, options=options)
        return v, options["initial_state"]

    monkeypatch.setattr(fast_recurrence, "load_kernel", lambda form, rule: seen.update(form=form) or kernel)
    q, v = torch.randn(1, 3, 1, 4), torch.randn(1, 3, 2, 4)
    fast_recurrence.fast_recurrence(q, q, v, [torch.randn(1, 3, 2)], None, "ssd", 64)
    assert seen["form"] == "chunk"
    torch.testing.assert_close(seen["q"], torch.cat([q, q], dim=2))
    assert seen["options"]["scale"] == 1.0
    fast_recurrence.fast_recurrence(v[:, :1], v[:, :1], v[:, :1], [v[:, :1]], None, "gla", 64)
    assert seen["form"] == "recurrent"
    assert seen["options"]["scale"] is None


def test_collectives_move_what_the_interchange_says(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, list[int]] = {}
    for function in ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all_single"):
        monkeypatch.setattr(
            suites_collective.dist,
            function,
            lambda *tensors, name=function: calls.update({name: [t.nbytes for t in tensors]}),
        )
    for op in suites_collective.OPS:
        suites_collective.collective(op, CPU, bytes=96, ranks=2)()
    assert calls == {
        "all_reduce": [96],
        "all_gather_into_tensor": [192, 96],
        "reduce_scatter_tensor": [48, 96],
        "all_to_all_single": [96, 96],
    }


def test_bytes_of_collectives_divide_among_the_ranks() -> None:
    specs = list(islice(suites_collective.collective_specs(2, families.Draw("1", CUDA)), 300))
    assert all(fields["ranks"] == 2 and int(fields["bytes"]) % 32 == 0 for fields in specs)
    assert min(int(fields["bytes"]) for fields in specs) < 1024
    assert max(int(fields["bytes"]) for fields in specs) > 2**29


def test_the_slowest_rank_counts_and_a_rank_that_fails_ends_the_team() -> None:
    pipes = [multiprocessing.Pipe() for _ in range(2)]
    team = suites_collective.Team.__new__(suites_collective.Team)
    team._pipes, team._workers = [ours for ours, _ in pipes], []
    for (_, theirs), seconds in zip(pipes, ([1.0, 4.0], [2.0, 3.0]), strict=True):
        theirs.send(families.Timings(cold=seconds, warm=seconds[:1]))
    assert team.time("all_reduce", {"bytes": 32, "ranks": 2}) == families.Timings(cold=[2.0, 4.0], warm=[2.0])
    assert [theirs.recv() for _, theirs in pipes] == [("all_reduce", {"bytes": 32, "ranks": 2})] * 2
    pipes[0][1].send("rank 0: RuntimeError: no")
    with pytest.raises(RuntimeError, match="rank 0: RuntimeError: no"):
        team.time("all_reduce", {"bytes": 32, "ranks": 2})


@pytest.mark.parametrize("name", suites_model.PRESETS)
def test_presets_are_the_zoos(name: str) -> None:
    preset = find_preset(name)
    path, config = suites_model.PRESETS[name]
    assert preset.module.removeprefix("hwsim.models.") + f".{preset.class_name}" == path
    assert preset.config == json.loads(json.dumps(config))


def test_model_rows_can_be_asked_of_the_zoo_and_compiled_ones_come_last() -> None:
    for device in (CPU, CUDA):
        specs: list[dict[str, Any]] = list(suites_model.model_specs(device))
        assert len({json.dumps(spec, sort_keys=True) for spec in specs}) == len(specs)
        for spec in specs:
            assert spec["phase"] in find_preset(spec["model"]).phases
            Workload(spec["phase"], spec["batch"], spec["prompt"], dtype=spec["dtype"])
        modes = [spec["mode"] for spec in specs]
        compiled = modes.count("compile")
        assert modes[len(modes) - compiled :] == ["compile"] * compiled
    assert {spec["mode"] for spec in suites_model.model_specs(CPU)} == {"eager", "onnxruntime"}


def test_a_call_runs_the_phase_in_the_dtype_asked_for() -> None:
    with torch.inference_mode():
        decode: Any = suites_model.build_model(CPU, "llama-3.2-1b", "decode", 3, 5, "graph", "bf16", TINY_LLAMA)
        assert decode.keywords["past"] == 5
        assert decode.keywords["state"][0][0].shape == (3, 2, 6, 8)
        assert decode.keywords["state"][0][0].std() > 0.5  # random, not zeros
        logits = decode()
    assert logits.shape == (3, 1, 64)
    assert logits.dtype == torch.bfloat16


def test_images_of_convolutional_networks_are_channels_last() -> None:
    for model, overrides, expected in (("resnet-50", {"image_size": 32}, True), ("vit-b-16", TINY_VIT, False)):
        call: Any = suites_model.build_model(CPU, model, "forward", 2, 1, "eager", "fp32", overrides)
        images = call.keywords["images"]
        assert images.is_contiguous(memory_format=torch.channels_last) == expected
        assert not call.func.training


def test_a_training_step_is_adamw_on_fp32_masters() -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(4, 3, bias=False, dtype=torch.bfloat16)
    x, before = torch.randn(5, 4, dtype=torch.bfloat16), network.weight.detach().clone()
    step = training.TrainStep(network, lambda: network(x))
    expected = before.float().requires_grad_()
    expected.grad = torch.autograd.grad(network(x), network.weight, step.slope)[0].float()
    torch.optim.AdamW([expected], lr=1e-5).step()
    step()
    torch.testing.assert_close(step.masters[0], expected.detach())
    torch.testing.assert_close(network.weight.detach(), expected.detach().bfloat16())
    assert network.weight.grad is None


@pytest.mark.slow
def test_onnxruntime_gives_what_torch_gives() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    with torch.inference_mode():
        eager: Any = suites_model.build_model(CPU, "vit-b-16", "forward", 2, 1, "eager", "fp32", TINY_VIT)
        session: Any = onnx_session.onnx_call(eager.func, eager.keywords)
        torch.testing.assert_close(torch.from_numpy(session()[0]), eager(), rtol=1e-3, atol=1e-4)


def test_tuning_keeps_the_configurations_nearest_to_the_middle() -> None:
    configs = [SimpleNamespace(num_warps=warps, num_stages=stages) for warps in (1, 2, 4, 8) for stages in (2, 3, 4, 5)]
    kept = tuning.central(configs)
    assert len(kept) == tuning.MOST_CONFIGS
    assert kept == [config for config in configs if config in kept]
    assert all(config.num_warps > 1 or config.num_stages == 3 for config in kept)
    assert SimpleNamespace(num_warps=4, num_stages=3) in kept


def test_tuning_ends_at_its_deadline() -> None:
    class Worker:
        def __init__(self, seconds: float) -> None:
            self.seconds, self.begin, self.terminated = seconds, None, False

        def start(self) -> None:
            self.begin = time.monotonic()

        def is_alive(self) -> bool:
            return self.begin is not None and time.monotonic() < self.begin + self.seconds

        def terminate(self) -> None:
            self.terminated = True

        def join(self) -> None:
            assert self.terminated

    workers = [Worker(0.0), Worker(60.0), Worker(60.0)]
    tuning._run_all(workers, 2, time.monotonic() + 0.5)
    assert [worker.terminated for worker in workers] == [False, True, True]


def test_without_tuned_families_nothing_is_started() -> None:
    tuning.tune({"op": families.Family(lambda draw: iter(()))}, CPU, time.monotonic())


def test_rapl_adds_up_the_packages_and_follows_a_wrap(tmp_path: Path) -> None:
    def count(zone: str, file: str, value: int) -> None:
        (tmp_path / zone).mkdir(exist_ok=True)
        (tmp_path / zone / file).write_text(f"{value}\n")

    for zone, start in (("intel-rapl:0", 900), ("intel-rapl:1", 100), ("intel-rapl:0:0", 5)):
        count(zone, "max_energy_range_uj", 999)
        count(zone, "energy_uj", start)
    counter = energy.RaplCounter(tmp_path)
    assert counter.joules() == 0
    count("intel-rapl:0", "energy_uj", 50)  # 900 .. 999, 0 .. 50: 150 more
    count("intel-rapl:1", "energy_uj", 350)
    count("intel-rapl:0:0", "energy_uj", 800)  # a part of package 0, counted there
    assert counter.joules() == pytest.approx((150 + 250) * 1e-6)
    with pytest.raises(OSError, match="no RAPL package"):
        energy.RaplCounter(tmp_path / "none")


def test_joules_on_a_host_are_the_counters_advance_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "last_level_cache_bytes", lambda: 1 << 12)
    monkeypatch.setattr(timers, "ENERGY_WINDOW_S", 0.06)
    runs: list[int] = []
    loop = timers.Loop(lambda: runs.append(1), calls=4, seconds=0.01)
    assert timers.HostTimer().joules(loop, lambda: 3.0 * len(runs)) == pytest.approx(3.0 / 4)
    assert len(runs) == 6
    assert timers.HostTimer().joules(loop, lambda: 1.0) is None
