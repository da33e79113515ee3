"""The fitted constants of a CPU: what each one is, its unit, its value on an ideal machine, and where it may lie.

They are parameters of a card like its other figures. Times of loops are those of one core; cores share the work. The
card `cpu-local` carries the values that fit the machine at hand.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwsim.calibration import Constant

NONE_S = 1e-13  # a loop step of an ideal machine
PAIR = "of the shorter of calculation and memory traffic, the share that the longer one does not hide"

CONSTANTS: Mapping[str, Constant] = {
    "op_overhead": Constant("s", 1e-8, 1e-7, 5e-5, "one call of a framework's op"),
    "library_overhead": Constant("s", 1e-8, 1e-8, 1e-3, "more for a convolution, which a library plans at each call"),
    "cold_start": Constant("s", 1e-8, 1e-8, 2e-4, "more for a call whose code and tables are in no cache"),
    "thread_start": Constant("s", 1e-8, 1e-7, 1e-3, "handing work to all cores and waiting for the last"),
    "matmul_share": Constant("1", 1.0, 0.2, 1.0, "sustained share of the peak in matrix products"),
    "conv_share": Constant("1", 1.0, 0.1, 1.0, "the same in convolutions"),
    "attention_share": Constant("1", 1.0, 0.05, 1.0, "the same inside attention"),
    "narrow_share": Constant("1", 1.0, 0.01, 1.0, "of those, what is left in 16-bit formats that are emulated"),
    "int8_share": Constant("1", 1.0, 0.003, 1.0, "of those, what is left in 8-bit integers"),
    "pack_time": Constant("s", NONE_S, NONE_S, 1e-8, "reordering an element of an operand before a product"),
    "result_time": Constant("s", NONE_S, NONE_S, 1e-8, "bringing an element of a product to its place"),
    "convert_time": Constant("s", NONE_S, NONE_S, 1e-8, "an operand's element in attention in a 16-bit format"),
    "special_share": Constant("1", 1.0, 0.05, 30.0, "share of the card's rate of special functions in a loop"),
    "vector_share": Constant("1", 1.0, 0.02, 2.0, "share of the card's rate of vector operations in a loop"),
    "scalar_time": Constant("s", NONE_S, NONE_S, 5e-8, "a step of a loop that has no vector form"),
    "row_time": Constant("s", NONE_S, NONE_S, 1e-5, "a row of a softmax, norm or reduction, or a row looked up"),
    "page_time": Constant("s", NONE_S, NONE_S, 1e-5, "the first touch of a page of a new large result"),
    "main_share": Constant("1", 1.0, 0.3, 1.0, "sustained share of the main memory's bandwidth"),
    "cache_share": Constant("1", 1.0, 0.2, 2.0, "sustained share of the caches' bandwidth"),
    "exposed": Constant("1", 1e-6, 1e-6, 1.0, PAIR),
}

TYPICAL: Mapping[str, float] = {
    "op_overhead": 1.5e-6,
    "library_overhead": 6e-5,
    "cold_start": 1.5e-5,
    "thread_start": 5e-6,
    "matmul_share": 0.95,
    "conv_share": 0.85,
    "attention_share": 0.7,
    "narrow_share": 0.12,
    "int8_share": 0.04,
    "pack_time": 4e-10,
    "result_time": 1e-9,
    "convert_time": 1e-9,
    "special_share": 5.0,
    "vector_share": 0.3,
    "scalar_time": 1e-9,
    "row_time": 3e-8,
    "page_time": 1e-6,
    "main_share": 0.9,
    "cache_share": 0.9,
    "exposed": 0.3,
}
"""What torch and oneDNN do on a server core with AVX2 (Zen 3, torch 2.13): where fits start, and what a machine takes
that was not measured."""
