"""Random task tables: streams of tasks that share engines and bandwidths and wait for each other."""

from __future__ import annotations

from hypothesis import strategies as st

from hwsim.cost import Cost
from hwsim.events.table import NO_ENGINE, Region, Table, Task
from hwsim.mapper import Wait

STREAMS, ENGINES, RESOURCES = 4, 2, 3

# Whole numbers make tasks end together, others keep them apart.
durations = st.one_of(st.integers(1, 6).map(float), st.floats(0.01, 10.0))
shares = st.one_of(st.sampled_from([1.0, 0.5, 0.25]), st.floats(0.01, 1.0))


@st.composite
def tasks(draw, number: int, region: Region):
    """A task of ``region`` that may wait for earlier tasks, or for any of its region in earlier iterations."""
    engine = draw(st.sampled_from([NO_ENGINE, NO_ENGINE, *range(ENGINES)]))
    resources = draw(st.lists(st.integers(0, RESOURCES - 1), max_size=2, unique=True))
    seconds = draw(st.one_of(st.just(0.0), durations))
    waits = draw(st.lists(st.integers(0, number - 1).map(Wait), max_size=2)) if number else []
    if region.count > 1:
        inside = st.integers(region.start, region.stop - 1)
        waits += draw(st.lists(st.builds(Wait, inside, st.integers(1, 3)), max_size=2))
    return Task(
        name=f"t{number}",
        step=number,
        stream=draw(st.integers(0, STREAMS - 1)),
        rank=draw(st.integers(0, 2)),
        engine=engine,
        latency=draw(st.one_of(st.just(0.0), durations)) if engine == NO_ENGINE else 0.0,
        seconds=seconds,
        rate=draw(durations),
        uses=tuple((resource, draw(shares)) for resource in resources) if seconds else (),
        waits=tuple(dict.fromkeys(waits)),
    )


@st.composite
def tables(draw, longest: int = 12):
    """A table of up to three regions, of which any may repeat up to ``longest`` times."""
    regions, place = [], 0
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 4))
        regions.append(Region(place, place + size, draw(st.one_of(st.just(1), st.integers(1, longest)))))
        place += size
    made = tuple(draw(tasks(number, region)) for region in regions for number in range(region.start, region.stop))
    names = [
        tuple(f"{kind}{i}" for i in range(count)) for kind, count in (("s", STREAMS), ("e", ENGINES), ("r", RESOURCES))
    ]
    return Table(made, tuple(regions), *names, costs=(Cost(),) * place)
