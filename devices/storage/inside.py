"""How fast a drive's flash is for what computes beside it, and for what reads it over the link: by access size."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

from hwsim.devices.storage.drive import Drive


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes per second of data by the size of an access, reads and writes."""

    drive: Drive

    def inside(self, granule: float, write: bool = False) -> float:
        """At the engine: channels and dies, and the engine's own way to them."""
        rate = self._written() if write else self._read(granule)
        engine = self.drive.engine
        return min(rate, engine.dma_bandwidth) if engine is not None else rate

    def outside(self, granule: float, write: bool = False) -> float:
        """At the host, or at a peer behind the link: no faster than the link or the firmware's cores."""
        drive, nvme = self.drive, self.drive.nvme
        rate = self._written() if write else self._read(granule)
        time = nvme.write_time if write else nvme.read_time
        commands = nvme.cores / time if time else inf
        return min(rate, drive.pcie.data_bandwidth, commands * granule if granule else inf)

    def _read(self, granule: float) -> float:
        """Pieces of pages: a channel is busy with command and codewords, a die with the array as well.

        rate = piece / max(channel time / channels, die time / dies), with the share of pages that are read again.
        """
        nand, bus = self.drive.nand, self.drive.bus
        piece = min(granule, nand.page) if granule else nand.page
        moved = ceil(piece / nand.codeword) * nand.codeword * self.drive.byte_seconds
        array = sum(nand.reads) / len(nand.reads) + nand.retry_rate * nand.retry
        together = 1 if nand.independent_planes or 0 < granule <= nand.page else nand.planes
        command = (bus.read + (together - 1) * bus.further_read) / together
        channel = (command + moved) / nand.channels
        # Planes that read by one command begin again when the last page of them all has left.
        die = command + array / together + (0.0 if nand.cache_read else moved)
        at_once = nand.planes if nand.independent_planes else 1
        return float(piece / max(channel, die / (self.drive.luns * at_once)))

    def _written(self) -> float:
        """Rows, one after the other: rate = row / max(channel time / channels, die time / dies)."""
        drive, nand, bus = self.drive, self.drive.nand, self.drive.bus
        command = drive.row_pages * (bus.program + (drive.width - 1) * bus.further_program)
        data = command + drive.row * drive.byte_seconds
        program = sum(nand.programs) / len(nand.programs)
        return drive.row / max(data / nand.channels, (data + program) / drive.luns)
