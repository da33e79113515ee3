"""Figures and the self-contained page of a study, made from stored results only."""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["write_report"]


def write_report(out_folder: Path, images: Sequence[str] = ()) -> Path:
    """Write ``report.html`` and ``figures/*.json`` into a results folder; returns the page's path.

    ``images``: suffixes of image files to write as well, ".png" or ".svg"; they need ``hwsim[static]`` and Chrome.
    """
    from hwsim.report.page import build_page

    return build_page(Path(out_folder), images)
