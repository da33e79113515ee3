"""Rules of ONNX operators that are matrix products, quantised ones included.

Bias, scales and zero points are operands of the product: the runtimes apply them in its epilogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from hwsim.dtypes import DTYPES
from hwsim.errors import GraphError
from hwsim.frontends.onnx_node import INTEGER_UNITS, Node, Shape, Value, broadcast, rule
from hwsim.graph import Kind


def units(a: Value, b: Value) -> str:
    """What a product computes in: integer (or fp8) units where both sides are stored quantised, else "" (as usual)."""
    formats = [DTYPES[name] for name in (value.stored or value.dtype for value in (a, b)) if name in DTYPES]
    quantised = [fmt for fmt in formats if fmt.bits <= 16 and (fmt.kind == "int" or fmt.name.startswith("fp8"))]
    if len(quantised) < 2:
        return ""
    widest = max(quantised, key=lambda fmt: fmt.bits).name
    return INTEGER_UNITS.get(widest, widest)


def product(node: Node, a: Shape, b: Shape, sides: tuple[int, int] = (0, 1), dtype: str | None = None) -> None:
    """Output 0 is the product of the inputs ``sides`` by numpy's rules, their shapes read as ``a`` and ``b``."""
    if not a or not b:
        raise GraphError(f"{node.where}: a scalar has no matrix product")
    rows, k = ((1,), a[0]) if len(a) == 1 else (a[:-1], a[-1])
    cols, depth = (1, b[0]) if len(b) == 1 else (b[-1], b[-2])
    if k != depth:
        raise GraphError(f"{node.where}: {'x'.join(map(str, a))} and {'x'.join(map(str, b))} do not multiply")
    batches = broadcast(node, rows[:-1], b[:-2])
    m_and_n = (() if len(a) == 1 else a[-2:-1]) + (() if len(b) == 1 else b[-1:])
    node.give(0, (*batches, *m_and_n), dtype)
    # One weight for all rows is one large product; else there is one product per batch.
    shared = prod(b[:-2]) == 1
    batch, m = (1, prod(rows[:-1]) * rows[-1]) if shared else (prod(batches), rows[-1])
    node.emit(Kind.MATMUL, batch=batch, m=m, n=cols, k=k, compute=units(node.input(sides[0]), node.input(sides[1])))


@rule("MatMul")
def _matmul(node: Node) -> None:
    product(node, node.shape(0), node.shape(1))


@rule("MatMulInteger")
def _matmul_integer(node: Node) -> None:
    product(node, node.shape(0), node.shape(1), dtype="int32")


@rule("QLinearMatMul")
def _qlinear_matmul(node: Node) -> None:
    """Each of A, B and Y is followed by its scale and zero point."""
    product(node, node.shape(0), node.shape(3), (0, 3), node.dtype(7))


@rule("com.microsoft::MatMulIntegerToFloat")
def _matmul_integer_to_float(node: Node) -> None:
    product(node, node.shape(0), node.shape(1), dtype=node.dtype(2))


@rule("com.microsoft::DynamicQuantizeMatMul")
def _dynamic_quantize_matmul(node: Node) -> None:
    """A is quantised on the way in; the product is an integer one."""
    numel = prod(node.shape())
    quantised = node.inner("quantized", node.shape(), "uint8")
    node.emit(Kind.ELEMENTWISE, (node.name(0),), (quantised,), function="quantize", numel=numel)
    product(node, node.shape(0), node.shape(1))
    last = node.draft.ops.pop()
    compute = units(node.draft.values[quantised], node.input(1))
    node.draft.ops.append(replace(last, inputs=(quantised, *last.inputs[1:]), attrs={**last.attrs, "compute": compute}))


@rule("com.microsoft::FusedMatMul")
def _fused_matmul(node: Node) -> None:
    product(node, _transposed(node, 0, "A"), _transposed(node, 1, "B"))


def _transposed(node: Node, index: int, side: str) -> Shape:
    """The operand's shape after the transpositions that the product does as it reads."""
    shape = node.shape(index)
    if node.integer(f"transBatch{side}") and len(shape) > 2:
        shape = (*shape[1:-1], shape[0], shape[-1])
    if node.integer(f"trans{side}") and len(shape) > 1:
        shape = (*shape[:-2], shape[-1], shape[-2])
    return shape


@rule("Gemm", "com.microsoft::GemmFloat8")
def _gemm(node: Node) -> None:
    product(node, _transposed(node, 0, "A"), _transposed(node, 1, "B"))


@rule("com.microsoft::QGemm")
def _qgemm(node: Node) -> None:
    """A, its scale and zero point, the same of B, then C and the output's scale and zero point."""
    product(
        node, _transposed(node, 0, "A"), _transposed(node, 3, "B"), (0, 3), node.dtype(8) if node.has(8) else "fp32"
    )


@rule("com.microsoft::MatMulNBits")
def _matmul_n_bits(node: Node) -> None:
    """The packed weight is read at its own width, with its scales and zero points."""
    k, n, bits = node.integer("K"), node.integer("N"), node.integer("bits", 4)
    weight = node.name(1)
    if f"int{bits}" in DTYPES and node.input(1).constant:
        node.draft.values[weight] = Value((n, k), f"int{bits}", constant=True)
    product(node, node.shape(0), (k, n), dtype=node.dtype(0))


