"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from hwsim.errors import InputError
from hwsim.units import parse, parse_count

if TYPE_CHECKING:
    from hwsim.result import Result


def count(text: str | int) -> int:
    """A size as users type it: 8, or 2k for 2048."""
    try:
        return parse_count(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


def nbytes(text: str | int) -> int:
    """A size as benchmarks write it: 4096, 4k (= 4 KiB), 1g, or with a unit: 4KiB, 1 GB."""
    plain = str(text).strip()
    scale = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}.get(plain[-1:].lower(), 1)
    number = plain[:-1] if scale > 1 else plain
    try:
        value = float(number) * scale
    except ValueError:
        try:
            value = parse(plain, "B")
        except InputError as error:
            raise typer.BadParameter(str(error)) from None
    if not 0 <= value < 2**62 or value != int(value):
        raise typer.BadParameter(f"not a size: got '{text}', expected such as 4096, 4k or 4KiB")
    return int(value)


def calibration_of(text: str) -> str | None:
    """What `--calibration` says: None for the card's own figures."""
    return None if text == "none" else text


COUNT = "NUMBER"
MODEL_HELP = "A model of the zoo, a path to .onnx, or package.module:factory."

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON in SI units.")]
Device: TypeAlias = Annotated[str, typer.Option(help="A card's name, or a path to a card.")]
Calibration: TypeAlias = Annotated[
    str,
    typer.Option(help="A file of fitted constants; auto: what ships for the card; none: the card's own figures."),
]
Mapper: TypeAlias = Annotated[str, typer.Option(help="Who decides which kernels run where.")]
MapperSet: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="OPTION=VALUE", help="An option of the mapper. Repeatable.")
]
Phase: TypeAlias = Annotated[
    str | None,
    typer.Option(help="prefill, decode, generate, train or forward.", show_default="decode if the model has it"),
]
Batch: TypeAlias = Annotated[int, typer.Option(parser=count, metavar=COUNT, help="Sequences at a time.")]
Prompt: TypeAlias = Annotated[int, typer.Option(parser=count, metavar=COUNT, help="Tokens before: 2048, 2k.")]
Generate: TypeAlias = Annotated[int, typer.Option(parser=count, metavar=COUNT, help="Tokens that generate makes.")]
Dtype: TypeAlias = Annotated[str, typer.Option(help="bf16, fp16, fp32, int8, fp8 or int4.")]
Spill: TypeAlias = Annotated[bool, typer.Option("--spill", help="Let what does not fit overflow to the host.")]
Dims: TypeAlias = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=SIZE", help="A symbolic size of an ONNX file.")
]
Models: TypeAlias = Annotated[list[str] | None, typer.Option("--model", help=f"{MODEL_HELP} Repeatable.")]
Devices: TypeAlias = Annotated[
    list[str] | None, typer.Option("--device", help="A card's name, or a path to a card. Repeatable.")
]
Out: TypeAlias = Annotated[Path | None, typer.Option(help="Where to write.")]


def sizes(given: list[str] | None) -> dict[str, int]:
    """`--dim batch=8` as a mapping."""
    found = {}
    for text in given or []:
        name, equals, size = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"got '{text}', expected NAME=SIZE such as batch=8", param_hint="--dim")
        found[name] = count(size)
    return found


def settings(given: list[str] | None) -> dict[str, object]:
    """`--mapper-set resident=0.5` as a mapping; values are YAML."""
    from hwsim.yamlfile import load_yaml

    found: dict[str, object] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name and equals):
            expected = "expected OPTION=VALUE such as resident=0.5"
            raise typer.BadParameter(f"got '{text}', {expected}", param_hint="--mapper-set")
        try:
            found[name.strip()], _ = load_yaml(value)
        except InputError as error:
            problems = (
                replace(problem, file="--mapper-set", line=None, column=None, path=name) for problem in error.problems
            )
            raise InputError(*problems) from None
    return found


@dataclass(frozen=True, slots=True)
class Question:
    """What commands ask of every model on every device."""

    phase: str | None
    batch: int = 1
    prompt: int = 2048
    generate: int = 128
    dtype: str = "bf16"
    mapper: str = "auto"
    spill: bool = False
    mapper_set: list[str] | None = None

    def ask(self, model: str, device: str) -> Result:
        """The result of one model on one device."""
        from hwsim.simulation import estimate

        return estimate(
            model,
            device,
            phase=self.phase,
            batch=self.batch,
            prompt=self.prompt,
            generate=self.generate,
            dtype=self.dtype,
            mapper=self.mapper,
            mapper_options=settings(self.mapper_set),
            spill=self.spill,
        )


def pairs(models: list[str] | None, devices: list[str] | None) -> list[tuple[str, str]]:
    """Every model with every device."""
    if not models or not devices:
        raise typer.BadParameter("name at least one --model and one --device")
    return [(model, device) for model in models for device in devices]
