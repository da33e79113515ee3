"""From a card to the rules that commands obey: how many ticks must lie between two, by how near their banks are.

A tick is a clock, or half a one where a command takes half clocks on its bus (rows of HBM3). Times of a standard are
between the ends of commands, the engine's between their starts: a command that takes two clocks moves the rules that
begin with it by one, and those that end with it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hwsim.devices.dram.card import Dram
from hwsim.devices.dram.layout import ACT, BANK, BUS, GROUP, PRE, RD, REF, REFPB, STACK, SUBTICKS, UNIT, WR, Ints
from hwsim.devices.dram.memory import Settings, Shape
from hwsim.devices.dram.schema import ControllerFile

COMMAND_SPANS = ("ACT", "PRE", "RD", "WR", "REF", "REF", "ACT")  # whose clocks each command of the engine takes


@dataclass(frozen=True)
class Rules:
    """``gap[near, before, after]`` and ``span[command]`` in ticks of ``tick`` seconds."""

    gap: Ints
    span: Ints
    tick: float
    ticks_per_clock: int
    shape: Shape


def rules_of(card: Dram, channels: int) -> Rules:
    """The rules of a card for so many of its channels."""
    half = any(span % 1 for span in card.spans.values())
    per = 2 if half else 1
    span = np.array([round(card.spans[name] * per) for name in COMMAND_SPANS], np.int64)
    gap = np.zeros((5, 6, 6), np.int64)
    for near, before, after, clocks in _pairs(card):
        gap[near, before, after] = max(clocks * per + span[before] - span[after], 0)
    counts = card.organization
    shape = Shape(
        channels,
        counts["pseudo_channels"],
        counts["ranks"],
        counts["stacks"],
        counts["bank_groups"],
        counts["banks"],
    )
    return Rules(gap, span, card.clock / per, per, shape)


def _pairs(card: Dram) -> list[tuple[int, int, int, int]]:
    """All rules as (how near, command before, command after, clocks)."""
    t = card.clocks
    burst = t["tBL"]
    short, short_wr = max(t["tCCD_S"], burst), max(t["tCCD_S_WR"], burst)
    long, long_wr = max(t["tCCD_L"], short), max(t["tCCD_L_WR"], short_wr)
    after_write = t["tCWL"] + burst
    write_to_read = after_write + t["tWTR_S"]
    switch = burst + t["tCS"]
    rules = [
        (BANK, ACT, ACT, t["tRC"]),
        (BANK, ACT, PRE, t["tRAS"]),
        (BANK, ACT, RD, t["tRCD"]),
        (BANK, ACT, WR, t["tRCD_WR"]),
        (BANK, PRE, ACT, t["tRP"]),
        (BANK, RD, PRE, t["tRTP"]),
        (BANK, WR, PRE, after_write + t["tWR"]),
        (BANK, REFPB, ACT, t["tRFCpb"]),
        (GROUP, ACT, ACT, max(t["tRRD_L"], t["tRRD_S"])),
        (GROUP, RD, RD, long),
        (GROUP, WR, WR, long_wr),
        (GROUP, WR, RD, after_write + max(t["tWTR_L"], t["tWTR_S"])),
        (STACK, RD, RD, short),
        (STACK, WR, WR, short_wr),
        (UNIT, RD, RD, max(t["tCCD_R"], burst)),
        (UNIT, WR, WR, burst),
        (UNIT, PRE, PRE, t["tPPD"]),
        (UNIT, REF, ACT, t["tRFC"]),
        (UNIT, REFPB, ACT, t["tRREFD"]),
        (BUS, RD, RD, switch),
        (BUS, RD, WR, max(switch, t["tRTW"])),
        (BUS, WR, WR, burst),
        (BUS, WR, RD, max(after_write + t["tCS"] - t["tCL"], burst)),
    ]
    for near in (STACK, UNIT):
        rules += [(near, ACT, ACT, t["tRRD_S"]), (near, WR, RD, write_to_read)]
    return rules + [(near, RD, WR, t["tRTW"]) for near in (GROUP, STACK, UNIT)]


def settings_of(card: Dram, rules: Rules, controller: ControllerFile, outstanding: int, interval: float) -> Settings:
    """The engine's settings for a card under a controller; ``interval`` is seconds between two arrivals."""
    t, per = card.clocks, rules.ticks_per_clock
    between = {"all-bank": t["tREFI"], "per-bank": t["tREFIpb"], "none": 0}[controller.refresh]
    return Settings(
        faw=t["tFAW"] * per,
        read_done=(t["tCL"] + t["tBL"]) * per,
        write_done=(t["tCWL"] + t["tBL"]) * per,
        refresh_every=between * per,
        per_bank=controller.refresh == "per-bank",
        read_queue=controller.read_queue,
        write_queue=controller.write_queue,
        drain_above=math.floor(controller.drain_above * controller.write_queue + 1e-9),
        drain_below=math.ceil(controller.drain_below * controller.write_queue - 1e-9),
        two_buses=card.buses == 2,
        odd=per - 1,
        protect_hits=controller.scheduler == "frfcfs-hits",
        row_accesses=controller.row_accesses or (1 if controller.page == "closed" else 0),
        forwarding=controller.forwarding,
        outstanding=outstanding,
        interval=round(interval / rules.tick * 2**SUBTICKS),
        clock_runs_on=t["tWCKPST"] * per,
        halves_within=t["tAAD"] * per,
    )
