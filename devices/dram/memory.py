"""The memory that the engine begins with: its records laid out and filled, see `hwsim.devices.dram.engine`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hwsim.devices.dram.engine import (
    B_GROUP,
    B_ROW,
    B_UNIT,
    BANK_RECORD,
    BANKS,
    BUS,
    C_FIRST_BANK,
    C_FIRST_UNIT,
    C_KEY,
    C_OPENED_LIST,
    C_READ_LIST,
    C_REFRESH,
    C_WRITE_LIST,
    CHANNEL_RECORD,
    CHANNELS,
    FAR,
    FIRST_BANK,
    FIRST_CHANNEL,
    FIRST_UNIT,
    FLYING,
    G_BANK,
    G_BANK_END,
    G_NEAR,
    GAPS,
    GROUP,
    GROUP_RECORD,
    HEADER,
    OPENED_RECORD,
    QUEUE_RECORD,
    SPANS,
    STACK,
    U_BANK,
    U_BANK_END,
    U_BUS,
    U_BUS_END,
    U_GROUP,
    U_GROUP_END,
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
    def groups_of_bus(self) -> int:
        """Bank groups that share a data bus."""
        return self.units * self.stacks * self.groups


def new_memory(shape: Shape, settings: Settings, gap: Ints, span: Ints) -> Ints:
    """All banks closed at time 0 and nothing asked for."""
    units, groups = shape.buses * shape.units, shape.buses * shape.groups_of_bus
    group_record = G_NEAR + shape.groups_of_bus
    parts = {
        "header": HEADER,
        "gap": gap.size,
        "span": span.size,
        "channel": shape.channels * CHANNEL_RECORD,
        "unit": shape.channels * units * UNIT_RECORD,
        "group": shape.channels * groups * group_record,
        "bank": shape.channels * shape.banks_of_channel * BANK_RECORD,
        "flying": max(settings.outstanding, 1),
        "opened": shape.channels * shape.banks_of_channel * OPENED_RECORD,
        "queue": shape.channels * (settings.read_queue + settings.write_queue) * QUEUE_RECORD,
    }
    ends = np.cumsum(list(parts.values()))
    at = dict(zip(parts, (ends - list(parts.values())).tolist(), strict=True))
    m = np.zeros(ends[-1], np.int64)
    m[: len(settings)] = [int(value) for value in settings]
    m[[CHANNELS, UNITS, BANKS]] = shape.channels, units, shape.banks_of_channel
    m[[FIRST_CHANNEL, FIRST_UNIT, FIRST_BANK]] = at["channel"], at["unit"], at["bank"]
    m[[GAPS, SPANS, FLYING, GROUP_RECORD]] = at["gap"], at["span"], at["flying"], group_record
    m[at["gap"] : at["gap"] + gap.size] = gap.ravel()
    m[at["span"] : at["span"] + span.size] = span

    def records(part: str, size: int) -> Ints:
        return m[at[part] : at[part] + parts[part]].reshape(-1, size)

    _lay_banks(records("bank", BANK_RECORD), records("unit", UNIT_RECORD), records("group", group_record), at, shape)
    _lay_channels(records("channel", CHANNEL_RECORD), at, shape, settings)
    return m


def _lay_banks(bank: Ints, unit: Ints, group: Ints, at: dict[str, int], shape: Shape) -> None:
    """Which banks and groups belong to each group and unit, and how near groups are."""
    in_group, in_unit, record = shape.banks, len(bank) // len(unit), group.shape[1]
    bank[:, B_ROW] = -1
    bank[:, B_GROUP] = at["group"] + np.arange(len(bank)) // in_group * record
    bank[:, B_UNIT] = at["unit"] + np.arange(len(bank)) // in_unit * UNIT_RECORD
    group[:, G_BANK] = at["bank"] + np.arange(len(group)) * in_group * BANK_RECORD
    group[:, G_BANK_END] = group[:, G_BANK] + in_group * BANK_RECORD
    group[:, G_NEAR:] = np.tile(relations(shape), (shape.channels * shape.buses, 1))
    unit[:, U_BANK] = at["bank"] + np.arange(len(unit)) * in_unit * BANK_RECORD
    unit[:, U_BANK_END] = unit[:, U_BANK] + in_unit * BANK_RECORD
    unit[:, U_GROUP] = at["group"] + np.arange(len(unit)) * (len(group) // len(unit)) * record
    unit[:, U_GROUP_END] = unit[:, U_GROUP] + len(group) // len(unit) * record
    unit[:, U_BUS] = at["group"] + np.arange(len(unit)) // shape.units * shape.groups_of_bus * record
    unit[:, U_BUS_END] = unit[:, U_BUS] + shape.groups_of_bus * record
    unit[:, U_RING:U_TURN] = -FAR


def _lay_channels(channel: Ints, at: dict[str, int], shape: Shape, settings: Settings) -> None:
    """Where each channel's queues, opened banks, units and banks begin."""
    number = np.arange(shape.channels)
    slots = settings.read_queue + settings.write_queue
    channel[:, C_READ_LIST] = at["queue"] + number * slots * QUEUE_RECORD
    channel[:, C_WRITE_LIST] = channel[:, C_READ_LIST] + settings.read_queue * QUEUE_RECORD
    channel[:, C_OPENED_LIST] = at["opened"] + number * shape.banks_of_channel * OPENED_RECORD
    channel[:, C_REFRESH] = settings.refresh_every or FAR
    channel[:, C_KEY] = FAR * 8
    channel[:, C_FIRST_UNIT] = at["unit"] + number * shape.buses * shape.units * UNIT_RECORD
    channel[:, C_FIRST_BANK] = at["bank"] + number * shape.banks_of_channel * BANK_RECORD


def relations(shape: Shape) -> Ints:
    """How the bank groups of one data bus are related: ``[one, other]`` is GROUP, STACK, UNIT or BUS."""
    groups = np.arange(shape.groups_of_bus)
    stack, unit = groups // shape.groups, groups // (shape.groups * shape.stacks)
    found = np.full((len(groups), len(groups)), BUS, np.int64)
    found[unit[:, None] == unit[None, :]] = UNIT
    found[stack[:, None] == stack[None, :]] = STACK
    np.fill_diagonal(found, GROUP)
    return found
