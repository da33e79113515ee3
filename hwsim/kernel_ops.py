"""The ops of the kernel interchange: the fields of each, and the graph ops that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hwsim.dtypes import DTYPES, dtype
from hwsim.errors import shown
from hwsim.graph import Attribute, Kind, Op, Role, Tensor
from hwsim.sizes import Expr, Size, combine, symbol

CHUNK = 64  # tokens: the chunk length of flash-linear-attention's kernels
GATES = {"gla": "k", "ssd": "1", "delta_rule": "1", "gated_delta_rule": "11", "kda": "k1", "gdn2": "kkv"}
"""Elements of each gate per token and head: 1, d_k or d_v."""


MOST = 2**50
"""No size of a kernel is larger: a PiB, of which times still are numbers that people read."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a field holds: an integer of at least ``least``, or one of ``choices``; ``default`` makes it optional."""

    least: int = 1
    choices: tuple[object, ...] = ()
    default: object = None

    def read(self, given: object) -> object:
        """``given`` as JSON means it, which has one kind of number: 1e9 is an integer."""
        return int(given) if isinstance(given, float) and given.is_integer() and not self.choices else given

    def allows(self, value: object) -> bool:
        """Whether ``value`` is valid; the choices are all of one type."""
        if self.choices:
            return isinstance(value, type(self.choices[0])) and value in self.choices
        return isinstance(value, int) and self.least <= value <= MOST and not isinstance(value, bool)

    @property
    def expected(self) -> str:
        """What would be valid, in words."""
        if self.choices:
            return "one of " + ", ".join(shown(choice) for choice in self.choices)
        return f"a whole number from {self.least} to 2^50"


SIZE = Field()
DTYPE = Field(choices=tuple(DTYPES))
FLAG = Field(choices=(True, False))

Fields = Mapping[str, Field]
Values = Mapping[str, object]


@dataclass
class Sketch:
    """A graph in the making: the values of a spec, its sizes still free, and the tensors and ops that they become."""

    values: Values
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)

    def size(self, name: str) -> Expr:
        """The integer field ``name``, free."""
        return symbol(name)

    def sizes(self, *names: str) -> tuple[Expr, ...]:
        """Several integer fields, free."""
        return tuple(map(symbol, names))

    def text(self, name: str) -> str:
        """The text field ``name``."""
        return str(self.values[name])

    def put(self, name: str, role: Role, *shape: Size, fmt: str = "") -> str:
        """A new tensor, in the spec's dtype unless ``fmt`` is given; returns its name."""
        self.tensors[name] = Tensor(name, shape, fmt or self.text("dtype"), role)
        return name

    def emit(self, kind: Kind, inputs: Sequence[str], outputs: Sequence[str], **attrs: Attribute) -> None:
        """A new op."""
        self.ops.append(Op(kind, tuple(inputs), tuple(outputs), attrs, self.text("op")))


Builder = Callable[[Sketch], None]


@dataclass(frozen=True)
class SpecOp:
    """One op of the interchange: its fields, how it becomes graph ops, and which tensors lie with the host."""

    fields: Fields
    build: Builder
    on_host: tuple[str, ...] = ()

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The fields that are no sizes."""
        return tuple(name for name, kind in self.fields.items() if kind.choices)


SPEC_OPS: dict[str, SpecOp] = {}


def spec_op(names: str, fields: Fields, on_host: tuple[str, ...] = ()) -> Callable[[Builder], Builder]:
    """Register the builder of the ops ``names`` (separated by spaces)."""

    def register(build: Builder) -> Builder:
        for name in names.split():
            SPEC_OPS[name] = SpecOp(fields, build, on_host)
        return build

    return register


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


@spec_op("quantize_rows", ROWS)
def _quantize_rows(sketch: Sketch) -> None:
    """Activations to fp8 with a scale for each row, as products of it take them."""
    rows, cols = sketch.sizes("rows", "cols")
    x = sketch.put("x", Role.INPUT, rows, cols)
    y, scales = sketch.put("y", Role.OUTPUT, rows, cols, fmt="fp8"), sketch.put("scales", Role.OUTPUT, rows, fmt="fp32")
    numel = rows * cols
    sketch.emit(Kind.ELEMENTWISE, (x,), (y, scales), function="quantize", numel=numel, rows=rows, cols=cols)


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


def _attention(sketch: Sketch, q_len: Size, causal: bool) -> None:
    batch, heads, kv_heads, dim, kv_len = sketch.sizes("batch", "heads", "kv_heads", "head_dim", "kv_len")
    q = sketch.put("q", Role.INPUT, batch, heads, q_len, dim)
    k, v = (sketch.put(name, Role.STATE, batch, kv_heads, kv_len, dim) for name in ("k", "v"))
    sizes = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "q_len": q_len, "kv_len": kv_len}
    y = sketch.put("y", Role.OUTPUT, batch, heads, q_len, dim)
    sketch.emit(Kind.ATTENTION, (q, k, v), (y,), **sizes, head_dim=dim, v_dim=dim, causal=causal, window=0)


@spec_op("cache_write", {"tokens": SIZE, "kv_heads": SIZE, "head_dim": SIZE, "dtype": DTYPE})
def _cache_write(sketch: Sketch) -> None:
    """New keys and values go to the slots of a paged cache that their tokens were given."""
    tokens, kv_heads, head_dim = sketch.sizes("tokens", "kv_heads", "head_dim")
    elements = 2 * kv_heads * head_dim
    new = sketch.put("new", Role.INPUT, tokens, elements)
    slots = sketch.put("slots", Role.INPUT, tokens, fmt="int64")
    pages = sketch.put("pages", Role.STATE, tokens, elements)
    sketch.emit(Kind.SCATTER, (new, slots), (pages,), picks=tokens, elements=elements, function="write", paged=True)


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
    result = {"all_gather": nbytes * ranks, "reduce_scatter": combine("max", 1, nbytes // ranks)}.get(function, nbytes)
    _exchange(sketch, nbytes, result, ranks)


@spec_op("copy_peer", BYTES)
def _copy_peer(sketch: Sketch) -> None:
    _exchange(sketch, sketch.size("bytes"), sketch.size("bytes"), 2)


def _exchange(sketch: Sketch, nbytes: Size, result: Size, ranks: Size) -> None:
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


def _recurrence(sketch: Sketch, rule: str, chunk: Size) -> None:
    """q, k, v, gates and the fp32 state in, outputs and the state out; backward reads the same and writes gradients."""
    batch, tokens, heads, d_k, d_v = sketch.sizes("batch", "tokens", "heads", "d_k", "d_v")
    widths: dict[str, Size] = {"q": d_k, "k": d_k, "v": d_v}
    elements: dict[str, Size] = {"1": 1, "k": d_k, "v": d_v}
    widths |= {f"gate{index}": elements[size] for index, size in enumerate(GATES[rule])}
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
