"""Systems of a study: cards, devices named in the study, system files; what changes of figures do to them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import hwsim
from hwsim.errors import InputError, StudyError
from hwsim.study import read_results, run_study
from hwsim.study.cases import expand
from hwsim.study.studyfile import read_study
from hwsim.study.targets import device_of
from hwsim.system import System

HEAD = "study: s\nmodels: [llama-3.2-1b]\n"
FAST = "{card: inst-csd, set: {memories.nand.bandwidth: 22.4 GB/s}}"
TWO = f"systems: [{{gpu: nvidia-a6000, storage: [inst-csd, {FAST}]}}]\n"


def targets(path: Path):
    return expand(read_study(path)).targets


def test_devices_of_a_study_are_a_system(write):
    (target,) = targets(write(HEAD + TWO))
    assert target.label == "nvidia-a6000+2x inst-csd"
    assert list(target.cards) == ["gpu", "storage0", "storage1"]
    assert target.card.name == "nvidia-a6000"
    system = target.device()
    assert isinstance(system, System)
    first, second = (system.memories[f"storage{number}.nand"].bandwidth for number in (0, 1))
    assert (first, second) == (11.2e9, 22.4e9)


def test_a_worker_makes_the_same_system_of_it(write):
    (target,) = targets(write(HEAD + TWO))
    made = device_of(pickle.loads(pickle.dumps(target.hardware)))
    assert isinstance(made, System)
    assert made.topology == target.device().topology


def test_a_figure_of_one_device_is_changed_by_its_name(write):
    (target,) = targets(write(HEAD + TWO))
    assert {"gpu.memories.gddr6.bandwidth", "storage1.memories.nand.bandwidth"} <= target.figures.keys()
    changed = target.device({"storage1.memories.nand.bandwidth": "1 GB/s"})
    assert changed.memories["storage1.nand"].bandwidth == 1e9
    assert changed.memories["storage0.nand"].bandwidth == 11.2e9


def test_a_study_of_a_system_gives_what_an_estimate_gives(write, tmp_path):
    text = HEAD + "systems: [nvidia-a6000, {gpu: nvidia-a6000, storage: [inst-csd], label: with a drive}]\n"
    done = run_study(write(text), tmp_path / "out", jobs=1)
    rows = done.to_frame().set_index("device")
    estimate = hwsim.estimate("llama-3.2-1b", {"gpu": "nvidia-a6000", "storage": ["inst-csd"]})
    assert rows.loc["with a drive", "latency_s"] == estimate.latency == rows.loc["nvidia-a6000", "latency_s"]
    assert rows.loc["with a drive", "energy_j"] == estimate.energy > rows.loc["nvidia-a6000", "energy_j"]
    stored = read_results(tmp_path / "out")
    assert stored.cards["with a drive"].name == "nvidia-a6000"
    assert list(stored.record["systems"]["with a drive"]["others"]) == ["storage0"]


def test_a_system_has_a_key_of_all_its_devices(write):
    plain, fast = (
        expand(read_study(write(HEAD + f"systems: [{{gpu: nvidia-a6000, storage: {storage}, label: x}}]\n")))
        for storage in ("[inst-csd]", "[{card: inst-csd, set: {memories.nand.bandwidth: 20 GB/s}}]")
    )
    assert plain.cases[0].key != fast.cases[0].key


def test_a_system_file_stands_beside_its_study(write):
    path = write(HEAD + "systems: [rig.yaml]\n")
    path.with_name("rig.yaml").write_text(
        "system: rig\ndevices: {gpu: nvidia-a6000, drive: inst-csd}\n"
        "sources: {made: {title: made for tests}}\n"
        "links: [{name: bus, between: [drive, gpu], card: drive.pcie, "
        "back: {value: 2 GB/s, mark: assumed, source: made}}]\n"
    )
    (target,) = targets(path)
    assert (target.label, list(target.cards)) == ("rig", ["gpu", "drive"])
    assert {"links.bus.back", "drive.links.pcie.bandwidth"} < set(target.figures)
    assert "links.bus.bandwidth" not in target.figures  # it is the drive's
    changed = target.device({"gpu.memories.gddr6.bandwidth": "1 TB/s", "links.bus.back": "3 GB/s"})
    assert changed.card.memory("gddr6").bandwidth == 1e12
    assert [hop.bandwidth for hop in changed.path("gpu", "drive")] == [3e9]
    with pytest.raises(InputError, match="no 'bos'"):
        target.device({"links.bos.back": "3 GB/s"})


@pytest.mark.parametrize(
    ("systems", "said"),
    [
        ("{gpu: nvidia-a600}", "3:17: systems[0].gpu: unknown device 'nvidia-a600'; did you mean 'nvidia-a6000'?"),
        ("{gpu: sn40l, storage: [{card: csd}]}", "systems[0].storage[0].card: unknown device 'csd'"),
        ("{label: x}", "a system names a card or its devices, such as"),
        ("{gpu: sn40l, storage: []}", "systems[0].storage: List should have at least 1 item"),
        ("{gpu: sn40l, storage: 3}", "systems[0].storage: got 3, expected a mapping"),
        ("{gpu: sn40l, strage: [inst-csd]}", "3:24: systems[0].strage: unknown key; did you mean 'storage'?"),
        ("{tape: inst-csd}", "systems[0].tape: unknown key; expected one of: accelerator, card, cpu, crossbar"),
        ("{card: sn40l, gpu: sn40l}", "systems[0].gpu: does not go with the other keys here"),
        ("{gpu: {card: sn40l, sett: {}}}", "systems[0].gpu.sett: unknown key; did you mean 'set'?"),
    ],
)
def test_a_mistake_stands_at_its_place(write, systems, said):
    with pytest.raises(StudyError) as caught:
        targets(write(HEAD + f"systems: [{systems}]\n"))
    assert said in str(caught.value)
