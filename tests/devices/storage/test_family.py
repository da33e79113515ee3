"""The device family: flash at the rate of channels and dies, by the size of accesses; no event is simulated."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest
from drives import small

from hwsim.card import Card
from hwsim.cost import Cost
from hwsim.device import Serving, load_device
from hwsim.devices.storage import Storage
from hwsim.devices.storage.drive import Engine
from hwsim.devices.storage.inside import Rates
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.simulate import simulate
from hwsim.errors import CardError
from hwsim.mapper import Flow, Kernel
from hwsim.testing import check_device
from hwsim.work import Pattern

DEVICES = ("samsung-980-pro", "inst-csd")


def device(name: str) -> Storage:
    found = load_device(name)
    assert isinstance(found, Storage)
    return found


@pytest.mark.parametrize("name", DEVICES)
def test_conformance(name: str) -> None:
    assert check_device(device(name)) == []
    assert isinstance(device(name), Serving)


def test_nothing_is_compiled_for_an_estimate() -> None:
    code = "import sys; from hwsim.device import load_device; load_device('inst-csd'); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("granule", [512, 4096, 10_000, 16384, 2**20])
def test_the_rate_of_reads_is_that_of_the_busiest_of_channels_and_dies(granule: int) -> None:
    drive = device("samsung-980-pro").drive
    piece = min(granule, 16384)
    codewords = ceil(piece / 4096) * 4096
    channels = 8 * piece / (290e-9 + codewords / 1.2e9)
    planes = 64 * piece / (290e-9 + 38e-6)
    assert Rates(drive).inside(granule) == pytest.approx(min(channels, planes), rel=1e-9)


@pytest.mark.parametrize("planes", [1, 2, 4])
@pytest.mark.parametrize(("independent", "cache_read"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("bandwidth", [333e6, 4e9])
def test_the_rate_of_streams_is_the_simulator_s(
    planes: int, independent: bool, cache_read: bool, bandwidth: float
) -> None:
    """Planes that read by one command wait until all their pages have left; those that read alone do not."""
    drive = small(planes=planes, independent_planes=independent, cache_read=cache_read, blocks=64)
    drive = replace(drive, bus=replace(drive.bus, bandwidth=bandwidth), pcie=replace(drive.pcie, lanes=64))
    outcome = simulate(drive, Load("read", 4096, 256, number_ios=8000, size=2**21))
    assert Rates(drive).inside(0) == pytest.approx(4096 * 8000 / outcome.seconds, rel=0.12)


def test_others_wait_for_the_link_and_the_firmware() -> None:
    rates = Rates(device("samsung-980-pro").drive)
    assert rates.outside(4096) == pytest.approx(4 / 3.9e-6 * 4096)
    assert rates.outside(0) == pytest.approx(16e9 * 128 / 130 / 8 * 4 * 256 / 280)
    assert rates.outside(512) < rates.inside(512)


def test_the_engine_is_bound_by_its_own_way() -> None:
    drive = replace(small(), engine=Engine(1e6))
    assert Rates(drive).inside(4096) == 1e6


def _kernel(flow: Flow) -> Kernel:
    return replace(_empty(), flows=(flow,))


def _empty() -> Kernel:
    from hwsim.kernel_spec import spec_kernel

    return spec_kernel({"op": "copy_d2d", "bytes": 4096}, device("inst-csd"))


def _read(name: str, nbytes: float, granule: float, inside: bool) -> Cost:
    pattern = Pattern.GATHER if granule else Pattern.STREAM
    flow = Flow("nand", nbytes, False, pattern, granule)
    found = device(name)
    return found.estimate(_kernel(flow)) if inside else found.serve(flow)


def test_attention_beside_the_channels_reads_at_their_rate() -> None:
    """8 channels of 1.4 GB/s inside; 7.2 GB/s of data over PCIe 4.0 x4, so that a stream is 1.56 times as fast."""
    inside, outside = (_read("inst-csd", 1e9, 0, where).seconds for where in (True, False))
    assert inside == pytest.approx(1e9 / 11.2e9, rel=1e-6)
    assert outside / inside == pytest.approx(11.2 / 7.202, rel=1e-3)


def test_small_accesses_cost_whole_codewords() -> None:
    large, tiny = (_read("inst-csd", 2**20, granule, True).seconds for granule in (4096, 512))
    assert tiny == pytest.approx(8 * large, rel=1e-3)


def test_a_card_without_a_drive_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    card: Card = replace(load_device("inst-csd").card, name="nobody")
    with pytest.raises(CardError, match="has no drive's card of its name"):
        Storage(card)


def test_a_device_file_names_a_drive_s_card_beside_it(tmp_path: Path) -> None:
    """Half the channels of the shipped drive read at half its rate; a shipped drive is named by its name."""
    root = Path(__file__).parents[3] / "devices"
    text = (root / "cards" / "inst-csd.yaml").read_text("utf-8").replace("card: inst-csd", "card: ours", 1)
    drive = (root / "storage" / "cards" / "inst-csd.yaml").read_text("utf-8")
    (tmp_path / "half.yaml").write_text(drive.replace("channels: {value: 8", "channels: {value: 4"))
    found = {}
    for name in ("half.yaml", "inst-csd"):
        (tmp_path / "ours.yaml").write_text(text.replace("family: storage", f"family: storage\ndrive: {name}"))
        made = load_device(tmp_path / "ours.yaml")
        assert isinstance(made, Storage)
        found[name] = Rates(made.drive).inside(0)
    assert found["half.yaml"] == pytest.approx(found["inst-csd"] / 2)
    (tmp_path / "ours.yaml").write_text(text.replace("family: storage", "family: storage\ndrive: nowhere.yaml"))
    with pytest.raises(CardError, match=r"nowhere\.yaml"):
        load_device(tmp_path / "ours.yaml")
