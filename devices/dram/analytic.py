"""What formulas say of a memory's bandwidth and latency, to stand beside the simulation.

Clocks per burst, of all channels together, are at least

    bus          tBL over the data buses that a window of the queue reaches
    columns      tCCD_S over those buses, tCCD_L over the bank groups
    activations  max(tRRD_S, tFAW / 4) times the activations of a burst, over the units
    banks        tRC times the activations of a burst, over the banks busy at once
    commands     clocks on the command bus
    queue        the wait of a request for its activation, over the places of the queue

and the slowest of them sets the pace. Banks and queue are estimates of the mean, which a scheduler may beat; the others
are limits. Of B banks, Q random requests keep B (1 - (1 - 1/B)^Q) busy. Of every tREFI a
refresh takes tRFC and the time to close and open rows. Writes are drained in batches, each of which turns the bus
around twice. Reads in flight bound the rate by Little's law: in flight / latency.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hwsim.devices.dram.card import Dram
from hwsim.devices.dram.layout import L_BANK, L_ROW, L_WRITE, Ints
from hwsim.devices.dram.schema import ControllerFile

SAMPLE = 50_000  # bursts whose banks and rows are looked at


@dataclass(frozen=True)
class Estimate:
    """Bandwidth in B/s, unloaded latency of a read in seconds, and which limit sets the pace."""

    bandwidth: float
    latency: float
    bound: str


@dataclass(frozen=True)
class Locality:
    """What a window of a load touches, on average: different banks, bank groups, units, data buses; activations of a
    burst in the load's order, reads and writes each for themselves; and the share of writes."""

    banks: float
    groups: float
    units: float
    buses: float
    activations: float
    writes: float


