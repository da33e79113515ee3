"""The kernel interchange: one JSON object a kernel, such as ``{"op": "matmul", "m": 8, "n": 8, "k": 8, ...}``.

`spec_kernel` makes a kernel of an object through the graph's ops and work formulas, `predict` estimates a list of
them. Objects keep whatever else they hold (a name, measured times).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hwsim.device import Device, timed
from hwsim.dtypes import DTYPES, dtype
from hwsim.errors import InputError, Problem, nearest_name, shown
from hwsim.graph import Attribute, Graph, Kind, Op, Role, Tensor
from hwsim.mapper import Kernel, Launch, Placement
from hwsim.work import Work, work_of

HOST = "host"
CHUNK = 64  # tokens: the chunk length of flash-linear-attention's kernels
GATES = {"gla": "k", "ssd": "1", "delta_rule": "1", "gated_delta_rule": "11", "kda": "k1", "gdn2": "kkv"}
"""Elements of each gate per token and head: 1, d_k or d_v."""


class Cache(StrEnum):
    """``cold``: caches empty, one launch; ``warm``: replayed back to back from a recorded graph."""

    COLD = "cold"
    WARM = "warm"


@dataclass(frozen=True, slots=True)
class Field:
    """What a field holds: an integer of at least ``least``, or one of ``choices``; ``default`` makes it optional."""

    least: int = 1
    choices: tuple[object, ...] = ()
    default: object = None

    def problem(self, value: object) -> str | None:
        """What would be valid, where ``value`` is not."""
        if self.choices:
            alike = any(value == choice and isinstance(value, type(choice)) for choice in self.choices)
            return None if alike else "one of " + ", ".join(shown(choice) for choice in self.choices)
        if isinstance(value, int) and not isinstance(value, bool) and value >= self.least:
            return None
        return f"an integer of at least {self.least}"


SIZE = Field()
DTYPE = Field(choices=tuple(DTYPES))
FLAG = Field(choices=(True, False))

Fields = Mapping[str, Field]
Values = Mapping[str, object]


@dataclass
class Sketch:
    """A graph in the making: the values of a spec, and the tensors and ops that they become."""

    values: Values
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)

    def size(self, name: str) -> int:
        """The integer field ``name``."""
        value = self.values[name]
        return value if isinstance(value, int) else 0

    def sizes(self, *names: str) -> tuple[int, ...]:
        """Several integer fields."""
        return tuple(self.size(name) for name in names)

    def text(self, name: str) -> str:
        """The text field ``name``."""
        return str(self.values[name])

    def put(self, name: str, role: Role, *shape: int, fmt: str = "") -> str:
        """A new tensor, in the spec's dtype unless ``fmt`` is given; returns its name."""
        self.tensors[name] = Tensor(name, shape, fmt or self.text("dtype"), role)
        return name

    def emit(self, kind: Kind, inputs: Sequence[str], outputs: Sequence[str], **attrs: Attribute) -> None:
        """A new op."""
        self.ops.append(Op(kind, tuple(inputs), tuple(outputs), attrs, source=self.text("op")))


Builder = Callable[[Sketch], None]


@dataclass(frozen=True, slots=True)
class SpecOp:
    """One op of the interchange: its fields, how it becomes graph ops, and which tensors lie with the host."""

    fields: Fields
    build: Builder
    on_host: tuple[str, ...] = ()


SPEC_OPS: dict[str, SpecOp] = {}


def spec_op(names: str, fields: Fields, on_host: tuple[str, ...] = ()) -> Callable[[Builder], Builder]:
    """Register the builder of the ops ``names`` (separated by spaces)."""

    def register(build: Builder) -> Builder:
        for name in names.split():
            SPEC_OPS[name] = SpecOp(fields, build, on_host)
        return build

    return register


