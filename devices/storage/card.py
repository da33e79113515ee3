"""A drive's card: its datasheet as YAML, every figure with its source, found by name or by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from importlib.resources.abc import Traversable
from math import inf
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from hwsim.card import Places, changed, check_figures, figures_in
from hwsim.devices.storage.drive import Bus, Cache, Drive, Energy, Engine, Ftl, Mechanics, Nand, Nvme, Pcie
from hwsim.errors import CardError, InputError, Problem, UnknownNameError
from hwsim.figures import Bytes, Count, Figure, Joules, PerByte, Rate, Seconds, SourceFile, Strict, Watts
from hwsim.registry import data_files
from hwsim.yamlfile import load_yaml, validate

Page: TypeAlias = Literal["lower", "middle", "upper", "top"]

BITS = {"slc": 1, "z-nand": 1, "mlc": 2, "tlc": 3, "qlc": 4}
LANES = {1: 0.25e9, 2: 0.5e9, 3: 8e9 * 128 / 130 / 8, 4: 16e9 * 128 / 130 / 8, 5: 32e9 * 128 / 130 / 8, 6: 7.5625e9}
"""Bytes per second of a PCIe lane after its line code, by generation."""
WHOLE = ("channels", "chips", "dies", "planes", "blocks", "pages", "lanes", "cores", "queue_pairs", "queue_depth")
MOST = 2**31
LIMITS = {"s": (0.0, 1000.0, "at most 1000 s"), "B/s": (1e6, 1e18, "from 1 MB/s to 1 EB/s")}  # of the clock


class SuspendFile(Strict):
    """Commands that give way to reads."""

    programs: bool = False
    erases: bool = False
    time: Seconds
    least: Seconds


class RetryFile(Strict):
    """Pages that are read again."""

    rate: Count
    time: Seconds
    uncorrectable: Count


class NandFile(Strict):
    """The flash."""

    cell: Literal["slc", "z-nand", "mlc", "tlc", "qlc"]
    channels: Count
    chips: Count
    dies: Count
    planes: Count
    blocks: Count
    pages: Count
    page: Bytes
    codeword: Bytes
    read: dict[Page, Seconds] = Field(min_length=1)
    program: dict[Page, Seconds] = Field(min_length=1)
    erase: Seconds
    endurance: Count
    one_shot: bool = False
    ganged_planes: bool = False
    independent_planes: bool = False
    cache_read: bool = False
    suspend: SuspendFile | None = None
    retry: RetryFile | None = None


class BusFile(Strict):
    """A channel."""

    bandwidth: Rate
    read: Seconds
    program: Seconds
    erase: Seconds
    further_read: Seconds
    further_program: Seconds
    further_erase: Seconds


class CollectionFile(Strict):
    """Garbage collection."""

    policy: Literal["greedy", "random-greedy", "cost-benefit", "fifo"]
    choices: Count | None = None
    start: Count
    reserve: Count
    victims: Count


class MappingCacheFile(Strict):
    """Where only a part of the table is in the drive's memory."""

    size: Bytes
    entry: Bytes
    line: Count
    stored: Bytes


class FtlFile(Strict):
    """The translation layer."""

    mapping_unit: Bytes
    over_provisioning: Count
    allocation: str
    static: bool = False
    collection: CollectionFile
    levelling: Count | None = None
    mapping_cache: MappingCacheFile | None = None


class CacheFile(Strict):
    """The write cache."""

    capacity: Bytes
    bandwidth: Rate
    latency: Seconds
    underway: Bytes | None = None
    row: Bytes | None = None
    precharge: Seconds | None = None
    keep: Seconds | None = None


class NvmeFile(Strict):
    """Queues and firmware."""

    queue_pairs: Count
    queue_depth: Count
    cores: Count
    read_time: Seconds
    write_time: Seconds
    read_latency: Seconds
    write_latency: Seconds


class PcieFile(Strict):
    """The host link; the rate of a lane follows from the generation unless it is given."""

    generation: Count | None = None
    lane_bandwidth: Rate | None = None
    lanes: Count
    payload: Bytes
    overhead: Bytes


class EnergyFile(Strict):
    """Energies of operations and bytes, powers."""

    read: Joules
    program: Joules
    erase: Joules
    bus: PerByte
    dram: PerByte
    link: PerByte
    idle: Watts
    active: Watts


class EngineFile(Strict):
    """An engine beside the channels."""

    dma_bandwidth: Rate


class MechanicsFile(Strict):
    """Simplifications and defects of other simulators."""

    chip_serial: bool = False
    data_before_commands: bool = False
    truncated_bus: bool = False
    unwritten_reads: bool = False
    collection_first: bool = False
    whole_page_moves: bool = False
    halved_dram_rows: bool = False
    shadow_pages: bool = False
    unserved_map_writes: bool = False
    open_map_block: bool = False


