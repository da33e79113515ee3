"""Joules of a simulation by part, from a data sheet's currents or from energies per event.

From currents (IDD) as usual, see Micron TN-40-07: an activation with its precharge costs what a row cycle draws beyond
standby, V (IDD0 tRC - IDD3N tRAS - IDD2N (tRC - tRAS)); a burst V (IDD4 - IDD3N) tBL; a refresh V (IDD5B - IDD3N) tRFC;
standby V IDD3N while any bank is open and V IDD2N while none is. Currents are those of one device; all devices of a
rank work together. IDD3N is measured with all banks open and IDD0 with one: where a card's ``bank_share`` says so, only
that part of IDD3N - IDD2N is taken off IDD0 (the bank-sensitive model of DRAMPower, Jung et al., PATMOS 2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwsim.devices.dram.card import Dram

CURRENTS = ("IDD0", "IDD2N", "IDD3N", "IDD4R", "IDD4W")  # that a card with a VDD needs
PARTS = ("activate", "read", "write", "refresh", "background", "io")


@dataclass(frozen=True)
class Activity:
    """What happened: events, seconds with a bank open summed over all units, and of the whole."""

    activations: int
    reads: int
    writes: int
    refreshes: int
    bank_refreshes: int
    active: float
    idle: float


def energy(card: Dram, activity: Activity) -> Mapping[str, float] | None:
    """Joules by part; None where the card has no energies."""
    each = per_event(card)
    if each is None:
        return None
    moved = (activity.reads + activity.writes) * card.burst_bytes
    return {
        "activate": activity.activations * each["activate"],
        "read": activity.reads * each["read"],
        "write": activity.writes * each["write"],
        "refresh": activity.refreshes * each["refresh"] + activity.bank_refreshes * each["refresh_bank"],
        "background": activity.active * each["active"] + activity.idle * each["idle"],
        "io": moved * each["io"],
    }


def per_event(card: Dram) -> Mapping[str, float] | None:
    """Joules of an activation with its precharge, a burst read or written, a refresh; watts of a unit's standby."""
    given = card.energies
    if "VDD" in given:
        found = _from_currents(card)
    elif "activate" in given and "read" in given:
        burst = card.burst_bytes
        found = {
            "activate": given["activate"],
            "read": given["read"] * burst,
            "write": given.get("write", given["read"]) * burst,
            "refresh": given.get("refresh", 0.0),
            "refresh_bank": given.get("refresh_bank", given.get("refresh", 0.0) / _banks(card)),
            "active": given.get("active", 0.0),
            "idle": given.get("idle", 0.0),
        }
    else:
        return None
    return {**found, "io": given.get("io", 0.0)}


def _banks(card: Dram) -> int:
    """Banks that a refresh of all refreshes."""
    counts = card.organization
    return counts["stacks"] * counts["bank_groups"] * counts["banks"]


def _from_currents(card: Dram) -> dict[str, float]:
    t, given = card.clocks, card.energies
    watts = {name: given["VDD"] * current * card.devices for name, current in given.items() if name.startswith("IDD")}
    row, open_, burst = t["tRC"] * card.clock, t["tRAS"] * card.clock, t["tBL"] * card.clock
    active, idle = watts["IDD3N"], watts["IDD2N"]
    one_open = idle + given.get("bank_share", 1.0) * (active - idle)
    refresh = (watts.get("IDD5B", active) - active) * t["tRFC"] * card.clock
    of_bank = (watts["IDD5PB"] - active) * t["tRFCpb"] * card.clock if "IDD5PB" in watts else refresh / _banks(card)
    return {
        "activate": watts["IDD0"] * row - one_open * open_ - idle * (row - open_),
        "read": (watts["IDD4R"] - active) * burst,
        "write": (watts["IDD4W"] - active) * burst,
        "refresh": refresh,
        "refresh_bank": of_bank,
        "active": active,
        "idle": idle,
    }
