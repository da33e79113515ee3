"""The YAML form of a DRAM card, see `hwsim.devices.dram.card`."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from hwsim.figures import FigureFile, Mark, SourceFile, Strict

Given: TypeAlias = str | float | FigureFile


class Section(Strict):
    """Figures of one kind with the mark and source of all that bring none of their own."""

    mark: Mark
    source: str


class OrganizationFile(Section):
    """Counts within one of the level above; ``width`` is of one pseudo-channel's data bus."""

    channels: Given | None = None
    pseudo_channels: Given | None = None
    ranks: Given | None = None
    stacks: Given | None = None
    bank_groups: Given | None = None
    banks: Given
    rows: Given
    columns: Given
    width: Given
    device_width: Given | None = None
    burst_length: Given


class TimingFile(Section):
    """Times between commands, in clocks where they bear no unit."""

    tCK: Given
    tCL: Given
    tCWL: Given
    tRCD: Given
    tRP: Given
    tRAS: Given
    tCCD_S: Given
    tRRD_S: Given
    tFAW: Given
    tWR: Given
    tWTR_S: Given
    tRTP: Given
    tBL: Given | None = None
    tRCD_WR: Given | None = None
    tRC: Given | None = None
    tCCD_L: Given | None = None
    tCCD_S_WR: Given | None = None
    tCCD_L_WR: Given | None = None
    tCCD_R: Given | None = None
    tRRD_L: Given | None = None
    tWTR_L: Given | None = None
    tRTW: Given | None = None
    tCS: Given | None = None
    tPPD: Given | None = None
    tRFC: Given | None = None
    tREFI: Given | None = None
    tRFCpb: Given | None = None
    tREFIpb: Given | None = None
    tRREFD: Given | None = None
    tWCKPST: Given | None = None
    tAAD: Given | None = None


class CommandsFile(Section):
    """Clocks that a command takes on its bus; two ``buses`` where rows and columns have one each."""

    buses: Given | None = None
    ACT: Given | None = None
    PRE: Given | None = None
    RD: Given | None = None
    WR: Given | None = None
    REF: Given | None = None


class EnergyFile(Section):
    """Currents of one device of a data sheet, or energies of what happens; and what a bit costs on the pins."""

    VDD: Given | None = None
    IDD0: Given | None = None
    IDD2N: Given | None = None
    IDD3N: Given | None = None
    IDD4R: Given | None = None
    IDD4W: Given | None = None
    IDD5B: Given | None = None
    IDD5PB: Given | None = None
    bank_share: Given | None = None
    activate: Given | None = None
    read: Given | None = None
    write: Given | None = None
    refresh: Given | None = None
    refresh_bank: Given | None = None
    active: Given | None = None
    idle: Given | None = None
    io: Given | None = None


class ControllerFile(Strict):
    """How a channel's controller orders commands; every key is also an option of `hwsim dram bench`. Queues of which a
    card says nothing have 32 places for each pseudo-channel."""

    read_queue: int = Field(default=32, ge=1, le=4096)
    write_queue: int = Field(default=32, ge=1, le=4096)
    drain_above: float = Field(default=0.8, ge=0, le=1)
    drain_below: float = Field(default=0.2, ge=0, le=1)
    scheduler: Literal["frfcfs", "frfcfs-hits"] = "frfcfs"
    page: Literal["open", "closed"] = "open"
    row_accesses: int = Field(default=0, ge=0)
    refresh: Literal["all-bank", "per-bank", "none"] = "all-bank"
    mapping: str = "RoBaRaCoCh"
    forwarding: bool = True


class DramFile(Strict):
    """The YAML form of a DRAM card."""

    dram: str
    title: str
    standard: str
    sources: dict[str, SourceFile]
    organization: OrganizationFile
    timing: TimingFile
    commands: CommandsFile | None = None
    energy: EnergyFile | None = None
    controller: ControllerFile = ControllerFile()