class DriveFile(Strict):
    """The YAML form of a drive's card."""

    drive: str
    title: str
    released: int | None = None
    sources: dict[str, SourceFile]
    nand: NandFile
    bus: BusFile
    ftl: FtlFile
    cache: CacheFile | None = None
    nvme: NvmeFile
    pcie: PcieFile
    energy: EnergyFile
    mechanics: MechanicsFile = MechanicsFile()
    engine: EngineFile | None = None


def drive_names() -> tuple[str, ...]:
    """Names of the shipped drives."""
    return tuple(sorted(data_files("hwsim.devices", "storage/cards")))


def load_drive(name: str | Path, changes: Mapping[str, object] | None = None) -> Drive:
    """The drive of a shipped card (by name) or of a card file (by path).

    ``changes`` are what-if figures by dotted path: ``{"nand.channels": 16, "bus.bandwidth": "2.4 GB/s"}``.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.parent != Path():
        return read_drive(path, changes)
    shipped = data_files("hwsim.devices", "storage/cards")
    if str(name) not in shipped:
        raise UnknownNameError("drive", str(name), shipped)
    return read_drive(shipped[str(name)], changes)


def read_drive(source: Path | Traversable | str, changes: Mapping[str, object] | None = None) -> Drive:
    """Read a drive's card (or its text); `CardError` names file, line and field of all that is wrong."""
    where = "<text>" if isinstance(source, str) else str(source)
    try:
        data, marks = load_yaml(source)
    except InputError as error:
        raise CardError(*error.problems) from None
    if not isinstance(data, dict):
        raise CardError(Problem("a drive's card is a mapping", where))
    places = Places(where, marks)
    data.setdefault("mechanics", {})  # so that each can be changed by its path
    file = validate(DriveFile, changed(data, changes or {}), marks, where, CardError)
    check_figures(file, file.sources, places)
    _check(file, places)
    return _drive(file)


def _check(file: DriveFile, places: Places) -> None:
    """What the parts say of each other is possible."""
    problems = []
    for path, figure in figures_in(file):
        if path.rpartition(".")[2] in WHOLE and not (figure.value.is_integer() and 1 <= figure.value < MOST):
            spot = places.problem(tuple(path.split(".")), "must be a whole number from 1")
            problems.append(replace(spot, got=f"{figure.value:g}"))
        least, most, expected = LIMITS.get(figure.unit, (0.0, inf, ""))
        if not least <= figure.value <= most:
            spot = places.problem(tuple(path.split(".")), f"must be {expected}")
            problems.append(replace(spot, got=f"{figure.value:g} {figure.unit}"))
    for holds, path, message in (*_nand_rules(file.nand), *_other_rules(file)):
        if not holds:
            problems.append(places.problem(tuple(path.split(".")), f"must be {message}"))
    if problems:
        raise CardError(*problems)


def _nand_rules(nand: NandFile) -> Iterator[tuple[bool, str, str]]:
    """What must hold, where, and what is valid."""
    page, part, bits = _value(nand.page), max(1.0, _value(nand.codeword)), BITS[nand.cell]
    yield page > 0 and page % 512 == 0, "nand.page", "a multiple of 512 bytes"
    yield _value(nand.codeword) >= 1 and page % part == 0, "nand.codeword", "a part of the page"
    yield not nand.one_shot or _value(nand.pages) % bits == 0, "nand.pages", f"a multiple of {bits}: pages of a cell"
    yield len(nand.read) in (1, bits), "nand.read", f"one time, or {bits}: one per page of a cell"
    programs = (1,) if nand.one_shot else (1, bits)
    yield len(nand.program) in programs, "nand.program", f"{' or '.join(map(str, programs))} times"
    yield _value(nand.planes) < 64, "nand.planes", "below 64"
    yield _value(nand.endurance) >= 1, "nand.endurance", "at least 1"


def _other_rules(file: DriveFile) -> Iterator[tuple[bool, str, str]]:
    page, ftl, pcie = _value(file.nand.page), file.ftl, file.pcie
    unit = _value(ftl.mapping_unit)
    fits = 0 < unit <= 32768 and unit % 512 == 0 and page % unit == 0
    yield fits, "ftl.mapping_unit", "a multiple of 512 bytes up to 32 KiB that divides the page"
    yield sorted(ftl.allocation) == list("CDPW"), "ftl.allocation", "an order of C, W, D and P, such as CWDP"
    yield 0 <= _value(ftl.over_provisioning) < 1, "ftl.over_provisioning", "a share from 0 to below 1"
    yield _value(ftl.collection.victims) >= 1, "ftl.collection.victims", "at least 1"
    yield 0 <= _value(ftl.collection.start) <= 1, "ftl.collection.start", "a share from 0 to 1"
    yield (pcie.generation is None) != (pcie.lane_bandwidth is None), "pcie", "given a generation or a lane_bandwidth"
    yield pcie.generation is None or _value(pcie.generation) in LANES, "pcie.generation", "1 to 6"
    yield 1 <= _value(pcie.payload) <= 4096, "pcie.payload", "from one byte to 4096, as PCI Express has it"
    yield _value(pcie.overhead) <= 4096, "pcie.overhead", "at most 4096 bytes"
    if file.cache is not None:
        rows = 2 * page * (BITS[file.nand.cell] if file.nand.one_shot else 1)
        rows *= _value(file.nand.planes) if file.nand.ganged_planes else 1
        for name in ("capacity", "underway"):
            fits = _value(getattr(file.cache, name), rows) >= rows
            yield fits, f"cache.{name}", f"at least {rows:g} bytes: two program commands"
    if file.nand.retry is not None:
        rates = _value(file.nand.retry.rate) + _value(file.nand.retry.uncorrectable)
        yield rates <= 1, "nand.retry.rate", "at most 100 % with the uncorrectable share"


