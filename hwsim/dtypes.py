"""Number formats: how many bits an element takes in memory, with the overheads of block formats."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwsim.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class DType:
    """A storage format.

    ``bits`` is the payload of one element; every block of ``block`` elements adds ``block_bits`` (a shared
    exponent or scale). ``kind`` is float, int, bool or block.
    """

    name: str
    bits: float
    kind: str
    block: int = 1
    block_bits: int = 0
    bits_per_element: float = field(init=False)
    """Mean bits in memory, block overhead included."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits_per_element", self.bits + self.block_bits / self.block)

    def bytes_for(self, elements: float) -> float:
        """Bytes that ``elements`` of this format take."""
        return elements * self.bits_per_element / 8


_FORMATS = (
    DType("fp64", 64, "float"),
    DType("fp32", 32, "float"),
    DType("tf32", 32, "float"),
    DType("bf16", 16, "float"),
    DType("fp16", 16, "float"),
    DType("fp8", 8, "float"),
    DType("fp8_e5m2", 8, "float"),
    DType("fp4", 4, "float"),
    DType("complex64", 64, "float"),
    DType("complex128", 128, "float"),
    DType("int64", 64, "int"),
    DType("int32", 32, "int"),
    DType("int16", 16, "int"),
    DType("int8", 8, "int"),
    DType("int4", 4, "int"),
    DType("int2", 2, "int"),
    DType("uint64", 64, "int"),
    DType("uint32", 32, "int"),
    DType("uint16", 16, "int"),
    DType("uint8", 8, "int"),
    DType("uint4", 4, "int"),
    DType("bool", 8, "bool"),
    # Block floating point with a shared 8-bit exponent per 64 elements (arXiv 2403.20137).
    DType("bfp12", 4, "block", block=64, block_bits=8),
    DType("bfp16", 8, "block", block=64, block_bits=8),
    # OCP microscaling: an 8-bit scale per 32 elements.
    DType("mxfp8", 8, "block", block=32, block_bits=8),
    DType("mxfp4", 4, "block", block=32, block_bits=8),
    # Three values in log2(3) bits, as BitNet b1.58 states it; packed storage takes 2.
    DType("ternary", 1.58, "int"),
)
DTYPES: dict[str, DType] = {fmt.name: fmt for fmt in _FORMATS}


def dtype(name: str) -> DType:
    """The format called ``name``; raises `UnknownNameError` with the nearest names."""
    try:
        return DTYPES[name]
    except KeyError:
        raise UnknownNameError("dtype", name, DTYPES) from None