def spec_kernel(spec: Values, device: Device, launch: Launch = Launch.GRAPH, where: str = "") -> Kernel:
    """The kernel of one interchange object, its operands in the device's main memory.

    Raises `InputError` naming every wrong field below ``where``.
    """
    values, problems = _checked(spec, where)
    if problems:
        raise InputError(*problems)
    op = SPEC_OPS[str(spec["op"])]
    sketch = Sketch(values)
    op.build(sketch)
    graph = Graph(sketch.text("op"), sketch.tensors, tuple(sketch.ops), level="kernel")
    work = _joined([work_of(op, graph) for op in graph.ops])
    placement = Placement(device.card.main.name, {name: {HOST: 1.0} for name in op.on_host})
    main = graph.ops[-1]
    return Kernel(sketch.text("op"), main.kind, main.attrs, work, placement.flows(work), launch=launch)


def predict(specs: Sequence[object], device: Device, cache: Cache = Cache.COLD) -> list[dict[str, object]]:
    """The objects of ``specs`` with seconds, joules (static power included), bound, bytes of all operands and traffic.

    Traffic is the bytes by memory, those that are read again included. Cold kernels are single launches, warm
    ones replayed from a graph. Raises `InputError` with all that is wrong, each under the index of its object.
    """
    launch = Launch.GRAPH if cache is Cache.WARM else Launch.EAGER
    target = timed(device, cache is Cache.WARM)
    problems = [problem for index, spec in enumerate(specs) for problem in _problems(spec, index)]
    if problems:
        raise InputError(*problems)
    return [_predicted(spec, target, launch) for spec in specs if isinstance(spec, Mapping)]


def _predicted(spec: Values, device: Device, launch: Launch) -> dict[str, object]:
    """The object with its results; a copy's own field ``bytes`` stays as it was given."""
    kernel = spec_kernel(spec, device, launch)
    cost = device.estimate(kernel)
    joules = cost.joules + device.card.static_power * cost.seconds
    result = {**spec, "seconds": cost.seconds, "joules": joules, "bound": cost.bound, "traffic": dict(cost.traffic)}
    return result if "bytes" in SPEC_OPS[kernel.name].fields else {**result, "bytes": kernel.nbytes}


def _problems(spec: object, index: int) -> list[Problem]:
    if isinstance(spec, Mapping):
        return _checked(spec, f"{index}.")[1]
    return [Problem(path=str(index), got=shown(spec), expected='an object such as {"op": "matmul", ...}')]


def _checked(spec: Values, where: str) -> tuple[dict[str, object], list[Problem]]:
    """The fields of a spec with defaults filled in, and what is wrong with them."""
    name = spec.get("op")
    if not isinstance(name, str) or name not in SPEC_OPS:
        nearest = nearest_name(name, SPEC_OPS) if isinstance(name, str) else None
        known = "" if nearest else ", ".join(sorted(SPEC_OPS))
        message = f"unknown op {shown(name)}" if "op" in spec else "missing"
        return {}, [Problem(message, path=f"{where}op", expected=known, nearest=nearest)]
    fields = SPEC_OPS[name].fields
    values: dict[str, object] = {"op": name}
    problems = []
    extras = [key for key in spec if key not in fields and key != "op"]
    for key, kind in fields.items():
        misspelt = nearest_name(key, extras)
        values[key] = value = spec.get(key, kind.default)
        if key not in spec and (kind.default is None or misspelt):
            message = f"missing; is '{misspelt}' meant?" if misspelt else "missing"
            problems.append(Problem(message, path=f"{where}{key}"))
        elif expected := kind.problem(value):
            problems.append(Problem(path=f"{where}{key}", got=shown(value), expected=expected))
    return values, problems or _inconsistent(values, where)