def _value(figure: object, default: float = 0.0) -> float:
    return figure.value if isinstance(figure, Figure) else default


def _whole(figure: object, default: float = 0.0) -> int:
    return round(_value(figure, default))


def _drive(file: DriveFile) -> Drive:
    pcie, power = file.pcie, file.energy
    lane = _value(pcie.lane_bandwidth) or LANES[_whole(pcie.generation)]
    figures = {name: _value(getattr(power, name)) for name in (field.name for field in fields(Energy))}
    engine = file.engine
    return Drive(
        name=file.drive,
        title=file.title,
        nand=_nand(file.nand),
        bus=Bus(**{field.name: _value(getattr(file.bus, field.name)) for field in fields(Bus)}),
        ftl=_ftl(file.ftl),
        cache=_cache(file.cache),
        nvme=_nvme(file.nvme),
        pcie=Pcie(_whole(pcie.lanes), lane, _whole(pcie.payload), _whole(pcie.overhead)),
        energy=Energy(**figures),
        mechanics=Mechanics(**file.mechanics.model_dump()),
        engine=Engine(_value(engine.dma_bandwidth)) if engine else None,
        figures=dict(figures_in(file)),
        sources={key: source.title for key, source in file.sources.items()},
    )


def _by_page(times: Mapping[Page, object]) -> tuple[float, ...]:
    return tuple(_value(times[page]) for page in ("lower", "middle", "upper", "top") if page in times)


def _nand(file: NandFile) -> Nand:
    suspend, retry = file.suspend, file.retry
    return Nand(
        cell=file.cell,
        channels=_whole(file.channels),
        chips=_whole(file.chips),
        dies=_whole(file.dies),
        planes=_whole(file.planes),
        blocks=_whole(file.blocks),
        pages=_whole(file.pages),
        page=_whole(file.page),
        reads=_by_page(file.read),
        programs=_by_page(file.program),
        erase=_value(file.erase),
        endurance=_value(file.endurance),
        bits=BITS[file.cell],
        codeword=_whole(file.codeword),
        one_shot=file.one_shot,
        ganged_planes=file.ganged_planes,
        independent_planes=file.independent_planes,
        cache_read=file.cache_read,
        suspend_programs=bool(suspend and suspend.programs),
        suspend_erases=bool(suspend and suspend.erases),
        suspend=_value(suspend.time) if suspend else 0.0,
        suspend_least=_value(suspend.least) if suspend else 0.0,
        retry_rate=_value(retry.rate) if retry else 0.0,
        retry=_value(retry.time) if retry else 0.0,
        uncorrectable_rate=_value(retry.uncorrectable) if retry else 0.0,
    )


def _ftl(file: FtlFile) -> Ftl:
    collection, mapping = file.collection, file.mapping_cache
    return Ftl(
        mapping_unit=_whole(file.mapping_unit),
        over_provisioning=_value(file.over_provisioning),
        allocation=file.allocation,
        static=file.static,
        policy=collection.policy,
        choices=_whole(collection.choices),
        start=_value(collection.start),
        reserve=_whole(collection.reserve),
        victims=_whole(collection.victims),
        levelling=_whole(file.levelling),
        mapping_cache=_whole(mapping.size) if mapping else 0,
        mapping_entry=_whole(mapping.entry) if mapping else 8,
        mapping_line=_whole(mapping.line) if mapping else 1,
        mapping_stored=_whole(mapping.stored) if mapping else 4,
    )


def _cache(file: CacheFile | None) -> Cache:
    if file is None:
        return Cache(0, 0.0, 0.0, 0)
    return Cache(
        capacity=_whole(file.capacity),
        bandwidth=_value(file.bandwidth),
        latency=_value(file.latency),
        underway=_whole(file.underway),
        row=_whole(file.row),
        precharge=_value(file.precharge),
        keep=_value(file.keep),
    )


def _nvme(file: NvmeFile) -> Nvme:
    return Nvme(
        queue_pairs=_whole(file.queue_pairs),
        queue_depth=_whole(file.queue_depth),
        cores=_whole(file.cores),
        read_time=_value(file.read_time),
        write_time=_value(file.write_time),
        read_latency=_value(file.read_latency),
        write_latency=_value(file.write_latency),
    )
