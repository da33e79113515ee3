"""Python functions over arrays as machine code, compiled on first use and kept beside their files."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])
_njit = cast("Callable[..., Callable[[object], object]]", njit)  # its stubs lack some of its options


def compiled(
    function: F,
    error_model: Literal["python", "numpy"] = "python",
    *,
    inline: bool = False,
    inner: bool = False,
) -> F:
    """``function`` compiled to machine code; ``.py_func`` is the plain one. ``error_model`` as numba has it.

    ``inline`` makes it a part of those that call it. ``inner`` is for other compiled functions only: Python cannot call
    it, which makes it a quarter faster to compile.

    What is kept holds the constants and the code of all functions that it calls, in whichever file, where numba looks
    at the function's own file only: it is kept under a name with the digest of all files of the folder.
    """
    function.__qualname__ += f"_{_digest(Path(function.__code__.co_filename).parent)}"
    options = {"no_cpython_wrapper": inner, "no_cfunc_wrapper": inner, "forceinline": inline}
    return cast("F", _njit(cache=True, nogil=True, error_model=error_model, **options)(function))


@lru_cache
def _digest(folder: Path) -> str:
    """Of the code in a folder."""
    files = sorted(folder.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
