"""`hwsim roofline` and `hwsim memory-wall`: figures of models on devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwsim.commands import options
from hwsim.commands.output import say

CONTEXTS = 9  # doublings of the context that the memory wall is drawn over

Figure = Annotated[Path, typer.Option(help="The figure's file: .html, or .png and .svg with hwsim[static].")]


def roofline(
    model: options.Models = None,
    device: options.Devices = None,
    phase: options.Phase = None,
    batch: options.Batch = 1,
    prompt: options.Prompt = 2048,
    generate: options.Generate = 128,
    dtype: options.Dtype = "bf16",
    mapper: options.Mapper = "auto",
    mapper_set: options.MapperSet = None,
    spill: options.Spill = False,
    out: Figure = Path("roofline.html"),
) -> None:
    """Draw every kernel under the roofs of the devices."""
    question = options.Question(phase, batch, prompt, generate, dtype, mapper, spill, mapper_set)
    found = [question.ask(*pair) for pair in options.pairs(model, device)]
    from hwsim.report import figures

    drawn = figures.roofline_figure(figures.cases_of(found), figures.kernels_of(found), figures.cards_of(found))
    say(f"figure: {figures.write_figure(drawn, out)}")


def memory_wall(
    model: options.Models = None,
    device: options.Devices = None,
    phase: options.Phase = None,
    batch: options.Batch = 1,
    prompt: Annotated[
        int, typer.Option(parser=options.count, metavar=options.COUNT, help="The longest context.")
    ] = 131072,
    dtype: options.Dtype = "bf16",
    mapper: options.Mapper = "auto",
    mapper_set: options.MapperSet = None,
    out: Figure = Path("memory-wall.html"),
) -> None:
    """Draw time and bytes of every memory against the context, and where a memory is full."""
    wanted = options.pairs(model, device)
    sizes = [
        options.Question(phase, batch, context, 1, dtype, mapper, True, mapper_set) for context in _contexts(prompt)
    ]
    found = [question.ask(*pair) for pair in wanted for question in sizes]
    from hwsim.report import figures

    drawn = figures.memory_wall_figures(figures.cases_of(found), figures.kernels_of(found), figures.cards_of(found))
    for path in figures.write_figures(drawn, out):
        say(f"figure: {path}")


def _contexts(longest: int) -> list[int]:
    """The context and its halves down to a few hundred tokens."""
    return sorted({max(1, longest >> halvings) for halvings in range(CONTEXTS)})