def locality(card: Dram, load: Ints, window: int) -> Locality:
    """Look at windows of so many bursts."""
    counts = card.organization
    window = max(min(window, len(load)), 1)
    banks = load[: len(load) // window * window, L_BANK].reshape(-1, window)
    group = counts["banks"]
    unit = group * counts["bank_groups"] * counts["stacks"]
    bus = unit * counts["ranks"]
    misses = sum(_misses(load[load[:, L_WRITE] == kind]) for kind in (0, 1))
    return Locality(
        _different(banks),
        _different(banks // group),
        _different(banks // unit),
        _different(banks // bus),
        misses / len(load),
        float(load[:, L_WRITE].mean()),
    )


def _different(windows: Ints) -> float:
    """How many different values a row has, on average."""
    ordered = np.sort(windows, axis=1)
    return float(1 + (np.diff(ordered, axis=1) != 0).sum(axis=1).mean())


def _misses(load: Ints) -> int:
    """Bursts whose bank had another row open, where rows stay open and bursts keep their order."""
    if not len(load):
        return 0
    order = np.argsort(load[:, L_BANK], kind="stable")
    bank, row = load[order, L_BANK], load[order, L_ROW]
    return int(1 + ((np.diff(bank) != 0) | (np.diff(row) != 0)).sum())


def estimate(
    card: Dram, controller: ControllerFile, load: Ints, channels: int, outstanding: int = 0, interval: float = 0.0
) -> Estimate:
    """The formulas' answer for a load of bursts; ``interval`` is seconds between two arrivals."""
    seen = locality(card, load[:SAMPLE], controller.read_queue * channels)
    if controller.page == "closed" or controller.row_accesses == 1:
        seen = replace(seen, activations=1.0)
    latency = unloaded(card, controller, seen) * card.clock
    limits = clocks_per_burst(card, controller, seen, channels)
    bound = max(limits, key=limits.__getitem__)
    clocks = limits[bound] + turnaround(card, controller, seen) / channels
    rate = card.burst_bytes / (clocks * card.clock) * (1.0 - refresh_share(card, controller))
    in_flight = outstanding * card.burst_bytes / (latency * max(1.0 - seen.writes, 1e-9)) if outstanding else np.inf
    arriving = card.burst_bytes / interval if interval else np.inf
    for limit, name in ((in_flight, "outstanding"), (arriving, "arrivals")):
        if limit < rate:
            rate, bound = limit, name
    return Estimate(float(rate), latency, bound)


def clocks_per_burst(card: Dram, controller: ControllerFile, seen: Locality, channels: int) -> dict[str, float]:
    """The limits by name, in clocks per burst of all channels."""
    t, span = card.clocks, card.spans
    rows, columns = seen.activations * (span["ACT"] + span["PRE"]), span["RD"]
    limits = {
        "bus": t["tBL"] / seen.buses,
        "columns": max(t["tCCD_S"] / seen.buses, t["tCCD_L"] / seen.groups),
        "activations": seen.activations * max(t["tRRD_S"], t["tFAW"] / 4) / seen.units,
        "banks": seen.activations * t["tRC"] / seen.banks,
        "commands": (max(rows, columns) if card.buses == 2 else rows + columns) / channels,
    }
    limits["queue"] = seen.activations * t["tRP"] / (controller.read_queue * channels)
    if seen.activations > 0.5:
        limits.update(_busy_banks(card, controller, limits, channels))
    return limits


def _busy_banks(card: Dram, controller: ControllerFile, limits: dict[str, float], channels: int) -> dict[str, float]:
    """The limits of banks and queue where most bursts open a row: how long requests wait depends on the pace itself.

    A place of the queue is free again once its request's row is opened, while the bank stays busy for tRC.
    """
    t, counts = card.clocks, card.organization
    banks = channels * counts["pseudo_channels"] * counts["ranks"] * counts["stacks"]
    banks *= counts["bank_groups"] * counts["banks"]
    places = controller.read_queue * channels
    pace = max(limits["bus"], limits["activations"], limits["commands"])
    bank = queue = pace
    for _ in range(50):
        clocks = max(pace, bank, queue)
        asked = places + t["tRC"] / clocks
        bank = t["tRC"] / (banks * (1.0 - (1.0 - 1.0 / banks) ** asked)) if banks > 1 else float(t["tRC"])
        busy = min(t["tRC"] / clocks / banks, 1.0)
        queue = 0.5 * queue + 0.5 * (t["tRP"] + 1 + busy * t["tRC"] / 2) / places
    return {"banks": bank, "queue": queue}


def unloaded(card: Dram, controller: ControllerFile, seen: Locality) -> float:
    """Clocks from the arrival of a read at an idle memory until its data are there."""
    t = card.clocks
    closing = 0 if controller.page == "closed" or controller.row_accesses == 1 else t["tRP"]
    return 1 + t["tCL"] + t["tBL"] + min(seen.activations, 1.0) * (t["tRCD"] + closing)


def refresh_share(card: Dram, controller: ControllerFile) -> float:
    """The part of the time that refreshes take."""
    t = card.clocks
    if controller.refresh == "all-bank" and t["tREFI"]:
        return min((t["tRFC"] + t["tRP"] + t["tRCD"]) / t["tREFI"], 1.0)
    if controller.refresh == "per-bank" and t["tREFIpb"]:
        counts = card.organization
        banks = counts["pseudo_channels"] * counts["ranks"] * counts["stacks"] * counts["bank_groups"] * counts["banks"]
        return min(t["tRFCpb"] / (t["tREFIpb"] * banks), 1.0)
    return 0.0


def turnaround(card: Dram, controller: ControllerFile, seen: Locality) -> float:
    """Clocks per burst of one channel that the bus is turned around."""
    t = card.clocks
    batch = max((controller.drain_above - controller.drain_below) * controller.write_queue, 1.0)
    both = (t["tRTW"] - t["tBL"]) + (t["tCWL"] + t["tWTR_S"])
    return min(seen.writes, 1.0 - seen.writes) * max(both, 0) / batch
