"""Groups of options: a dataclass in the signature is an option per field on the command line."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from hwsim.commands.groups import grouped


@dataclass(frozen=True)
class Load:
    size: Annotated[int, typer.Option(min=1, help="Bytes.")]
    kind: Annotated[str, typer.Option("--of", help="What.")] = "reads"


def made(*arguments: str) -> tuple[int, list[object]]:
    """The exit code of a command with a group between its own parameters, and what it was called with."""
    seen: list[object] = []
    app = typer.Typer()

    @app.command()
    @grouped
    def bench(
        card: Annotated[str, typer.Argument()], load: Load, json: Annotated[bool, typer.Option()] = False
    ) -> None:
        """A benchmark."""
        seen.extend((card, load, json))

    return CliRunner().invoke(app, list(arguments)).exit_code, seen


def test_fields_are_options_with_their_names_bounds_and_defaults():
    assert made("hbm", "--size", "8") == (0, ["hbm", Load(8), False])
    assert made("hbm", "--of", "writes", "--size", "8", "--json") == (0, ["hbm", Load(8, "writes"), True])


def test_what_is_missing_or_out_of_bounds_is_refused():
    assert made("hbm") == (2, [])
    assert made("hbm", "--size", "0") == (2, [])
