"""What an op must do, on any device: FLOPs by unit and bytes by operand. The one table of formulas.

1 MAC is 2 FLOP. Matrix FLOPs run on matrix units (tensor cores, systolic arrays); vector FLOPs on the general
lanes; special operations (exponentials, roots, divisions) on their own units. Attention counts the full square
whether or not it is causal; `causal` stays an attribute for the devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from math import log2, prod
from typing import TYPE_CHECKING, TypeAlias

from hwsim.dtypes import dtype
from hwsim.errors import GraphError
from hwsim.graph import MATMUL_KINDS, Graph, Kind, Op, Role
from hwsim.value import value

if TYPE_CHECKING:
    from hwsim.binding import BoundOps

Operands: TypeAlias = "Graph | BoundOps"  # what holds the tensors that ops name, all sizes known


class Pattern(StrEnum):
    """How an operand is walked through."""

    STREAM = "stream"
    STRIDED = "strided"
    GATHER = "gather"
    SCATTER = "scatter"


@value
class Access:
    """Bytes that one operand moves. ``granule`` is the length of a contiguous run in bytes (0: the whole)."""

    tensor: str
    role: Role
    nbytes: float
    write: bool = False
    pattern: Pattern = Pattern.STREAM
    granule: float = 0.0


@value
class Work:
    """FLOPs by unit and the operand traffic of one op or of several fused ones. ``dtype`` is the operands' format."""

    matmul_flops: float = 0.0
    vector_flops: float = 0.0
    special_ops: float = 0.0
    accesses: tuple[Access, ...] = ()
    dtype: str = "fp32"
    unmodelled: bool = False

    @property
    def flops(self) -> float:
        """All arithmetic, one per special operation."""
        return self.matmul_flops + self.vector_flops + self.special_ops

    @property
    def read_bytes(self) -> float:
        """Bytes of all operands read."""
        return sum(access.nbytes for access in self.accesses if not access.write)

    @property
    def write_bytes(self) -> float:
        """Bytes of all operands written."""
        return sum(access.nbytes for access in self.accesses if access.write)

    @property
    def nbytes(self) -> float:
        """Bytes read and written."""
        return sum(access.nbytes for access in self.accesses)

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in FLOP/B (infinite where nothing is moved)."""
        return self.flops / self.nbytes if self.nbytes else float("inf")

    def bytes_of_role(self, role: Role) -> float:
        """Bytes moved for operands of ``role``."""
        return sum(access.nbytes for access in self.accesses if access.role is role)


@value
class Arithmetic:
    """FLOPs of an op by the unit that does them."""

    matmul: float = 0.0
    vector: float = 0.0
    special: float = 0.0


# (vector FLOPs, special operations) per element. A division counts as a special operation and a multiply;
# erf-GELU is evaluated by a polynomial of about 10 FLOP and an exponential.
ELEMENTWISE: dict[str, tuple[float, float]] = {
    "add": (1, 0), "sub": (1, 0), "mul": (1, 0), "div": (1, 1), "neg": (1, 0), "abs": (1, 0), "square": (1, 0),
    "maximum": (1, 0), "minimum": (1, 0), "clamp": (2, 0), "relu": (1, 0), "leaky_relu": (2, 0), "compare": (1, 0),
    "where": (1, 0), "logical": (1, 0), "bitwise": (1, 0), "round": (1, 0), "sign": (1, 0), "cast": (0, 0),
    "lerp": (3, 0), "fma": (2, 0), "exp": (1, 1), "log": (1, 1), "sqrt": (0, 1), "rsqrt": (0, 1),
    "reciprocal": (0, 1), "pow": (1, 2), "sin": (1, 1), "cos": (1, 1), "tan": (2, 2), "tanh": (1, 1), "erf": (10, 1),
    "trigonometric": (10, 1), "sigmoid": (2, 2), "silu": (3, 2), "gelu": (12, 1), "gelu_tanh": (6, 1), "elu": (3, 1),
    "softplus": (2, 2), "mish": (4, 3), "hardtanh": (2, 0), "hardsigmoid": (3, 0), "hardswish": (4, 0),
    "glu": (3, 2), "dropout": (2, 0), "remainder": (3, 1), "quantize": (3, 1), "dequantize": (2, 0),
    "activation_backward": (8, 1), "rotary": (3, 0), "adamw": (12, 2), "sgd": (2, 0),
    "lgamma": (30, 4), "special": (10, 2), "polynomial": (10, 0), "loss": (3, 2),
}  # fmt: skip

# (vector FLOPs, special operations) per element of the reduced input.
REDUCTIONS: dict[str, tuple[float, float]] = {
    "sum": (1, 0), "mean": (1, 0), "max": (1, 0), "min": (1, 0), "prod": (1, 0), "argmax": (1, 0), "var": (3, 0),
    "norm": (2, 0), "logsumexp": (2, 1), "any": (1, 0), "max_pool": (1, 0), "avg_pool": (1, 0), "histogram": (1, 0),
    "loss": (2, 1), "median": (2, 0), "distance": (3, 0),
}  # fmt: skip

# Vector FLOPs per element; each row adds one special operation (the root).
NORMS: dict[str, float] = {
    "layernorm": 7, "rmsnorm": 4, "groupnorm": 7, "batchnorm": 4, "batchnorm_train": 7, "l2norm": 3,
}  # fmt: skip

# Per token and head, in units of d_k·d_v, C·d_k and C·d_v: the recurrent form's coefficient, then those of the chunk
# form of length C (full, unmasked tiles; the intra-chunk solve adds (2/3)·C² for the delta family).
LINEAR_RULES = frozenset({"linear", "retention", "gla", "ssd", "simple_gla"})
DELTA_RULES = frozenset({"delta_rule", "gated_delta_rule", "kda", "gdn2"})
SCAN_RULES = frozenset({"mamba1"})

# How many leading inputs set the format that an op calculates in.
FACTORS = {**dict.fromkeys(MATMUL_KINDS, 2), Kind.RECURRENCE: 1}

_UNMODELLED = frozenset({Kind.UNKNOWN})

Formula: TypeAlias = Callable[[Op], Arithmetic]
_FORMULAS: dict[Kind, Formula] = {}


def formula(*kinds: Kind) -> Callable[[Formula], Formula]:
    """Register the FLOP formula of ``kinds``; a second one for the same kind is a defect."""

    def register(function: Formula) -> Formula:
        for kind in kinds:
            if kind in _FORMULAS:
                raise GraphError(f"a formula for {kind} ops exists already")
            _FORMULAS[kind] = function
        return function

    return register


@formula(Kind.MATMUL)
def _matmul(op: Op) -> Arithmetic:
    return Arithmetic(matmul=2.0 * op.size("batch") * op.size("m") * op.size("n") * op.size("k"))


@formula(Kind.CONV)
def _conv(op: Op) -> Arithmetic:
    """Each position of the coarser side meets every kernel tap: 2·N·positions·O·(C/g)·taps, in every direction.

    A weight gradient counts all pairs of channels, also those that no group joins, as torch's FlopCounterMode does:
    that is `groups` times what a kernel must do.
    """
    positions = op.sizes("in_size") if op.flag("transposed") else op.sizes("out_size")
    groups = 1 if op.text("direction") == "grad_weight" else op.size("groups")
    per_position = op.size("out_channels") * op.size("in_channels") // groups * prod(op.sizes("kernel"))
    return Arithmetic(matmul=2.0 * op.size("batch") * prod(positions) * per_position)


@formula(Kind.ATTENTION)
def _attention(op: Op) -> Arithmetic:
    """Forward: Q·Kᵀ and P·V. Backward: the scores again, dV, dP, dQ and dK. Softmax: 4 FLOP and one exp a score."""
    scores = float(op.size("batch") * op.size("heads") * op.size("q_len") * op.size("kv_len"))
    d, d_v = op.size("head_dim"), op.size("v_dim")
    if op.flag("backward"):
        return Arithmetic(matmul=2 * scores * (3 * d + 2 * d_v), vector=6 * scores, special=scores)
    return Arithmetic(matmul=2 * scores * (d + d_v), vector=4 * scores, special=scores)


@formula(Kind.RECURRENCE)
def _recurrence(op: Op) -> Arithmetic:
    """Sections 2-3 of Gated DeltaNet-2 (arXiv 2605.22791) and GLA (arXiv 2312.06635) give both forms.

    Backward: two products for each forward one, plus the forward states recomputed.
    """
    rule, chunk = op.text("rule"), op.size("chunk")
    d_k, d_v = op.size("d_k"), op.size("d_v")
    heads_tokens = float(op.size("batch") * op.size("tokens") * op.size("heads"))
    factor = 3.0 if op.flag("backward") else 1.0
    if rule in SCAN_RULES:
        return Arithmetic(vector=factor * heads_tokens * 6 * d_k * d_v, special=factor * heads_tokens * d_k * d_v)
    if rule not in LINEAR_RULES | DELTA_RULES:
        known = ", ".join(sorted(LINEAR_RULES | DELTA_RULES | SCAN_RULES))
        raise GraphError(f"recurrence rule '{rule}' has no work formula; known: {known}")
    delta = rule in DELTA_RULES
    if chunk == 0:
        return Arithmetic(vector=factor * heads_tokens * (7 if delta else 5) * d_k * d_v)
    if delta:
        products = 6 * chunk * d_k + 4 * chunk * d_v + 6 * d_k * d_v + 2 / 3 * chunk**2
    else:
        products = 2 * chunk * d_k + 2 * chunk * d_v + 4 * d_k * d_v
    gates = 4 * (d_k + d_v)
    return Arithmetic(
        matmul=factor * heads_tokens * products,
        vector=factor * heads_tokens * gates,
        special=factor * heads_tokens * d_k,
    )


@formula(Kind.ELEMENTWISE)
def _elementwise(op: Op) -> Arithmetic:
    vector, special = _lookup(ELEMENTWISE, op)
    return Arithmetic(vector=vector * op.size("numel"), special=special * op.size("numel"))


@formula(Kind.REDUCE)
def _reduce(op: Op) -> Arithmetic:
    vector, special = _lookup(REDUCTIONS, op)
    numel = op.size("rows") * op.size("cols")
    return Arithmetic(vector=vector * numel, special=special * numel)


@formula(Kind.SOFTMAX)
def _softmax(op: Op) -> Arithmetic:
    """Maximum, shift, exponential, sum, scale; backward: product, sum, difference, product."""
    numel = op.size("rows") * op.size("cols")
    if op.flag("backward"):
        return Arithmetic(vector=4.0 * numel)
    return Arithmetic(vector=4.0 * numel, special=float(numel + op.size("rows")))


@formula(Kind.NORM)
def _norm(op: Op) -> Arithmetic:
    per_element = NORMS.get(op.text("function"))
    if per_element is None:
        raise GraphError(f"norm '{op.text('function')}' has no work formula; known: {', '.join(sorted(NORMS))}")
    factor = 2.0 if op.flag("backward") else 1.0
    return Arithmetic(vector=factor * per_element * op.size("rows") * op.size("cols"), special=float(op.size("rows")))


@formula(Kind.SCAN)
def _scan(op: Op) -> Arithmetic:
    """A work-efficient parallel scan does two operations an element (up-sweep and down-sweep)."""
    return Arithmetic(vector=2.0 * op.size("rows") * op.size("cols"))


@formula(Kind.SORT)
def _sort(op: Op) -> Arithmetic:
    """Comparisons of a merge sort: n·log2(n) a row."""
    cols = op.size("cols")
    return Arithmetic(vector=float(op.size("rows") * cols) * max(1.0, log2(max(cols, 1))))


@formula(Kind.FFT)
def _fft(op: Op) -> Arithmetic:
    """5·n·log2(n) real FLOP for a complex transform of length n."""
    cols = op.size("cols")
    return Arithmetic(vector=5.0 * op.size("rows") * cols * max(1.0, log2(max(cols, 1))))


@formula(Kind.SCATTER)
def _scatter(op: Op) -> Arithmetic:
    """One addition an element where values accumulate."""
    accumulates = op.text("function") in ("add", "reduce")
    return Arithmetic(vector=float(op.size("picks") * op.size("elements")) if accumulates else 0.0)


@formula(Kind.RANDOM)
def _random(op: Op) -> Arithmetic:
    """Philox 4x32-10 makes four words in ten rounds of about 8 operations: 20 an element."""
    return Arithmetic(vector=20.0 * op.size("numel"))


@formula(Kind.GATHER, Kind.COPY, Kind.WRITE, Kind.FILL, Kind.COLLECTIVE, Kind.VIEW, Kind.UNKNOWN)
def _moves_only(op: Op) -> Arithmetic:
    return Arithmetic()


def work_of(op: Op, operands: Operands) -> Work:
    """The work of one execution of ``op``."""
    done = _FORMULAS[op.kind](op)
    accesses, fmt = accesses_of(op, operands), compute_dtype(op, operands)
    return Work(done.matmul, done.vector, done.special, accesses, fmt, op.kind in _UNMODELLED)


def compute_dtype(op: Op, operands: Operands) -> str:
    """The format that the op calculates in: its ``compute`` attribute, else its widest floating operand's.

    A product calculates in the format of its two factors, whatever else it reads (a state) or writes (row sums); a
    recurrence in that of its first operand, which is followed by states in the backward.
    """
    stated = op.attrs.get("compute")
    if stated:
        return str(stated)
    names = op.inputs[: FACTORS[op.kind]] if op.kind in FACTORS else op.inputs + op.outputs
    tensors = operands.tensors
    return _widest(tuple([tensors[name].dtype for name in names]))


@lru_cache(maxsize=4096)
def _widest(names: tuple[str, ...]) -> str:
    """The format of most bits among the floating ones, else among all; the first of several alike."""
    formats = [dtype(name) for name in names]
    floats = [fmt for fmt in formats if fmt.kind not in ("int", "bool")]
    candidates = floats or formats
    return max(candidates, key=lambda fmt: fmt.bits).name if candidates else "fp32"


def accesses_of(op: Op, operands: Operands) -> tuple[Access, ...]:
    """Operand traffic: each distinct input read once, each output written once, with the exceptions of its kind."""
    return tuple(_EXCEPTIONS.get(op.kind, _plain_accesses)(op, operands))


def _plain_accesses(op: Op, operands: Operands) -> list[Access]:
    return _whole(op.inputs, operands) + _whole(op.outputs, operands, write=True)


def _whole(names: Sequence[str], operands: Operands, write: bool = False) -> list[Access]:
    """Each of ``names`` moved whole and once."""
    tensors, storages, nbytes = operands.tensors, operands.storages, operands.nbytes
    if len(names) > 1:
        names = tuple(dict.fromkeys(names))
    return [Access(storages[name], tensors[name].role, nbytes[name], write) for name in names]


def _no_accesses(op: Op, operands: Operands) -> list[Access]:
    return []


def _write_accesses(op: Op, operands: Operands) -> list[Access]:
    """The destination stands among the outputs only: it is not read."""
    inputs = [name for name in op.inputs if name not in op.outputs]
    return _whole(inputs, operands) + _whole(op.outputs, operands, write=True)


def _matmul_accesses(op: Op, operands: Operands) -> list[Access]:
    """With uniform routing, m rows reach E·(1-(1-1/E)^m) of E experts; only their weights are read."""
    accesses = _plain_accesses(op, operands)
    if "experts" not in op.attrs:
        return accesses
    experts, weights = op.size("experts"), operands.storages[op.inputs[1]]
    touched = experts * (1 - (1 - 1 / experts) ** op.size("m"))
    return [
        replace(access, nbytes=access.nbytes * touched / experts) if access.tensor == weights else access
        for access in accesses
    ]


def _conv_accesses(op: Op, operands: Operands) -> list[Access]:
    """Of a forward convolution's input, the rows that some tap meets and, where the channels of a position lie together
    (``layout``), of these the positions: a stride longer than the kernel leaves others out."""
    accesses = _plain_accesses(op, operands)
    lengths = zip(*(op.sizes(name) for name in ("in_size", "out_size", "kernel")), strict=True)
    met = [min(1.0, target * tap / source) for source, target, tap in lengths if source]
    first = op.attrs.get("layout") == "nchw"
    share = prod(met[:-1] if first else met)
    if share == 1.0 or op.flag("transposed") or op.attrs.get("direction", "forward") != "forward":
        return accesses
    run = op.sizes("in_size")[-1] if first else op.sizes("kernel")[-1] * op.size("in_channels")
    granule = dtype(operands.tensors[op.inputs[0]].dtype).bytes_for(run)
    met_alone = replace(accesses[0], nbytes=share * accesses[0].nbytes, pattern=Pattern.STRIDED, granule=granule)
    return [met_alone, *accesses[1:]]


def _copy_accesses(op: Op, operands: Operands) -> list[Access]:
    """Where the order changes, reads come in runs of ``run`` elements (absent: long ones)."""
    accesses = _plain_accesses(op, operands)
    if not op.flag("strided"):
        return accesses
    run = op.size("run") if "run" in op.attrs else 0
    granule = dtype(operands.tensors[op.inputs[0]].dtype).bytes_for(run)
    return [a if a.write else replace(a, pattern=Pattern.STRIDED, granule=granule) for a in accesses]


def _gather_accesses(op: Op, operands: Operands) -> Iterable[Access]:
    """The first input is the table: only the picked elements are read (at most the whole of it, when it is smaller)."""
    table, *indices = op.inputs
    picked = operands.tensors[table]
    element = dtype(picked.dtype).bytes_for(1)
    nbytes = min(op.size("picks") * op.size("elements") * element, operands.nbytes[table])
    granule = op.size("elements") * element
    yield Access(operands.storages[table], picked.role, nbytes, pattern=Pattern.GATHER, granule=granule)
    yield from _whole(indices, operands)
    yield from _whole(op.outputs, operands, write=True)


def _scatter_accesses(op: Op, operands: Operands) -> Iterable[Access]:
    """The output is touched at the picked elements only, and read there too where values accumulate."""
    yield from _whole([name for name in op.inputs if name not in op.outputs], operands)
    target = operands.tensors[op.outputs[0]]
    element = dtype(target.dtype).bytes_for(1)
    nbytes = op.size("picks") * op.size("elements") * element
    granule = op.size("elements") * element
    touched = Access(operands.storages[target.name], target.role, nbytes, True, Pattern.SCATTER, granule)
    if op.text("function") in ("add", "reduce"):
        yield replace(touched, write=False)
    yield touched


_EXCEPTIONS: dict[Kind, Callable[[Op, Operands], Iterable[Access]]] = {
    Kind.GATHER: _gather_accesses,
    Kind.SCATTER: _scatter_accesses,
    Kind.MATMUL: _matmul_accesses,
    Kind.CONV: _conv_accesses,
    Kind.COPY: _copy_accesses,
    Kind.VIEW: _no_accesses,
    **dict.fromkeys((Kind.WRITE, Kind.FILL, Kind.RANDOM), _write_accesses),
}


def _lookup(table: dict[str, tuple[float, float]], op: Op) -> tuple[float, float]:
    function = op.text("function")
    if function not in table:
        raise GraphError(f"{op.kind} function '{function}' of '{op.source}' has no work formula")
    return table[function]
