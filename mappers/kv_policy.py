"""What the policies of a key/value cache keep, how often they drop tokens, and what they note down."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from hwsim.dtypes import DTYPES
from hwsim.errors import InputError, Problem
from hwsim.mapper_options import option

AS_THE_MODEL = "model"
FORMATS = (AS_THE_MODEL, *(name for name, fmt in DTYPES.items() if fmt.bits <= 16 and fmt.kind != "bool"))


@dataclass(frozen=True, slots=True)
class KvOptions:
    """What stays in the cache, in which format, and what a framework adds.

    window keeps the newest tokens; scissorhands drops those that recent queries attended to least (arXiv 2305.17118);
    trim those that a retention gate values least (TRIM-KV, arXiv 2512.03324), a buffer full at a time; gate drops a
    share of the prompt (Attention-Gate, arXiv 2410.12876). The gates belong to the models.
    """

    policy: str = option(
        "full", "which tokens a cache keeps", choices=("full", "window", "scissorhands", "trim", "gate")
    )
    budget: int = option(1024, "tokens that stay, per sequence and head (window, scissorhands, trim)", low=2)
    buffer: int = option(128, "tokens that gather beyond the budget before some are dropped (trim)", low=1)
    drop: float = option(0.5, "share of the budget dropped at once (scissorhands), of the prompt (gate)", high=1)
    history: int = option(512, "queries whose attention is remembered (scissorhands)", low=1)
    prompt: int = option(0, "tokens that the gate has seen; later ones all stay (0: it has seen all)")
    keys: str = option(AS_THE_MODEL, "format of cached keys", choices=FORMATS)
    values: str = option(AS_THE_MODEL, "format of cached values", choices=FORMATS)
    group: int = option(64, "elements that share a scale and a zero of 16 bits, in integer formats", low=1)
    framework_copies: bool = option(
        False, "a step copies the cache to append to it, unpacks it, and repeats key/value heads for their queries"
    )
    bookkeeping: int = option(0, "small operations that the framework spends on the policy, per layer and step")
    kernels: str = option("fused", "the mapper of all else", choices=("fused", "recorded", "eager"))

    def __post_init__(self) -> None:
        if self.policy == "gate" and self.drop == 1:
            raise InputError(Problem(path="drop", got="1", expected="less than 1: a gate keeps some tokens"))

    @property
    def dropped(self) -> int:
        """Tokens that Scissorhands drops at once."""
        return max(1, min(self.budget - 1, round(self.drop * self.budget)))


def kept(tokens: int, options: KvOptions) -> int:
    """Tokens in the cache, of ``tokens`` so far, on average between two compactions."""
    match options.policy:
        case "window":
            return min(tokens, options.budget)
        case "scissorhands" if tokens > options.budget:
            return ceil(options.budget - options.dropped / 2)
        case "trim" if tokens > options.budget + options.buffer:
            return ceil(options.budget + options.buffer / 2)
        case "gate":
            seen = min(tokens, options.prompt or tokens)
            return tokens - int(options.drop * seen)
    return tokens


def capacity(tokens: int, options: KvOptions) -> int:
    """The most tokens that the cache has held by then."""
    match options.policy:
        case "window" | "scissorhands":
            return min(tokens, options.budget)
        case "trim":
            return min(tokens, options.budget + options.buffer)
    return kept(tokens, options)


def after_prompt(tokens: int, options: KvOptions) -> int:
    """Tokens that a prompt of ``tokens`` leaves in the cache."""
    match options.policy:
        case "window" | "scissorhands":
            return min(tokens, options.budget)
        case "trim" if tokens > options.budget + options.buffer:
            return options.budget
    return kept(tokens, options)


def interval(tokens: int, options: KvOptions) -> int:
    """Steps from one compaction to the next at ``tokens`` so far; 0: the policy never compacts."""
    if options.policy == "scissorhands" and tokens > options.budget:
        return options.dropped
    if options.policy == "trim" and tokens > options.budget + options.buffer:
        return options.buffer
    return 0


def survivors(options: KvOptions) -> int:
    """Tokens that a compaction leaves."""
    return options.budget - options.dropped if options.policy == "scissorhands" else options.budget


def scale_elements(name: str, elements: int, options: KvOptions) -> int:
    """16-bit scales and zeros of ``elements`` cached in an integer format; block formats carry their own."""
    fmt = DTYPES.get(name)
    return 2 * ceil(elements / options.group) if fmt is not None and fmt.kind == "int" else 0
