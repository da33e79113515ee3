"""The answer of a run in fio's shape and words, with what fio cannot see: flash, energy, wear, who was busy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.devices.storage.analytic import Answer
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.simulate import Outcome, latencies
from hwsim.devices.storage.state import TICKS, Ints, K, M, N
from hwsim.devices.storage.things import Ch, Log, Op

PERCENTILES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99)


def report(outcome: Outcome, load: Load, answer: Answer | None) -> dict[str, Any]:
    """All figures of a run; nanoseconds where fio has them, else SI units."""
    log = outcome.log
    first, last = (int(len(log) * part) for part in outcome.window)
    steady = log[first:last] if last > first else log
    before = log[first - 1, Log.DONE] if 0 < first < last else 0
    seconds = max(1, int(steady[-1, Log.DONE] - before)) / TICKS
    mean = float((steady[:, Log.DONE] - steady[:, Log.ARRIVED]).mean()) / TICKS
    iops = len(steady) / seconds
    return {
        "drive": outcome.drive.name,
        "rw": load.rw,
        "bs": load.bs,
        "iodepth": load.iodepth,
        "numjobs": load.numjobs,
        "number_ios": len(log),
        "precondition": load.prepared(outcome.drive),
        "simulated_blocks": outcome.scale,
        "simulated": simulated(outcome),
        "runtime_s": outcome.seconds,
        "iops": iops,
        "bw_bytes": float(steady[:, Log.BYTES].sum()) / seconds,
        "lat_mean_s": mean,
        "window": list(outcome.window),
        "jobs": [{"jobname": load.rw, **{op.name.lower(): side(steady, op, seconds) for op in Op}}],
        "errors": int((log[:, Log.OP] >> 8 > 0).sum()),
        "flash": flash(outcome),
        "endurance": endurance(outcome),
        "energy": energy(outcome),
        "utilisation": outcome.utilisation(),
        "analytic": analytic(answer, iops) if answer else None,
    }


def simulated(outcome: Outcome) -> dict[str, int]:
    """How many blocks of a plane and pages of a block are simulated, and of how many."""
    span, nand = outcome.span, outcome.drive.nand
    return {"blocks": span.blocks, "of_blocks": nand.blocks, "pages": span.pages, "of_pages": nand.pages}


def side(log: Ints, op: Op, seconds: float) -> dict[str, Any]:
    """fio's block of one direction."""
    waited, served, both = latencies(log, op)
    count = len(served)
    nbytes = int(log[(log[:, Log.OP] & 255) == op, Log.BYTES].sum())
    return {
        "total_ios": count,
        "io_bytes": nbytes,
        "runtime_s": seconds,
        "iops": count / seconds,
        "bw_bytes": nbytes / seconds,
        "slat_ns": spread(waited),
        "clat_ns": {**spread(served), "percentile": percentiles(served)},
        "lat_ns": spread(both),
    }


def spread(times: NDArray[np.float64]) -> dict[str, float]:
    """Least, largest, mean and standard deviation in nanoseconds."""
    if not len(times):
        return {"min": 0.0, "max": 0.0, "mean": 0.0, "stddev": 0.0}
    ns = times * 1e9
    return {"min": float(ns.min()), "max": float(ns.max()), "mean": float(ns.mean()), "stddev": float(ns.std())}


def percentiles(times: NDArray[np.float64]) -> dict[str, float]:
    """fio's percentiles in nanoseconds."""
    if not len(times):
        return {}
    found = np.percentile(times, PERCENTILES, method="inverted_cdf") * 1e9
    return {f"{name:f}": float(value) for name, value in zip(PERCENTILES, found, strict=True)}


