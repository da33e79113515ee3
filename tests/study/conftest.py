"""Small studies, written where a test wants them."""

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = """\
study: small
models: [llama-3.2-1b]
systems: [sn40l]
workload: {phase: decode}
matrix: {batch: [1, 2, 4], prompt: [128, 1k]}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a study (default: six decode cases of a small model) and return its path."""

    def written(text: str = SMALL, name: str = "study.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, "utf-8")
        return path

    return written