def _inconsistent(values: Values, where: str) -> list[Problem]:
    """Problems between fields that are right by themselves."""
    for part, whole in (("kv_heads", "heads"), ("groups", "c"), ("groups", "o")):
        size, total = values.get(part), values.get(whole)
        if isinstance(size, int) and isinstance(total, int) and total % size:
            return [Problem(path=f"{where}{part}", got=shown(size), expected=f"a divisor of {whole} = {total}")]
    if values["op"] == "conv2d":
        padding, k = values["padding"], values["k"]
        for side in ("h", "w"):
            length = values[side]
            if isinstance(length, int) and isinstance(padding, int) and isinstance(k, int) and length + 2 * padding < k:
                return [Problem(path=f"{where}k", got=shown(k), expected=f"at most {side} + 2 x padding")]
    return []


def _joined(works: Sequence[Work]) -> Work:
    """The work of ops that run one after the other."""
    return Work(
        sum(work.matmul_flops for work in works),
        sum(work.vector_flops for work in works),
        sum(work.special_ops for work in works),
        tuple(access for work in works for access in work.accesses),
        works[-1].dtype,
    )


@spec_op("matmul", {"m": SIZE, "n": SIZE, "k": SIZE, "batch": Field(default=1), "dtype": DTYPE})
def _matmul(sketch: Sketch) -> None:
    """int8 gives int32 and fp8 gives bf16, others their own format."""
    batch, m, n, k = sketch.sizes("batch", "m", "n", "k")
    x, w = sketch.put("x", Role.INPUT, batch, m, k), sketch.put("w", Role.WEIGHT, batch, n, k)
    fmt = sketch.text("dtype")
    y = sketch.put("y", Role.OUTPUT, batch, m, n, fmt={"int8": "int32", "fp8": "bf16"}.get(fmt, fmt))
    sketch.emit(Kind.MATMUL, (x, w), (y,), batch=batch, m=m, n=n, k=k, compute=fmt)


ROWS = {"rows": SIZE, "cols": SIZE, "dtype": DTYPE}


@spec_op("softmax layernorm rmsnorm", ROWS)
def _normalised(sketch: Sketch) -> None:
    rows, cols = sketch.sizes("rows", "cols")
    function = sketch.text("op")
    vectors = {"softmax": 0, "rmsnorm": 1, "layernorm": 2}[function]
    inputs = [sketch.put("x", Role.INPUT, rows, cols)]
    inputs += [sketch.put(f"scale{index}", Role.WEIGHT, cols) for index in range(vectors)]
    y = sketch.put("y", Role.OUTPUT, rows, cols)
    kind = Kind.NORM if vectors else Kind.SOFTMAX
    sketch.emit(kind, inputs, (y,), rows=rows, cols=cols, function=function)


@spec_op("sum cumsum transpose_copy", ROWS)
def _along_rows(sketch: Sketch) -> None:
    rows, cols = sketch.sizes("rows", "cols")
    function = sketch.text("op")
    x = sketch.put("x", Role.INPUT, rows, cols)
    y = sketch.put("y", Role.OUTPUT, rows, *(() if function == "sum" else (cols,)))
    if function == "transpose_copy":
        sketch.emit(Kind.COPY, (x,), (y,), numel=rows * cols, strided=True, run=1, rows=rows)
    else:
        kind = Kind.REDUCE if function == "sum" else Kind.SCAN
        sketch.emit(kind, (x,), (y,), rows=rows, cols=cols, function=function)


@spec_op("gelu silu add mul", {"numel": SIZE, "dtype": DTYPE})
def _elementwise(sketch: Sketch) -> None:
    (numel,) = sketch.sizes("numel")
    function = sketch.text("op")
    names = ("x", "other") if function in ("add", "mul") else ("x",)
    inputs = [sketch.put(name, Role.INPUT, numel) for name in names]
    sketch.emit(Kind.ELEMENTWISE, inputs, (sketch.put("y", Role.OUTPUT, numel),), function=function, numel=numel)


