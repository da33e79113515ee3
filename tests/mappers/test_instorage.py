"""The mapper instorage: bytes per layer against the published table, times against bandwidths, laws."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.capture import find_model
from hwsim.engine import run
from hwsim.errors import DoesNotFitError, InputError
from hwsim.graph import Kind
from hwsim.mapper import Kernel, Policy, Transfer
from hwsim.mappers.fused import Fused
from hwsim.mappers.instorage import InStorage, InStorageOptions
from hwsim.precision import in_precision
from hwsim.simulation import load_mapper
from hwsim.systemfile import load_system
from hwsim.testing import check_mapper, sample_graphs

LAYERS, WIDTH, BATCH = 40, 5120, 64  # of OPT-13B, and of the paper's table
INSIDE, READ = 11.2e9, 7e9  # B/s of the drive's channels, of a 980 Pro


def system(*drives):
    return load_system({"gpu": "nvidia-a6000", "storage": list(drives)})


@pytest.fixture(scope="module")
def one():
    return system("inst-csd")


def graph(phase="decode", prompt=1535, batch=BATCH, model="opt-13b"):
    return in_precision(find_model(model).capture(phase), "fp16").bind(batch=batch, prompt=prompt)


def plan(device, phase="decode", prompt=1535, batch=BATCH, **options):
    return InStorage(InStorageOptions(**options)).schedule(graph(phase, prompt, batch), device, Policy())


def seconds(device, **options):
    return run(plan(device, **options), device, spans=False).seconds


def cached(tokens, batch=BATCH):
    """Bytes of keys and values of all layers."""
    return LAYERS * batch * tokens * 2 * WIDTH * 2


def total(schedule, steps):
    counts = dict(zip(map(id, schedule.steps), schedule.counts, strict=True))
    return sum(counts[id(step)] * step.nbytes for step in steps)


def test_a_mapper_like_others(one):
    cached_steps = (graph(batch=2, model="llama-3.2-1b"), graph("prefill", 64, 2, "llama-3.2-1b"))
    for options in (InStorageOptions(), InStorageOptions(attention="gpu")):
        assert check_mapper(InStorage(options), one, (*sample_graphs(), *cached_steps)) == []


def test_a_prompt_writes_a_third_of_a_gigabyte_a_second_of_the_papers_table(one):
    """Table III of InstInfer: 64 sequences of 1,024 tokens write 1.34 GB per layer, once."""
    schedule = plan(one, "prefill", 1024)
    written = [step for step in schedule.transfers if step.target == "storage0.nand"]
    assert total(schedule, written) / LAYERS == pytest.approx(1.34e9, rel=0.02)
    assert all(step.background for step in written)
    twice = plan(one, "prefill", 1024, key_copies=2)
    assert total(twice, [step for step in twice.transfers if step.background]) / LAYERS == pytest.approx(
        2.01e9, rel=0.01
    )


def test_a_step_writes_one_token_and_reads_all(one):
    schedule = plan(one)
    written = [step for step in schedule.transfers if step.background]
    assert total(schedule, written) == pytest.approx(cached(1))
    there = [step for step in schedule.kernels if step.device == "storage0"]
    read = sum(flow.nbytes for kernel in there for flow in kernel.flows if flow.memory == "nand")
    assert LAYERS * read == pytest.approx(cached(1536))


def test_queries_go_out_and_results_come_back(one):
    """Traffic over the switch falls by the number of tokens: queries and results instead of keys and values."""
    schedule = plan(one)
    crossing = [step for step in schedule.transfers if not step.background]
    assert total(schedule, crossing) == pytest.approx(LAYERS * BATCH * 2 * WIDTH * 2, rel=0.05)
    assert cached(1536) / total(schedule, crossing) == pytest.approx(1536, rel=0.05)


def test_attention_there_is_bound_by_the_channels(one):
    assert seconds(one) == pytest.approx(cached(1536) / INSIDE, rel=0.02)


def test_reading_for_the_gpu_is_bound_by_drive_or_link():
    ssd = system("samsung-980-pro")
    assert seconds(ssd, attention="gpu") == pytest.approx(cached(1536) / READ, rel=0.01)
    host = seconds(ssd, attention="gpu", at=("host",), batch=16)
    assert host == pytest.approx(cached(1536, 16) / 31.5e9, rel=0.02)


def test_without_reading_ahead_the_rest_of_the_layer_adds_up():
    """One buffer: the GPU computes while nothing is read."""
    host = system("samsung-980-pro")
    times = [seconds(host, attention="gpu", at=("host",), batch=16, buffers=buffers) for buffers in (1, 2, 3)]
    assert times[0] > times[1] * 1.03
    assert times[1] == pytest.approx(times[2], rel=0.01)


def test_choosing_reads_some_components_and_the_pages_of_the_chosen():
    dense, sparse = InStorageOptions(), InStorageOptions(chosen=0.125)
    assert dense.read_share == 1
    assert sparse.read_share == pytest.approx(0.125 / 2 + 1 - (7 / 8) ** 16)
    assert InStorageOptions(chosen=0.125, page=1).read_share == pytest.approx(0.125 / 2 + 0.125)
    assert InStorageOptions(retries=0.05).read_share == pytest.approx(1.05)


def test_work_is_shared_and_conserved():
    two = system("inst-csd", "inst-csd")
    below = Fused().schedule(graph(), two, Policy(spill=True))
    wanted = sum(count * kernel.work.flops for kernel, count in zip(below.kernels, below.counts, strict=True))
    schedule = plan(two)
    pairs = zip(schedule.steps, schedule.counts, strict=True)
    assert sum(count * step.work.flops for step, count in pairs if isinstance(step, Kernel)) == pytest.approx(wanted)
    there = [kernel for kernel in schedule.kernels if kernel.kind is Kind.ATTENTION]
    assert sorted(kernel.device for kernel in there) == ["storage0", "storage1"]
    assert schedule.peak["storage0.nand"] == schedule.peak["storage1.nand"] == pytest.approx(cached(1536) / 2)


def test_queries_wait_for_what_the_gpu_computes_and_not_for_what_is_written_behind():
    steps = plan(system("inst-csd", "inst-csd")).steps
    queries = [step for step in steps if isinstance(step, Transfer) and step.name == "queries"]
    assert {query.target.partition(".")[0] for query in queries} == {"storage0", "storage1"}
    for query in queries:
        awaited = [steps[wait.step] for wait in query.waits]
        assert any(isinstance(step, Kernel) and not step.device for step in awaited)
        assert not any(isinstance(step, Transfer) and step.background for step in awaited)


def test_what_cannot_be_is_said(one):
    with pytest.raises(InputError, match="no drive for the cache"):
        InStorage().schedule(graph(), hwsim.load_device("nvidia-a6000"), Policy())
    with pytest.raises(DoesNotFitError, match="nand"):
        plan(
            load_system(
                {"gpu": "nvidia-a6000", "storage": [{"card": "inst-csd", "set": {"memories.nand.capacity": "1 GB"}}]}
            )
        )
    main = one.card.main
    assert max(26e9, cached(1536, 20)) < main.capacity < 26e9 + cached(1536, 20)
    with pytest.raises(DoesNotFitError, match=f"keeps there does not fit in {main.name}"):
        plan(one, batch=20, attention="gpu", at=(main.name,))  # weights and cache, each of which fits alone
    with pytest.raises(InputError, match="more than 0"):
        load_mapper("instorage", {"chosen": 0})


@settings(max_examples=5, deadline=None)
@given(drives=st.integers(1, 6), batch=st.sampled_from([1, 16, 64]), attention=st.sampled_from(["drive", "gpu"]))
def test_another_drive_never_slows(drives, batch, attention):
    few, many = system(*["inst-csd"] * drives), system(*["inst-csd"] * (drives + 1))
    slow, fast = (seconds(one, batch=batch, attention=attention) for one in (few, many))
    assert fast <= slow * (1 + 1e-9)


@settings(max_examples=8, deadline=None)
@given(chosen=st.floats(0.01, 1), prompt=st.sampled_from([255, 1535, 4095]))
def test_in_storage_is_never_below_what_its_channels_can_do(one, chosen, prompt):
    options = {"prompt": prompt, "chosen": chosen, "batch": 8}
    share = InStorageOptions(chosen=chosen).read_share
    assert seconds(one, **options) >= share * cached(prompt + 1, 8) / INSIDE * (1 - 1e-9)
