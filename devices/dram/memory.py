"""The memory that the engine begins with: its records laid out and filled, see `hwsim.devices.dram.layout`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hwsim.devices.dram.layout import (
    B_AWAITED,
    B_CHANNEL,
    B_CLOSED,
    B_GROUP,
    B_HIT_SLOT,
    B_ROW,
    B_UNIT,
    B_WAITS,
    BANK_FIELDS,
    BANKS,
    BUS,
    BUS_BANKS,
    C_FIRST_BANK,
    C_FIRST_UNIT,
    C_FREE,
    C_FREE_LIST,
    C_HALF,
    C_KEY,
    C_NEW_LIST,
    C_REFRESH,
    C_SURE_UNTIL,
    CHANNEL_RECORD,
    CHANNELS,
    FAR,
    FIRST_BANK,
    FIRST_CHANNEL,
    FIRST_UNIT,
    FLYING,
    GAPS,
    GROUP,
    GROUPS,
    HEADER,
    NEVER,
    NONE,
    QUEUE_RECORD,
    RING,
    SPANS,
    SPREAD,
    SPREADS,
    STACK,
    U_BANK,
    U_BANK_END,
    U_BUS,
    U_BUS_END,
    U_RING,
    U_TURN,
    UNIT,
    UNIT_RECORD,
    UNITS,
    Ints,
)


class Settings(NamedTuple):
    """What the engine needs of a card and a question besides the gaps, in the order of the memory; times in ticks."""

    faw: int
    read_done: int
    write_done: int
    refresh_every: int
    per_bank: bool
    read_queue: int
    write_queue: int
    drain_above: int
    drain_below: int
    two_buses: bool
    odd: int  # 1 where a clock is two ticks and most commands start on whole clocks
    protect_hits: bool
    row_accesses: int
    forwarding: bool
    outstanding: int
    interval: int
    clock_runs_on: int
    halves_within: int


@dataclass(frozen=True)
class Shape:
    """How many of each there are: in all (channels), in a channel (buses), in a bus (units), and so on downwards."""

    channels: int
    buses: int
    units: int
    stacks: int
    groups: int
    banks: int

    @property
    def banks_of_channel(self) -> int:
        """Banks of one channel."""
        return self.buses * self.units * self.stacks * self.groups * self.banks

    @property
    def banks_of_unit(self) -> int:
        """Banks that share refreshes and the activation window."""
        return self.stacks * self.groups * self.banks

    @property
    def groups_of_bus(self) -> int:
        """Bank groups that share a data bus."""
        return self.units * self.stacks * self.groups


def new_memory(shape: Shape, settings: Settings, gap: Ints, span: Ints) -> Ints:
    """All banks closed at time 0 and nothing asked for."""
    units, groups = shape.buses * shape.units, shape.groups_of_bus
    spread = _spread(shape, gap, int(settings.odd))
    ring = 1 << max(settings.outstanding - 1, 0).bit_length()
    slots = settings.read_queue + settings.write_queue
    parts = {
        "header": HEADER,
        "gap": gap.size,
        "span": span.size,
        "channel": shape.channels * CHANNEL_RECORD,
        "unit": shape.channels * units * UNIT_RECORD,
        "bank": shape.channels * shape.banks_of_channel * BANK_FIELDS,
        "spread": spread.size,
        "flying": ring,
        "list": shape.channels * slots * 2,
        "queue": shape.channels * slots * QUEUE_RECORD,
    }
    ends = np.cumsum(list(parts.values()))
    at = dict(zip(parts, (ends - list(parts.values())).tolist(), strict=True))
    m = np.zeros(ends[-1], np.int64)
    m[: len(settings)] = [int(value) for value in settings]
    m[[CHANNELS, UNITS, BANKS]] = shape.channels, units, shape.banks_of_channel
    m[[GROUPS, BUS_BANKS]] = groups, groups * shape.banks
    m[[FIRST_CHANNEL, FIRST_UNIT, FIRST_BANK]] = at["channel"], at["unit"], at["bank"]
    m[[GAPS, SPANS, SPREAD, FLYING, RING]] = at["gap"], at["span"], at["spread"], at["flying"], ring - 1

    def part(name: str, *shape: int) -> Ints:
        return m[at[name] : at[name] + parts[name]].reshape(shape)

    part("gap", -1)[:], part("span", -1)[:], part("spread", -1)[:] = gap.ravel(), span, spread.ravel()
    _lay_banks(part("bank", BANK_FIELDS, -1), part("unit", -1, UNIT_RECORD), at, shape)
    _lay_channels(part("channel", -1, CHANNEL_RECORD), at, shape, settings)
    free = part("list", shape.channels, 2, slots)[:, 0]
    free[:] = at["queue"] + np.arange(free.size)[::-1].reshape(free.shape) * QUEUE_RECORD
    return m


def _lay_banks(bank: Ints, unit: Ints, at: dict[str, int], shape: Shape) -> None:
    """Which channel, unit and group each bank belongs to, and which banks belong to each unit and its data bus."""
    number, in_unit, in_bus = np.arange(bank.shape[1]), shape.banks_of_unit, shape.banks_of_unit * shape.units
    bank[B_ROW] = bank[B_CLOSED] = bank[B_WAITS] = -1
    bank[B_AWAITED:B_HIT_SLOT] = NONE
    bank[B_CHANNEL] = at["channel"] + number // shape.banks_of_channel * CHANNEL_RECORD
    bank[B_UNIT] = at["unit"] + number // in_unit * UNIT_RECORD
    bank[B_GROUP] = number // shape.banks % shape.groups_of_bus
    unit[:, U_BANK] = np.arange(len(unit)) * in_unit
    unit[:, U_BANK_END] = unit[:, U_BANK] + in_unit
    unit[:, U_BUS] = np.arange(len(unit)) // shape.units * in_bus
    unit[:, U_BUS_END] = unit[:, U_BUS] + in_bus
    unit[:, U_RING:U_TURN] = -FAR


def _lay_channels(channel: Ints, at: dict[str, int], shape: Shape, settings: Settings) -> None:
    """Where each channel's lists, units and banks begin."""
    number = np.arange(shape.channels)
    slots = settings.read_queue + settings.write_queue
    channel[:, C_FREE] = slots
    channel[:, C_FREE_LIST] = at["list"] + number * slots * 2
    channel[:, C_NEW_LIST] = channel[:, C_FREE_LIST] + slots
    channel[:, C_REFRESH] = settings.refresh_every or FAR
    channel[:, C_KEY] = NEVER
    channel[:, C_HALF] = channel[:, C_SURE_UNTIL] = -1
    channel[:, C_FIRST_UNIT] = at["unit"] + number * shape.buses * shape.units * UNIT_RECORD
    channel[:, C_FIRST_BANK] = number * shape.banks_of_channel


def _spread(shape: Shape, gap: Ints, odd: int) -> Ints:
    """How long commands keep those of ``SPREADS`` waiting, by bank group and by bank of the data bus."""
    near = np.repeat(relations(shape), shape.banks, axis=1)
    found = np.stack([gap[near, before, after] for before, after in SPREADS])
    rounded: Ints = found + (found & odd)
    return rounded


def relations(shape: Shape) -> Ints:
    """How the bank groups of one data bus are related: ``[one, other]`` is GROUP, STACK, UNIT or BUS."""
    groups = np.arange(shape.groups_of_bus)
    stack, unit = groups // shape.groups, groups // (shape.groups * shape.stacks)
    found = np.full((len(groups), len(groups)), BUS, np.int64)
    found[unit[:, None] == unit[None, :]] = UNIT
    found[stack[:, None] == stack[None, :]] = STACK
    np.fill_diagonal(found, GROUP)
    return found