@spec_op("embedding", {"vocab": SIZE, "dim": SIZE, "tokens": SIZE, "dtype": DTYPE})
def _embedding(sketch: Sketch) -> None:
    vocab, dim, tokens = sketch.sizes("vocab", "dim", "tokens")
    table = sketch.put("table", Role.WEIGHT, vocab, dim)
    ids = sketch.put("ids", Role.INPUT, tokens, fmt="int64")
    sketch.emit(Kind.GATHER, (table, ids), (sketch.put("y", Role.OUTPUT, tokens, dim),), picks=tokens, elements=dim)


@spec_op("gather_rows", {"rows": SIZE, "row_bytes": SIZE, "table_bytes": SIZE})
def _gather_rows(sketch: Sketch) -> None:
    rows, row_bytes, table_bytes = sketch.sizes("rows", "row_bytes", "table_bytes")
    table = sketch.put("table", Role.INPUT, table_bytes, fmt="uint8")
    ids = sketch.put("ids", Role.INPUT, rows, fmt="int64")
    y = sketch.put("y", Role.OUTPUT, rows, row_bytes, fmt="uint8")
    sketch.emit(Kind.GATHER, (table, ids), (y,), picks=rows, elements=row_bytes)


HEADS = {"batch": SIZE, "heads": SIZE, "kv_heads": SIZE, "head_dim": SIZE}


@spec_op("attention_prefill", {**HEADS, "q_len": SIZE, "kv_len": SIZE, "causal": FLAG, "dtype": DTYPE})
def _prefill(sketch: Sketch) -> None:
    _attention(sketch, sketch.size("q_len"), sketch.values["causal"] is True)


@spec_op("attention_decode", {**HEADS, "kv_len": SIZE, "dtype": DTYPE})
def _decode(sketch: Sketch) -> None:
    _attention(sketch, 1, causal=False)


def _attention(sketch: Sketch, q_len: int, causal: bool) -> None:
    batch, heads, kv_heads, dim, kv_len = sketch.sizes("batch", "heads", "kv_heads", "head_dim", "kv_len")
    q = sketch.put("q", Role.INPUT, batch, heads, q_len, dim)
    k, v = (sketch.put(name, Role.STATE, batch, kv_heads, kv_len, dim) for name in ("k", "v"))
    sizes = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "q_len": q_len, "kv_len": kv_len}
    y = sketch.put("y", Role.OUTPUT, batch, heads, q_len, dim)
    sketch.emit(Kind.ATTENTION, (q, k, v), (y,), **sizes, head_dim=dim, v_dim=dim, causal=causal, window=0)


CONV = dict.fromkeys(("n", "c", "h", "w", "o", "k", "stride"), SIZE)
LAYOUT = Field(choices=("nhwc", "nchw"))


