"""A DRAM channel clock by clock, in plain Python: what the fast engine must equal; and a checker of command traces."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeAlias

from hwsim.devices.dram.card import Dram
from hwsim.devices.dram.schema import ControllerFile

NEVER = 10**15
SPANS = ("ACT", "PRE", "RD", "WR", "REF")
Command: TypeAlias = tuple[int, str, int, int]  # start in ticks, name, bank, row


def near(a: dict[str, int], b: dict[str, int]) -> str:
    """How near two banks of a channel are."""
    if a["bus"] != b["bus"]:
        return "channel"
    for level in ("unit", "stack", "group", "bank"):
        if a[level] != b[level]:
            return {"unit": "bus", "stack": "unit", "group": "stack", "bank": "group"}[level]
    return "bank"


def bank_place(card: Dram, number: int) -> dict[str, int]:
    """The levels of a bank that is counted through a channel."""
    o = card.organization
    rest, bank = divmod(number, o["banks"])
    rest, group = divmod(rest, o["bank_groups"])
    rest, stack = divmod(rest, o["stacks"])
    bus, unit = divmod(rest, o["ranks"])
    return {"bus": bus, "unit": unit, "stack": stack, "group": group, "bank": bank}


def distance(card: Dram, how: str, before: str, after: str) -> int:
    """Clocks that the standard wants between two commands, end to end; 0: none."""
    t = card.clocks
    write = t["tCWL"] + t["tBL"]
    same_bank = {
        ("ACT", "ACT"): t["tRC"],
        ("ACT", "PRE"): t["tRAS"],
        ("ACT", "RD"): t["tRCD"],
        ("ACT", "WR"): t["tRCD_WR"],
        ("PRE", "ACT"): t["tRP"],
        ("RD", "PRE"): t["tRTP"],
        ("WR", "PRE"): write + t["tWR"],
    }
    close, same = how in ("bank", "group"), how in ("bank", "group", "stack", "unit")
    rules: dict[tuple[str, str], int] = {}
    if same:
        rules[("ACT", "ACT")] = max(t["tRRD_S"], t["tRRD_L"] if close else 0)
        rules[("PRE", "PRE")] = t["tPPD"]
        rules[("RD", "WR")] = t["tRTW"]
        rules[("WR", "RD")] = write + max(t["tWTR_S"], t["tWTR_L"] if close else 0)
        apart = "tCCD_L" if close else "tCCD_S" if how == "stack" else "tCCD_R"
        rules[("RD", "RD")] = max(t[apart], t["tBL"])
        rules[("WR", "WR")] = max(t["tBL"], t[f"{apart}_WR"] if how != "unit" else 0)
    elif how == "bus":
        rules[("RD", "RD")] = t["tBL"] + t["tCS"]
        rules[("RD", "WR")] = max(t["tBL"] + t["tCS"], t["tRTW"])
        rules[("WR", "WR")] = t["tBL"]
        rules[("WR", "RD")] = max(write + t["tCS"] - t["tCL"], t["tBL"])
    found = rules.get((before, after), 0)
    return max(found, same_bank.get((before, after), 0)) if how == "bank" else found


def distances(card: Dram, per_clock: int) -> dict[tuple[str, str, str], int]:
    """Ticks between the starts of two commands, by how near their banks are; only those that are bound."""
    span = {name: round(card.spans[name] * per_clock) for name in SPANS}
    return {
        (how, before, after): apart * per_clock + span[before] - span[after]
        for how in ("bank", "group", "stack", "unit", "bus")
        for before in SPANS
        for after in SPANS
        if (apart := distance(card, how, before, after))
    }


def violations(card: Dram, commands: list[Command], per_clock: int, window: int = 4000) -> list[str]:
    """Pairs of commands of one channel that are closer than the standard allows."""
    bound, found = distances(card, per_clock), []
    span = {name: round(card.spans[name] * per_clock) for name in SPANS}
    span["ACT2"] = span["ACT"]
    places = {bank: bank_place(card, bank) for bank in {command[2] for command in commands}}
    nearness = {(a, b): near(places[a], places[b]) for a in places for b in places}
    activations: dict[tuple[int, int], deque[int]] = {}
    for index, (start, name, bank, _) in enumerate(commands):
        if name == "ACT":
            unit = (places[bank]["bus"], places[bank]["unit"])
            last = activations.setdefault(unit, deque(maxlen=4))
            if len(last) == 4 and start - last[0] < card.clocks["tFAW"] * per_clock:
                found.append(f"tFAW: {last[0]} to {start}")
            last.append(start)
        for before_start, before, before_bank, _ in reversed(commands[max(index - window, 0) : index]):
            passed = start - before_start
            if passed > 2000 * per_clock:
                break
            if passed < bound.get((nearness[before_bank, bank], before, name), 0):
                found.append(f"{before} at {before_start}, {name} at {start}")
            one_bus = card.buses == 1 or (before in ("RD", "WR")) == (name in ("RD", "WR"))
            if one_bus and passed < span[before]:
                found.append(f"command bus: {before} at {before_start}, {name} at {start}")
    return found


def row_violations(card: Dram, commands: list[Command], closes: bool) -> list[str]:
    """Column commands to rows that are not open, and activations of open banks."""
    units = card.organization["stacks"] * card.organization["bank_groups"] * card.organization["banks"]
    rows: dict[int, int] = {}
    found = []
    for start, name, bank, row in commands:
        if name == "ACT2":
            continue
        if name in ("RD", "WR") and not closes and rows.get(bank) != row:
            found.append(f"{name} of row {row} in bank {bank} at {start}, open is {rows.get(bank)}")
        if name == "ACT":
            if bank in rows and not closes:
                found.append(f"ACT of an open bank {bank} at {start}")
            rows[bank] = row
        if name == "PRE":
            rows.pop(bank, None)
        if name == "REF":
            for other in range(bank, bank + units):
                if other in rows and not closes:
                    found.append(f"REF with bank {other} open at {start}")
                rows.pop(other, None)
    return found


@dataclass
class Bank:
    """A bank of the reference."""

    place: dict[str, int]
    row: int | None = None
    awaited: bool = False
    used: int = 0
    ready: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("ACT", "PRE", "RD", "WR"), 0))


class Reference:
    """One channel, a tick at a time; every rule looked up among all pairs of banks."""

    def __init__(self, card: Dram, controller: ControllerFile, per_clock: int, outstanding: int = 0) -> None:
        self.card, self.controller, self.per, self.outstanding = card, controller, per_clock, outstanding
        o = card.organization
        count = o["pseudo_channels"] * o["ranks"] * o["stacks"] * o["bank_groups"] * o["banks"]
        self.banks = [Bank(bank_place(card, number)) for number in range(count)]
        self.span = {name: round(card.spans[name] * per_clock) for name in SPANS}
        self.bound = distances(card, per_clock)
        self.nearness = [[near(one.place, other.place) for other in self.banks] for one in self.banks]
        self.reads: list[dict[str, Any]] = []
        self.writes: list[dict[str, Any]] = []
        self.opened: list[dict[str, Any]] = []
        self.last_acts: dict[tuple[int, int], deque[int]] = {}
        self.half: tuple[int, int] | None = None  # the bank whose activation wants its second command, and until when
        self.clock_stops = 0
        self.drain, self.column_free, self.row_free = False, 0, 0
        self.pending: list[tuple[int, int]] = []
        self.units = list(product(range(o["pseudo_channels"]), range(o["ranks"])))
        self.read_numbers: set[int] = set()
        self.done: dict[int, int] = {}
        self.arrived: dict[int, int] = {}
        self.commands: list[Command] = []
        self.alone: dict[int, int] = {}

    def run(self, load: list[tuple[int, int, int, bool]]) -> None:
        """Serve bursts (bank, row, address, written) in their order."""
        waiting = deque(enumerate(load))
        self.read_numbers = {number for number, burst in enumerate(load) if not burst[3]}
        tick, every = 0, self.card.clocks["tREFI"] * self.per if self.controller.refresh == "all-bank" else NEVER
        self.admit(waiting, 0)
        while len(self.done) < len(load):
            tick += 1
            assert tick < 10**7
            if tick % every == 0:
                self.pending += self.units
            self.step(tick)
            self.admit(waiting, tick)

    def admit(self, waiting: deque[Any], tick: int) -> None:
        while waiting:
            number, (bank, row, address, write) = waiting[0]
            flying = sum(1 for one in self.arrived if one in self.read_numbers and self.done.get(one, NEVER) > tick)
            if self.outstanding and not write and flying >= self.outstanding:
                return
            if self.controller.forwarding and any(entry["address"] == address for entry in self.writes):
                self.done[number], self.arrived[number] = tick + 1, tick
                self.read_numbers.discard(number)  # answered at once, so not in flight
                waiting.popleft()
                continue
            queue = self.writes if write else self.reads
            if len(queue) >= (self.controller.write_queue if write else self.controller.read_queue):
                return
            queue.append({"number": number, "bank": bank, "row": row, "address": address, "write": write})
            self.arrived[number] = tick
            waiting.popleft()

    def step(self, tick: int) -> None:
        """What the controller does in one tick: on two buses a column and a row command, else one of any kind."""
        if self.card.buses == 2:
            self.pick(tick, ("RD", "WR"))
            self.pick(tick, ("ACT", "PRE", "REF"))
        else:
            self.pick(tick, ("ACT", "PRE", "RD", "WR", "REF"))

    def pick(self, tick: int, allowed: tuple[str, ...]) -> None:
        """Issue one of the ``allowed`` commands that can start now, if there is one."""
        if (self.half and tick >= self.half[1] and tick >= self.row_free) or (
            not self.pick_other(tick, allowed) and self.half and tick >= self.row_free
        ):
            self.second_half(tick)

    def second_half(self, tick: int) -> None:
        """An activation's second command."""
        assert self.half
        number, self.half = self.half[0], None
        for after in ("RD", "WR"):
            ready = self.banks[number].ready
            ready[after] = max(ready[after], tick + self.span["ACT"])
        self.commands.append((tick, "ACT2", number, -1))
        self.occupy(tick, "ACT")

    def pick_other(self, tick: int, allowed: tuple[str, ...]) -> bool:
        """Issue what is no second half of an activation; whether there was something."""
        for entry in sorted(self.opened, key=lambda entry: int(entry["number"])):
            command = "WR" if entry["write"] else "RD"
            if self.half and entry["bank"] == self.half[0]:
                continue
            if command in allowed and self.can(tick, command, entry["bank"]):
                self.opened.remove(entry)
                self.banks[entry["bank"]].awaited = False
                self.column(tick, command, entry)
                return True
        if self.pending:
            return self.refresh(tick, allowed)
        self.choose()
        queue = self.writes if self.drain else self.reads
        hits: set[int] = set()
        for entry in queue:
            bank = self.banks[entry["bank"]]
            if bank.row == entry["row"]:
                command = "WR" if self.drain else "RD"
                hits.add(entry["bank"])
            elif bank.row is None:
                command = "ACT"
            else:
                command = "PRE"
                protected = self.controller.scheduler == "frfcfs-hits" and entry["bank"] in hits
                if bank.awaited or protected:
                    continue
            if self.half and (entry["bank"] == self.half[0] or command == "ACT"):
                continue
            if command in allowed and self.can(tick, command, entry["bank"]):
                self.take(tick, command, entry, queue)
                return True
        return False

    def choose(self) -> None:
        """Whether writes drain."""
        size = self.controller.write_queue
        if not self.drain:
            self.drain = len(self.writes) > self.controller.drain_above * size + 1e-9 or not self.reads
        elif len(self.writes) < self.controller.drain_below * size - 1e-9 and self.reads:
            self.drain = False

    def can(self, tick: int, command: str, number: int) -> bool:
        """Whether a command to a bank may start in this tick."""
        if command != "PRE" and tick % self.per:
            return False
        column = command in ("RD", "WR")
        awake = self.card.clocks["tWCKPST"] * self.per
        if column and awake and tick - 1 >= self.clock_stops:
            return self.ready_since(tick - 1, command, number)  # a command that starts the data clock comes first
        if column and awake and tick >= self.clock_stops:
            return False
        return self.ready_since(tick, command, number)

    def ready_since(self, tick: int, command: str, number: int) -> bool:
        """Whether bus and bank would take a command."""
        column = command in ("RD", "WR")
        if tick < (self.column_free if column else self.row_free):
            return False
        return tick >= self.banks[number].ready.get(command, 0)

    def take(self, tick: int, command: str, entry: dict[str, Any], queue: list[dict[str, Any]]) -> None:
        bank = self.banks[entry["bank"]]
        if command == "PRE":
            bank.row = None
            self.note(tick, "PRE", entry["bank"], -1)
            return
        queue.remove(entry)
        if command == "ACT":
            bank.row, bank.used, bank.awaited = entry["row"], 0, True
            self.opened.append(entry)
            if self.card.clocks["tAAD"]:
                self.half = (entry["bank"], tick + self.card.clocks["tAAD"] * self.per)
            self.note(tick, "ACT", entry["bank"], entry["row"])
        else:
            self.column(tick, command, entry)

    def column(self, tick: int, command: str, entry: dict[str, Any]) -> None:
        t, bank = self.card.clocks, self.banks[entry["bank"]]
        done = tick + (t["tCL" if command == "RD" else "tCWL"] + t["tBL"]) * self.per
        self.done[entry["number"]] = done
        self.clock_stops = max(self.clock_stops, done + t["tWCKPST"] * self.per)
        row = bank.row
        self.note(tick, command, entry["bank"], row if row is not None else -1)
        bank.used += 1
        limit = self.controller.row_accesses or (1 if self.controller.page == "closed" else 0)
        if limit and bank.used >= limit and not bank.awaited:
            bank.row = None
            gap = distance(self.card, "bank", "PRE", "ACT") * self.per + self.span["PRE"] - self.span["ACT"]
            bank.ready["ACT"] = max(bank.ready["ACT"], bank.ready["PRE"] + gap)

    def refresh(self, tick: int, allowed: tuple[str, ...]) -> bool:
        """The first unit that waits: close its banks, then refresh."""
        bus, unit = self.pending[0]
        numbers = [n for n, b in enumerate(self.banks) if (b.place["bus"], b.place["unit"]) == (bus, unit)]
        banks = [self.banks[number] for number in numbers]
        if any(bank.awaited for bank in banks):
            return False
        opened = [bank for bank in banks if bank.row is not None]
        if opened:
            if "PRE" in allowed and tick >= self.row_free and all(tick >= bank.ready["PRE"] for bank in opened):
                for number in numbers:
                    if self.banks[number].row is not None:
                        self.banks[number].row = None
                        self.rules(tick, "PRE", number)
                self.occupy(tick, "PRE")
                self.commands.append((tick, "PRE", numbers[0], -1))
                return True
            return False
        own = [self.own_act(number) for number in numbers]
        if "REF" in allowed and not tick % self.per and tick >= max(self.row_free, *own):
            self.pending.pop(0)
            gap = self.card.clocks["tRFC"] * self.per + self.span["REF"] - self.span["ACT"]
            for bank in banks:
                bank.ready["ACT"] = max(bank.ready["ACT"], tick + gap)
            self.occupy(tick, "REF")
            self.commands.append((tick, "REF", numbers[0], -1))
            return True
        return False

    def own_act(self, number: int) -> int:
        """When a bank's own rules (tRC, tRP) would let it open again."""
        return self.alone.get(number, 0)

    def note(self, tick: int, command: str, number: int, row: int) -> None:
        self.commands.append((tick, command, number, row))
        self.rules(tick, command, number)
        self.occupy(tick, command)

    def occupy(self, tick: int, command: str) -> None:
        after = tick + self.span[command]
        if self.card.buses == 1:
            self.column_free = self.row_free = after
        elif command in ("RD", "WR"):
            self.column_free = after
        else:
            self.row_free, self.column_free = after, max(self.column_free, tick + 1)

    def rules(self, tick: int, command: str, number: int) -> None:
        """Move what may follow a command in all banks of its channel."""
        place = self.banks[number].place
        window = 0
        if command == "ACT":
            last = self.last_acts.setdefault((place["bus"], place["unit"]), deque(maxlen=4))
            last.append(tick)
            window = last[0] + self.card.clocks["tFAW"] * self.per if len(last) == 4 else 0
        for other, bank in enumerate(self.banks):
            how = self.nearness[number][other]
            for after in ("ACT", "PRE", "RD", "WR"):
                gap = self.bound.get((how, command, after), 0)
                if gap:
                    bank.ready[after] = max(bank.ready[after], tick + gap)
                    if after == "ACT" and how == "bank":
                        self.alone[other] = max(self.alone.get(other, 0), tick + gap)
            if how not in ("bus", "channel") and window:
                bank.ready["ACT"] = max(bank.ready["ACT"], window)
