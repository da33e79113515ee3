"""Conformance suite for hardware and mappers, ours or a stranger's: what must hold whatever they model.

    from hwsim.testing import check_device, check_mapper
    assert check_device(load_device("my-card.yaml")) == []

Each check returns the problems it found as sentences; none means sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import isfinite

from hwsim.card import Card
from hwsim.device import Device, Replay, timed
from hwsim.errors import DoesNotFitError, HwsimError
from hwsim.graph import Attribute, Graph, Kind, Op, Repeat, Role, Tensor
from hwsim.kernel_spec import spec_kernel
from hwsim.liveness import usage
from hwsim.mapper import Flow, Kernel, Mapper, Policy, Schedule
from hwsim.system import System, system_of
from hwsim.testing_transfers import transfer_problems
from hwsim.work import work_of

SLACK = 1e-9  # relative, for sums in another order
FORMATS = ("bf16", "fp16", "int8", "fp32")
GROWING = {
    "matmul": ("m", "n", "k", "batch"),
    "softmax": ("rows", "cols"),
    "rmsnorm": ("rows", "cols"),
    "sum": ("rows",),
    "cumsum": ("cols",),
    "transpose_copy": ("rows", "cols"),
    "gelu": ("numel",),
    "add": ("numel",),
    "embedding": ("tokens", "dim"),
    "attention_prefill": ("batch", "q_len", "kv_len"),
    "attention_decode": ("batch", "kv_len"),
    "conv2d": ("n", "o"),
    "chunk_gla": ("batch", "tokens"),
    "recurrent_gated_delta_rule": ("batch", "heads"),
    "copy_d2d": ("bytes",),
}
"""Fields in which more work must not take less time, when doubled. Longer rows of a sum may: libraries share them among
more threads (of 64 rows on an H200, 4,096 columns are predicted to take 5.5 us, 8,192 to take 2.6). So may two rows of
a running sum, which take another kernel than a single one (1 x 16 took 3.1 us on an H200, 2 x 21 took 1.8)."""

Spec = dict[str, object]


def check_device(device: Device) -> list[str]:
    """Problems of ``device``: costs finite, positive and repeatable, never below the roofline of its card, growing
    with the work; no byte lost; clear errors about memories that are not there."""
    problems: list[str] = []
    for spec in sample_specs(device.card):
        kernel = spec_kernel(spec, device)
        problems += [f"{spec}: {problem}" for problem in _kernel_problems(device, kernel)]
        problems += [f"{spec}: {problem}" for problem in _growth_problems(device, spec)]
    return problems + list(_memory_problems(device))


def check_mapper(mapper: Mapper, device: Device, graphs: Sequence[Graph] = ()) -> list[str]:
    """Problems of ``mapper`` on ``device``: work and weights conserved, all that is resident counted and placed in
    known memories within their capacity, read where it is or comes to, by transfers that have a way and waits that end;
    an error where a graph does not fit. ``graphs`` are bound; default: samples.
    """
    problems: list[str] = []
    for graph in graphs or sample_graphs():
        schedule = mapper.schedule(graph, device, Policy())
        problems += [f"{graph.name}: {problem}" for problem in _schedule_problems(graph, schedule, system_of(device))]
        problems += [f"{graph.name}: {problem}" for problem in _fit_problems(mapper, graph, device)]
        if mapper.schedule(graph, device, Policy()) != schedule:
            problems.append(f"{graph.name}: a second schedule differs from the first")
    return problems


def sample_specs(card: Card) -> Iterator[Spec]:
    """Kernels of the interchange, small and large, in the formats that ``card`` calculates in."""
    formats = [fmt for fmt in FORMATS if fmt in card.matmul or fmt in card.vector] or ["fp32"]
    for fmt in formats:
        for m, n, k in ((1, 64, 64), (16, 4096, 128), (256, 256, 4096), (2048, 2048, 2048), (100, 52, 36)):
            yield {"op": "matmul", "m": m, "n": n, "k": k, "batch": 1, "dtype": fmt}
        for causal in (False, True):
            heads = {"batch": 2, "heads": 8, "kv_heads": 2, "head_dim": 64}
            yield {"op": "attention_prefill", **heads, "q_len": 512, "kv_len": 1024, "causal": causal, "dtype": fmt}
        yield {
            "op": "attention_decode",
            "batch": 4,
            "heads": 32,
            "kv_heads": 8,
            "head_dim": 128,
            "kv_len": 2048,
            "dtype": fmt,
        }
    fmt = formats[0]
    for op in ("softmax", "rmsnorm", "sum", "cumsum", "transpose_copy"):
        for rows, cols in ((1, 64), (64, 4096), (8192, 1024)):
            yield {"op": op, "rows": rows, "cols": cols, "dtype": fmt}
    for op in ("gelu", "add"):
        for numel in (1, 65536, 2**24):
            yield {"op": op, "numel": numel, "dtype": fmt}
    yield {"op": "embedding", "vocab": 32000, "dim": 1024, "tokens": 64, "dtype": fmt}
    space = {"h": 28, "w": 28, "k": 3, "stride": 1, "padding": 1, "layout": "nhwc"}
    for groups in (1, 64):
        yield {"op": "conv2d", "n": 4, "c": 64, "o": 128, "groups": groups, "dtype": fmt, **space}
    sizes = {"batch": 2, "heads": 16, "d_k": 64, "d_v": 64, "dtype": fmt}
    yield {"op": "chunk_gla", **sizes, "tokens": 1024, "pass_": "fwd"}
    yield {"op": "recurrent_gated_delta_rule", **sizes, "tokens": 1, "pass_": "decode"}
    for nbytes in (1, 2**20, 2**28):
        yield {"op": "copy_d2d", "bytes": nbytes}


def _kernel_problems(device: Device, kernel: Kernel) -> Iterator[str]:
    cost = device.estimate(kernel)
    if not (isfinite(cost.seconds) and cost.seconds > 0):
        yield f"takes {cost.seconds} s"
        return
    if not (isfinite(cost.joules) and cost.joules >= 0):
        yield f"takes {cost.joules} J"
    roof, what = roofline_seconds(device.card, kernel)
    if cost.seconds < roof * (1 - SLACK):
        yield f"takes {cost.seconds:.4g} s, less than the {roof:.4g} s of {what} at its peak"
    for memory in {flow.memory for flow in kernel.flows}:
        moved = sum(flow.nbytes for flow in kernel.flows if flow.memory == memory)
        if cost.traffic.get(memory, 0.0) < moved * (1 - SLACK):
            yield f"moves {cost.traffic.get(memory, 0.0):.6g} B of {memory}, less than the kernel's {moved:.6g} B"
    longest = max(cost.busy.values(), default=0.0)
    if longest > cost.seconds * (1 + SLACK):
        yield f"keeps a resource busy for {longest:.4g} s, longer than the kernel's {cost.seconds:.4g} s"
    if device.estimate(kernel) != cost or type(device)(device.card).estimate(kernel) != cost:
        yield "a second estimate differs from the first"
    if not device.host_seconds(kernel) >= 0:
        yield f"takes {device.host_seconds(kernel)} s of the host"


def roofline_seconds(card: Card, kernel: Kernel) -> tuple[float, str]:
    """The least time of ``kernel`` on ``card``, and the resource that sets it; masked attention scores cost nothing."""
    flops = kernel.work.matmul_flops * _needed(kernel)
    fastest = max((*card.matmul.values(), *card.vector.values()), default=0.0)
    rate = card.matmul.get(kernel.work.dtype, fastest)
    spans = {"matrix products": flops / rate if rate else 0.0}
    memories = {memory.name: memory for memory in card.memories}
    for flow in kernel.flows:
        if flow.memory in memories:
            memory = memories[flow.memory]
            bandwidth = memory.write_bandwidth if flow.write else memory.bandwidth
            spans[flow.memory] = spans.get(flow.memory, 0.0) + flow.nbytes / bandwidth
    what = max(spans, key=spans.__getitem__)
    return spans[what], what


def _needed(kernel: Kernel) -> float:
    """The share of attention scores that causality and a window leave, counted query by query."""
    if kernel.kind is not Kind.ATTENTION or not kernel.attrs.get("causal"):
        return 1.0
    q_len, kv_len = kernel.size("q_len"), kernel.size("kv_len")
    window = kernel.size("window") or kv_len
    seen = (min(max(0, kv_len - q_len) + query + 1, kv_len, window) for query in range(q_len))
    return sum(seen) / (q_len * kv_len)


def _growth_problems(device: Device, spec: Spec) -> Iterator[str]:
    """Twice as much of any size takes no less time, cold, in a run, or warm."""
    for target in (device, timed(device, None), timed(device, Replay())):
        before = target.estimate(spec_kernel(spec, target)).seconds
        for name in GROWING[str(spec["op"])]:
            size = spec[name]
            if not isinstance(size, int):
                continue
            after = target.estimate(spec_kernel({**spec, name: 2 * size}, target)).seconds
            if after < before * (1 - SLACK):
                yield f"takes {before:.6g} s, but with {name} doubled only {after:.6g} s"


def _memory_problems(device: Device) -> Iterator[str]:
    kernel = spec_kernel({"op": "copy_d2d", "bytes": 1024}, device)
    lost = ["no-such-memory"] if device.card.link("host") else ["no-such-memory", "host"]
    for memory in lost:
        if memory in {known.name for known in device.card.memories}:
            continue
        astray = replace(kernel, flows=(Flow(memory, 1024.0),))
        problem = _unraised(partial(device.estimate, astray), HwsimError)
        if problem:
            yield f"bytes in '{memory}', which the card does not reach: {problem}"


def _unraised(call: Callable[[], object], error: type[Exception]) -> str:
    """Empty where ``call`` raises ``error``; else what happened instead."""
    try:
        call()
    except error:
        return ""
    except Exception as other:
        return f"{type(other).__name__} instead of {error.__name__}"
    return f"no {error.__name__}"


def _schedule_problems(graph: Graph, schedule: Schedule, system: System) -> Iterator[str]:
    works = [(count, work_of(op, graph)) for op, count in zip(graph.ops, graph.counts, strict=True)]
    steps = zip(schedule.counts, schedule.steps, strict=True)
    kernels = [(count, step) for count, step in steps if isinstance(step, Kernel)]
    for unit in ("matmul_flops", "vector_flops", "special_ops"):
        wanted = sum(count * getattr(work, unit) for count, work in works)
        planned = sum(count * getattr(kernel.work, unit) for count, kernel in kernels)
        if abs(planned - wanted) > SLACK * max(wanted, 1.0):
            yield f"{unit} of all kernels are {planned:.6g}, of the graph {wanted:.6g}"
    ops = sum(count for op, count in zip(graph.ops, graph.counts, strict=True) if op.kind is not Kind.VIEW)
    run = sum(count * kernel.size("fused", 1) for count, kernel in kernels)
    if run != ops:
        yield f"kernels run {run} ops (attribute 'fused' of each), the graph has {ops} that are no views"
    read = sum(count * _weight_bytes(kernel) for count, kernel in kernels)
    weights = graph.bytes_of(Role.WEIGHT)
    if read < weights * (1 - SLACK):
        yield f"kernels read {read:.6g} B of weights, the graph has {weights:.6g} B"
    resident = sum(usage(graph).resident.values())
    if sum(schedule.peak.values()) < resident * (1 - SLACK):
        yield f"peak memory is {sum(schedule.peak.values()):.6g} B, weights and states alone are {resident:.6g} B"
    yield from _placement_problems(schedule, system)
    yield from transfer_problems(graph, schedule, system)


def _weight_bytes(kernel: Kernel) -> float:
    return sum(flow.nbytes for flow in kernel.flows if flow.role is Role.WEIGHT and not flow.write)


def _placement_problems(schedule: Schedule, system: System) -> Iterator[str]:
    for name, used in schedule.peak.items():
        room = _capacity(system, name)
        if name != "host" and used > room * (1 + SLACK):
            yield f"uses {used:.6g} B of {name}, which has {room:.6g} B"
    for kernel in schedule.kernels:
        known = {memory.name for memory in system.device(kernel.device).card.memories}
        for flow in kernel.flows:
            if flow.memory not in known and flow.memory != "host":
                yield f"kernel '{kernel.name}' moves bytes of '{flow.memory}', which its device does not have"


def _capacity(system: System, memory: str) -> float:
    try:
        return system.place(memory).memory.capacity
    except HwsimError:
        return 0.0


def _fit_problems(mapper: Mapper, graph: Graph, device: Device) -> Iterator[str]:
    """With memories of one byte nothing fits, and without being allowed to spill the mapper must say so."""
    small = _small(device)
    problem = _unraised(lambda: mapper.schedule(graph, small, Policy()), DoesNotFitError)
    if problem:
        yield f"on memories of one byte: {problem}"


def _small(device: Device) -> Device:
    """The same with memories of one byte."""
    if isinstance(device, System):
        devices = {name: _small(one) for name, one in device.devices.items()}
        cards = {name: one.card for name, one in devices.items()}
        return System(replace(device.topology, cards=cards), devices)
    tiny = tuple(replace(memory, capacity=1.0) for memory in device.card.memories)
    return type(device)(replace(device.card, memories=tiny))


def sample_graphs() -> tuple[Graph, ...]:
    """A chain with a view and a fan-out, and repeated layers with attention and a cache."""
    return _chain(), _layers()


def _chain() -> Graph:
    tensors = [
        Tensor("x", (32, 64), "bf16", Role.INPUT),
        Tensor("w1", (64, 128), "bf16", Role.WEIGHT),
        Tensor("w2", (128, 64), "bf16", Role.WEIGHT),
        Tensor("h", (32, 128), "bf16"),
        Tensor("flat", (4096,), "bf16", base="h"),
        Tensor("act", (4096,), "bf16"),
        Tensor("square", (32, 128), "bf16", base="act"),
        Tensor("y", (32, 64), "bf16"),
        Tensor("out", (32, 64), "bf16", Role.OUTPUT),
    ]
    ops = (
        _op(Kind.MATMUL, "x w1", "h", batch=1, m=32, n=128, k=64),
        _op(Kind.VIEW, "h", "flat"),
        _op(Kind.ELEMENTWISE, "flat", "act", function="gelu", numel=4096),
        _op(Kind.VIEW, "act", "square"),
        _op(Kind.MATMUL, "square w2", "y", batch=1, m=32, n=64, k=128),
        _op(Kind.ELEMENTWISE, "y x", "out", function="add", numel=2048),
    )
    return Graph("chain", {tensor.name: tensor for tensor in tensors}, ops)


def _layers() -> Graph:
    tensors = [
        Tensor("x", (4, 64), "bf16", Role.INPUT),
        Tensor("scale", (64,), "bf16", Role.WEIGHT),
        Tensor("normed", (4, 64), "bf16"),
        Tensor("w", (64, 64), "bf16", Role.WEIGHT),
        Tensor("q", (4, 64), "bf16"),
        Tensor("cache", (4, 2, 2, 128, 32), "bf16", Role.STATE),
        Tensor("mixed", (4, 64), "bf16"),
        Tensor("y", (4, 64), "bf16", Role.OUTPUT),
    ]
    heads: dict[str, Attribute] = {"heads": 2, "kv_heads": 2, "q_len": 1, "kv_len": 128, "head_dim": 32, "v_dim": 32}
    ops = (
        _op(Kind.NORM, "x scale", "normed", function="rmsnorm", rows=4, cols=64),
        _op(Kind.MATMUL, "normed w", "q", batch=1, m=4, n=64, k=64),
        _op(Kind.ATTENTION, "q cache", "mixed", batch=4, causal=False, window=0, **heads),
        _op(Kind.ELEMENTWISE, "mixed x", "x", function="add", numel=256),
        _op(Kind.SOFTMAX, "x", "y", rows=4, cols=64),
    )
    return Graph("layers", {tensor.name: tensor for tensor in tensors}, ops, (Repeat(0, 4, 3, frozenset()),))


def _op(kind: Kind, inputs: str, outputs: str, **attrs: Attribute) -> Op:
    return Op(kind, tuple(inputs.split()), tuple(outputs.split()), attrs, source=str(kind))