@spec_op("conv2d", {**CONV, "padding": Field(least=0), "groups": SIZE, "dtype": DTYPE, "layout": LAYOUT})
def _conv2d(sketch: Sketch) -> None:
    n, c, h, w, o, k, stride, padding, groups = sketch.sizes(*CONV, "padding", "groups")
    out = tuple((side + 2 * padding - k) // stride + 1 for side in (h, w))
    x, weight = sketch.put("x", Role.INPUT, n, c, h, w), sketch.put("weight", Role.WEIGHT, o, c // groups, k, k)
    y = sketch.put("y", Role.OUTPUT, n, o, *out)
    channels = {"in_channels": c, "out_channels": o, "groups": groups}
    spaces = {"in_size": (h, w), "out_size": out, "kernel": (k, k)}
    layout = sketch.text("layout")
    sketch.emit(Kind.CONV, (x, weight), (y,), batch=n, **channels, **spaces, transposed=False, layout=layout)


BYTES = {"bytes": SIZE}


@spec_op("copy_h2d_pinned", BYTES, on_host=("source",))
@spec_op("copy_d2h_pinned", BYTES, on_host=("target",))
@spec_op("copy_d2d", BYTES)
def _copy(sketch: Sketch) -> None:
    (nbytes,) = sketch.sizes("bytes")
    source = sketch.put("source", Role.INPUT, nbytes, fmt="uint8")
    target = sketch.put("target", Role.OUTPUT, nbytes, fmt="uint8")
    sketch.emit(Kind.COPY, (source,), (target,), numel=nbytes, strided=False)


@spec_op("all_reduce all_gather reduce_scatter all_to_all", {**BYTES, "ranks": Field(least=2)})
def _collective(sketch: Sketch) -> None:
    nbytes, ranks = sketch.sizes("bytes", "ranks")
    function = sketch.text("op")
    result = {"all_gather": nbytes * ranks, "reduce_scatter": max(1, nbytes // ranks)}.get(function, nbytes)
    _exchange(sketch, nbytes, result, ranks)


@spec_op("copy_peer", BYTES)
def _copy_peer(sketch: Sketch) -> None:
    _exchange(sketch, sketch.size("bytes"), sketch.size("bytes"), 2)


def _exchange(sketch: Sketch, nbytes: int, result: int, ranks: int) -> None:
    source = sketch.put("source", Role.INPUT, nbytes, fmt="uint8")
    target = sketch.put("target", Role.OUTPUT, result, fmt="uint8")
    sketch.emit(Kind.COLLECTIVE, (source,), (target,), function=sketch.text("op"), ranks=ranks)


STATE = {"batch": SIZE, "tokens": SIZE, "heads": SIZE, "d_k": SIZE, "d_v": SIZE, "dtype": DTYPE}
PASS = Field(choices=("fwd", "fwd+bwd"))
DECODE = Field(choices=("decode",))


@spec_op(" ".join(f"chunk_{rule}" for rule in GATES), {**STATE, "pass_": PASS, "chunk": Field(default=CHUNK)})
def _chunk(sketch: Sketch) -> None:
    _recurrence(sketch, sketch.text("op").removeprefix("chunk_"), sketch.size("chunk"))


@spec_op(" ".join(f"recurrent_{rule}" for rule in GATES), {**STATE, "pass_": DECODE})
def _recurrent(sketch: Sketch) -> None:
    _recurrence(sketch, sketch.text("op").removeprefix("recurrent_"), 0)


def _recurrence(sketch: Sketch, rule: str, chunk: int) -> None:
    """q, k, v, gates and the fp32 state in, outputs and the state out; backward reads the same and writes gradients."""
    batch, tokens, heads, d_k, d_v = sketch.sizes("batch", "tokens", "heads", "d_k", "d_v")
    widths = {"q": d_k, "k": d_k, "v": d_v}
    widths |= {f"gate{index}": {"1": 1, "k": d_k, "v": d_v}[size] for index, size in enumerate(GATES[rule])}
    inputs = [sketch.put(name, Role.INPUT, batch, tokens, heads, width) for name, width in widths.items()]
    y = sketch.put("y", Role.OUTPUT, batch, tokens, heads, d_v)
    last = sketch.put("last", Role.STATE, batch, heads, d_k, d_v, fmt="fp32")
    sizes = {"batch": batch, "tokens": tokens, "heads": heads, "d_k": d_k, "d_v": d_v, "chunk": chunk}
    first = [sketch.put("first", Role.STATE, batch, heads, d_k, d_v, fmt="fp32")] if not chunk else []
    dtype_name = dtype(sketch.text("dtype")).name
    sketch.emit(Kind.RECURRENCE, (*inputs, *first), (y, last), rule=rule, **sizes, compute=dtype_name)
    if sketch.values["pass_"] == "fwd+bwd":
        slopes = [sketch.put(f"grad_{name}", Role.OUTPUT, batch, tokens, heads, widths[name]) for name in widths]
        attrs: dict[str, Attribute] = {**sizes, "backward": True, "compute": dtype_name}
        sketch.emit(Kind.RECURRENCE, (*inputs, y), slopes, rule=rule, **attrs)