def flash(outcome: Outcome) -> dict[str, Any]:
    """What the flash did; write amplification is programmed over written mapping units, padding included.

    A second figure has what was programmed of the mapping table as well.
    """
    count = outcome.count
    written = count(N.HOST_SLOTS) + count(N.REWRITTEN)
    programmed = count(N.HOST_SLOTS) + count(N.GC_SLOTS) + count(N.PADDED_SLOTS)
    unit = outcome.drive.ftl.mapping_unit
    table = count(N.MAP_PROGRAMS) * outcome.drive.nand.page / unit
    return {
        "write_amplification": programmed / written if written else None,
        "write_amplification_with_map": (programmed + table) / written if written else None,
        "write_amplification_steady": _steady(outcome),
        "host_write_bytes": written * unit,
        "collected_bytes": count(N.GC_SLOTS) * unit,
        "padded_bytes": count(N.PADDED_SLOTS) * unit,
        "rewritten_in_cache_bytes": count(N.REWRITTEN) * unit,
        "trimmed_bytes": count(N.TRIMMED) * unit,
        "pages_read": count(N.READS),
        "rows_programmed": count(N.PROGRAMS),
        "blocks_erased": count(N.ERASES),
        "read_commands": count(N.READ_COMMANDS),
        "program_commands": count(N.PROGRAM_COMMANDS),
        "erase_commands": count(N.ERASE_COMMANDS),
        "update_reads": count(N.UPDATE_READS),
        "collection_reads": count(N.GC_READS),
        "map_reads": count(N.MAP_READS),
        "map_writes": count(N.MAP_WRITES),
        "map_programs": count(N.MAP_PROGRAMS),
        "collections": count(N.COLLECTIONS),
        "levellings": count(N.LEVELLINGS),
        "retired_blocks": count(N.RETIRED),
        "read_retries": count(N.RETRIES),
        "uncorrectable": count(N.UNCORRECTABLE),
        "suspensions": count(N.SUSPENSIONS),
        "cache_hits": count(N.BUFFER_HITS),
        # The last write that waited for the cache is remembered after it was let in.
        "cache_took_all": bool(outcome.state[K.BUFFERED] and written and not outcome.state[M.WAIT_TAIL]),
    }


def _steady(outcome: Outcome) -> float | None:
    """Write amplification within the window of the rates."""
    counts = outcome.steady
    written = counts[N.HOST_SLOTS - N.READS] + counts[N.REWRITTEN - N.READS]
    programmed = sum(int(counts[name - N.READS]) for name in (N.HOST_SLOTS, N.GC_SLOTS, N.PADDED_SLOTS))
    return float(programmed / written) if written else None


def endurance(outcome: Outcome) -> dict[str, float | None]:
    """What the drive can take, and what of that this load takes.

    Bytes that the host can write in the drive's life = capacity of the flash x program/erase cycles / amplification,
    programs of the mapping table included.
    """
    drive, facts = outcome.drive, flash(outcome)
    waf = facts["write_amplification_with_map"]
    total = drive.nand.capacity * drive.nand.endurance
    written = facts["host_write_bytes"]
    rate = written / outcome.seconds
    return {
        "cycles": drive.nand.endurance,
        "writable_bytes": total / waf if waf else None,
        "life_s": total / waf / rate if waf and rate else None,
        "erases_per_block": facts["blocks_erased"] / (drive.groups * outcome.span.blocks),
    }


def energy(outcome: Outcome) -> dict[str, float | bool]:
    """Joules by part: operations x energies of the card, bytes x energies, power x time, or time with work to do.

    They are zero and not ``modelled`` where the card has no energies.
    """
    drive, count, state = outcome.drive, outcome.count, outcome.state
    costs = drive.energy
    pages = drive.width * drive.row_pages
    channels = state[state[K.CHANNELS_AT] :][: int(state[K.CHANNELS]) * Ch.SIZE].reshape(-1, Ch.SIZE)
    parts = {
        "read_j": count(N.READS) * costs.read,
        "program_j": (count(N.PROGRAMS) * pages + count(N.MAP_PROGRAMS)) * costs.program,
        "erase_j": count(N.ERASES) * drive.width * costs.erase,
        "bus_j": float(channels[:, Ch.BYTES].sum()) * costs.bus,
        "dram_j": count(N.DRAM_BYTES) * costs.dram,
        "link_j": float(outcome.log[:, Log.BYTES].sum()) * costs.link,
        "idle_j": costs.idle * outcome.seconds,
        "active_j": costs.active * working(outcome.log),
    }
    total = sum(parts.values())
    nbytes = float(outcome.log[:, Log.BYTES].sum())
    return {
        **parts,
        "modelled": any(astuple(costs)),
        "total_j": total,
        "power_w": total / outcome.seconds,
        "j_per_byte": total / nbytes,
        "j_per_request": total / len(outcome.log),
    }


def working(log: Ints) -> float:
    """Seconds in which at least one request was in flight."""
    order = np.argsort(log[:, Log.SENT], kind="stable")
    sent, done = log[order, Log.SENT], np.maximum.accumulate(log[order, Log.DONE])
    idle = np.maximum(0, sent[1:] - done[:-1]).sum()
    return float(done[-1] - sent[0] - idle) / TICKS


def analytic(answer: Answer, iops: float) -> Mapping[str, Any]:
    """The formulas' answer beside the simulated one."""
    return {
        "iops": answer.iops,
        "bw_bytes": answer.bandwidth,
        "lat_mean_s": answer.latency,
        "bound": answer.bound,
        "write_amplification": answer.write_amplification,
        "difference": answer.iops / iops - 1,
    }