@rule("Einsum")
def _einsum(node: Node) -> None:
    """Operands are contracted from left to right, two at a time."""
    terms, result = _equation(node)
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        for letter, size in zip(term, node.shape(index), strict=True):
            if sizes.setdefault(letter, size) == 1:
                sizes[letter] = size
            if size not in (1, sizes[letter]):
                raise GraphError(f"{node.where}: index {letter} is both {sizes[letter]} and {size}")
    node.give(0, [sizes[letter] for letter in result])
    output = node.proto.output[0]
    if len(terms) == 1:
        _single_term(node, terms[0], result, sizes)
        return
    left, left_name = terms[0], node.name(0)
    for index in range(1, len(terms)):
        later = set(result).union(*terms[index + 1 :])
        last = index == len(terms) - 1
        made = result if last else "".join(dict.fromkeys(c for c in left + terms[index] if c in later))
        target = output if last else node.inner(f"product {index}", [sizes[c] for c in made], node.dtype())
        _contract(node, (left, terms[index], made), (left_name, node.name(index), target), sizes)
        left, left_name = made, target


def _equation(node: Node) -> tuple[list[str], str]:
    """Terms and result as strings of letters; the axes behind an ellipsis become the digits 0, 1, ..."""
    text = node.text("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(node.proto.input):
        raise GraphError(f"{node.where}: equation '{text}' has {len(terms)} terms for {len(node.proto.input)} inputs")
    rest = [len(node.shape(index)) - len(term.replace("...", "")) for index, term in enumerate(terms)]
    longest = max((count for count, term in zip(rest, terms, strict=True) if "..." in term), default=0)
    axes = "".join(str(place) for place in range(longest))
    spelled = [term.replace("...", axes[longest - count :]) for term, count in zip(terms, rest, strict=True)]
    if any(len(term) != len(node.shape(index)) for index, term in enumerate(spelled)):
        raise GraphError(f"{node.where}: equation '{text}' does not suit the ranks of its inputs")
    letters = [letter for term in spelled for letter in term]
    once = sorted(letter for letter in set(letters) if letters.count(letter) == 1 and letter not in axes)
    return spelled, right.replace("...", axes) if arrow else axes + "".join(once)


def _single_term(node: Node, term: str, result: str, sizes: dict[str, int]) -> None:
    """A sum over the indices that vanish, else a reordering (or the diagonal)."""
    numel = prod(sizes[letter] for letter in set(term))
    kept = prod(sizes[letter] for letter in result)
    if set(term) == set(result):
        node.emit(Kind.COPY, numel=kept, strided=True)
    else:
        node.emit(Kind.REDUCE, function="sum", rows=kept, cols=numel // max(kept, 1))


def _contract(node: Node, terms: Sequence[str], names: Sequence[str], sizes: dict[str, int]) -> None:
    """Indices in both terms are summed (k) or kept (batch); those in one term only make rows and columns.

    An index that only one term has and the result lacks is summed beforehand, as torch does. Without a summed
    index there is no product but a multiplication.
    """
    left, right, made = (set(term) for term in terms)
    k = (left & right) - made
    inputs, outputs = names[:2], names[2:]
    if not k:
        node.emit(Kind.ELEMENTWISE, inputs, outputs, function="mul", numel=prod(sizes[c] for c in left | right))
        return
    batch, m, n, depth = (
        prod(sizes[c] for c in group) for group in (left & right & made, left & made - right, right & made - left, k)
    )
    values = node.draft.values
    compute = units(values[names[0]], values[names[1]])
    node.emit(Kind.MATMUL, inputs, outputs, batch=batch, m=m, n=n, k=depth, compute=compute)


@rule("com.microsoft::MoE", "com.microsoft::QMoE")
def _experts(node: Node) -> None:
    """Router probabilities [tokens, experts]; two (with SwiGLU's gate, three) grouped products of k experts a token."""
    tokens, experts = node.shape(1)
    hidden = node.shape()[-1]
    routed = tokens * node.integer("k", 1)
    quantised = node.key.endswith("QMoE")
    first, second = (2, 5) if quantised else (2, 4)
    node.give(0, node.shape())
    widened, width = node.shape(first)[1:], node.shape(second)[1:]
    # The first product may be stored as [hidden, inner] or, in newer files, as [inner, hidden].
    inner = next((size for size in widened if size != hidden), hidden)
    narrow = inner // 2 if node.text("activation_type") == "swiglu" else inner
    if narrow not in width and hidden not in width:
        raise GraphError(f"{node.where}: expert weights {widened} and {width} do not suit width {hidden}")
    middle = node.inner("hidden", (routed, inner), node.dtype())
    reads = (node.name(0), node.name(first))
    node.emit(Kind.MATMUL, reads, (middle,), batch=1, m=routed, n=inner, k=hidden, experts=experts)
    node.emit(Kind.MATMUL, (middle, node.name(second)), batch=1, m=routed, n=hidden, k=narrow, experts=experts)
