"""Systems: where memories are, which way bytes go, what a transfer takes; files and what is wrong with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import TOY_CARD, toy_device

from hwsim.errors import InputError, SystemFileError, UnknownNameError
from hwsim.mapper import Transfer
from hwsim.system import System, Topology, Wire, system_of
from hwsim.systemfile import is_system, load_system
from hwsim.work import Pattern

HEAD = """
system: lab
sources: {made: {title: made for tests}}
devices: {gpu: toy.yaml, cpu: toy.yaml, drive: {card: toy.yaml, set: {memories.ddr.bandwidth: 5 GB/s}}}
switches: [switch]
links:
  - {name: up, between: [cpu, switch], bandwidth: BW, latency: {value: 1 us, mark: assumed, source: made}, energy: E}
  - {name: gpu port, between: [gpu, switch], card: gpu.pcie}
  - {name: drive port, between: [drive, switch], card: drive.pcie, back: {value: 2 GB/s, mark: assumed, source: made}}
"""
AT_ONCE = "{value: 0 s, mark: assumed, source: made}"
BW, E = "{value: 20 GB/s, mark: assumed, source: made}", "{value: 1 pJ/bit, mark: assumed, source: made}"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A system file beside the toy card and one whose link has no latency; with texts replaced."""
    (tmp_path / "toy.yaml").write_text(TOY_CARD)
    (tmp_path / "unknown.yaml").write_text(TOY_CARD.replace(f"    latency: {AT_ONCE}\n", ""))

    def write(*changes: tuple[str, str]) -> Path:
        text = HEAD
        for old, new in (*changes, ("BW", BW), (": E}", f": {E}}}")):
            assert old in text or old in ("BW", ": E}"), old
            text = text.replace(old, new)
        path = tmp_path / "lab.yaml"
        path.write_text(text)
        return path

    return write


def test_a_transfer_takes_the_narrowest_and_the_latency_of_all(write):
    system = load_system(write())
    copy = system.transfer(Transfer("copy", 10e9, "drive.ddr", "hbm"))
    assert [hop.resource for hop in system.path("drive", "gpu")] == ["drive port to switch", "gpu port to gpu"]
    assert copy.seconds == pytest.approx(10e9 / 5e9)
    assert copy.bound == "drive.ddr"
    assert copy.busy == pytest.approx({"drive.ddr": 2, "hbm": 0.01, "drive port to switch": 1, "gpu port to gpu": 1})
    assert copy.traffic == {"drive.ddr": 10e9, "hbm": 10e9}
    assert copy.joules == pytest.approx(10e9 * 8 * (20 + 5 + 30 + 30) * 1e-12)


def test_the_other_direction_may_be_slower(write):
    back = load_system(write()).transfer(Transfer("back", 10e9, "hbm", "drive.ddr"))
    assert back.seconds == pytest.approx(5)
    assert back.bound == "drive port to drive"


def test_scattered_bytes_are_moved_in_whole_grains(tmp_path):
    device = toy_device(tmp_path, memories__ddr__granularity="4 KiB")
    gather = Transfer("rows", 1e6, "ddr", "hbm", pattern=Pattern.GATHER, granule=1000)
    assert system_of(device).transfer(gather).traffic == pytest.approx({"ddr": 4.096e6, "hbm": 1e6})


def test_a_device_is_a_system_of_one_with_its_host(tmp_path):
    system = system_of(toy_device(tmp_path))
    assert system_of(system) is system
    assert system.host == "host"
    copy = system.transfer(Transfer("spilled", 1e9, "host", "toy.hbm"))
    assert copy.seconds == pytest.approx(0.1)
    assert system.place("toy.ddr").name == system.place("ddr").name == "ddr"


def test_figures_keep_their_provenance(write):
    figures = load_system(write()).topology.figures
    assert figures["links.up.bandwidth"].source == "made"
    assert figures["links.gpu port.bandwidth"].value == 10e9
    assert figures["links.drive port.back"].value == 2e9


def test_the_shortest_path_wins_then_the_widest():
    wires = [
        ("wide", "a", "x", 9),
        ("narrow", "a", "y", 1),
        ("in", "x", "b", 4),
        ("in2", "y", "b", 4),
        ("long", "b", "c", 1),
    ]
    made = tuple(Wire(name, (one, other), width, width) for name, one, other, width in wires)
    for order in itertools.permutations(made):
        system = System(Topology("net", {}, order), {"a": _Bare()})
        assert [hop.resource for hop in system.path("a", "b")] == ["wide to x", "in to b"]
        assert len(system.path("a", "c")) == 3
    with pytest.raises(InputError, match="no path from 'a' to 'z'"):
        System(Topology("net", {}, made), {"a": _Bare(), "z": _Bare()}).path("a", "z")


@pytest.mark.parametrize(("between", "passes"), [("cpu", True), ("switch", True), ("host", True), ("drive", False)])
def test_only_switches_cpus_and_the_host_pass_on_what_is_not_theirs(tmp_path, between, passes):
    """A wide way through a device is none; the long way round is taken, and without one both ends are named."""
    toy = toy_device(tmp_path)
    devices = {"a": toy, "b": toy, **({between: toy} if between in ("cpu", "drive") else {})}
    through = Wire("in", ("a", between), 9, 9), Wire("out", (between, "b"), 9, 9)
    around = tuple(Wire(f"{n}", (f"s{n}" if n else "a", f"s{n + 1}" if n < 3 else "b"), 1, 1) for n in range(4))

    def path(*wires):
        cards = {name: device.card for name, device in devices.items()}
        return System(Topology("net", cards, wires), devices).path("a", "b")

    assert len(path(*through, *around)) == (2 if passes else 4)
    if passes:
        assert [hop.resource for hop in path(*through)] == [f"in to {between}", "out to b"]
    else:
        with pytest.raises(InputError, match="no path from 'a' to 'b'"):
            path(*through)


class _Bare:
    card = None


def test_half_duplex_links_are_one_resource():
    full, half = (Wire("w", ("a", "b"), 1, 1, half_duplex=half) for half in (False, True))
    assert full.towards("a").resource != full.towards("b").resource
    assert half.towards("a").resource == half.towards("b").resource


def test_memories_are_named_by_device(write):
    system = load_system(write())
    with pytest.raises(UnknownNameError, match=r"unknown memory 'cpu\.hmb'; did you mean 'cpu\.hbm'"):
        system.place("cpu.hmb")
    with pytest.raises(UnknownNameError, match="unknown device 'cpo'; did you mean 'cpu'"):
        system.place("cpo.hbm")
    with pytest.raises(UnknownNameError, match="unknown memory 'host'"):
        system.place("host")


MISTAKES = [
    (("between: [gpu, switch]", "between: [gpu, swich]"), "8:31: links[1].between: a link to 'swich'", "'switch'?"),
    (("between: [gpu, switch]", "between: [gpu, gpu]"), "8:31: links[1].between: a link from 'gpu' to itself", ""),
    (("between: [gpu, switch]", "between: [switch, cpu]"), "links[1].between: link 'up' joins 'switch' and 'cpu'", ""),
    (("name: gpu port", "name: up"), "8:12: links[1].name: two links are called 'up'", ""),
    (("card: gpu.pcie", "card: gpu.pci"), "8:52: links[1].card: no device has a link 'gpu.pci'", "'gpu.pcie'?"),
    (("BW", "{value: 0 GB/s, mark: assumed, source: made}"), "7:51: links[0].bandwidth: must be above zero", ""),
    (("BW", "{value: 1 GB, mark: assumed, source: made}"), "7:51: links[0].bandwidth: unknown unit 'GB'", ""),
    (("BW", "{value: 1 GB/s, mark: assumed, source: mad}"), "source 'mad' is not among", "'made'?"),
    ((", latency: {value: 1 us, mark: assumed, source: made}, energy: E", ""), "a link needs latency, energy", ""),
    (("gpu: toy.yaml", "gpu: unknown.yaml"), "8:52: links[1].card: the card has no latency of 'gpu.pcie'", ""),
    (("gpu: toy.yaml", "gpu: nvidia-h20"), "4:16: devices.gpu: unknown device 'nvidia-h20'", ""),
    (("gpu: toy.yaml", "host: toy.yaml"), "4:17: devices.host: a device is not called 'host'", ""),
    (("switches: [switch]", "switches: [switch, cpu]"), "5:20: switches[1]: 'cpu' is there already", ""),
    (("  - {name: gpu port, between: [gpu, switch], card: gpu.pcie}\n", ""), "devices.cpu: no link joins 'cpu' to", ""),
    (("switches:", "switchs:"), "switchs: unknown key", "'switches'?"),
]


@pytest.mark.parametrize(("change", "said", "nearest"), MISTAKES, ids=[said for _, said, _ in MISTAKES])
def test_mistakes_in_a_file_are_told_by_place(write, change, said, nearest):
    path = write(change)
    with pytest.raises(SystemFileError) as caught:
        load_system(path)
    assert said in str(caught.value)
    assert nearest in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_few_words_name_devices_and_hang_them_on_the_host():
    system = load_system({"gpu": "nvidia-a6000", "cpu": "amd-epyc-7742", "storage": ["inst-csd", "inst-csd"]})
    assert list(system.devices) == ["gpu", "cpu", "storage0", "storage1"]
    assert system.host == "cpu.ddr"
    assert [hop.resource for hop in system.path("storage1", "gpu")] == ["storage1 pcie to cpu", "gpu pcie to gpu"]
    assert system.static_power == pytest.approx(sum(d.card.static_power for d in system.devices.values()))


def test_two_alike_are_joined_by_their_nvlink():
    system = load_system({"gpu": ["nvidia-a6000", "nvidia-a6000"]})
    assert [hop.resource for hop in system.path("gpu0", "gpu1")] == ["gpu0 nvlink to gpu1"]


def test_a_link_of_a_card_without_latency_is_not_free(write, tmp_path):
    write()
    with pytest.raises(SystemFileError, match="no latency of its link 'pcie'"):
        load_system({"gpu": str(tmp_path / "toy.yaml"), "storage": str(tmp_path / "unknown.yaml")})


def test_a_card_is_no_system(write, tmp_path):
    assert is_system(write())
    assert not is_system(tmp_path / "toy.yaml")
    assert not is_system("nvidia-h200")
    assert load_system(tmp_path / "toy.yaml").name == "toy"
