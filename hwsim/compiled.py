"""Python functions over arrays as machine code, compiled on first use and kept beside their files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar, cast

from numba import njit
from numba.core.caching import IndexDataCacheFile

F = TypeVar("F", bound=Callable[..., object])
_njit = cast("Callable[..., Callable[[object], object]]", njit)  # its stubs lack some of its options
_TAG = f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"


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

    What is kept holds the constants and the code of all functions that it calls. They may stand in any file of the
    function's folder, but in no other folder of hwsim: it is kept for as long as no file of the folder changes.
    """
    options = {"no_cpython_wrapper": inner, "no_cfunc_wrapper": inner, "forceinline": inline}
    made = _njit(cache=True, nogil=True, error_model=error_model, **options)(function)
    cache = getattr(made, "_cache", None)  # there is none where numba is told not to compile
    if cache is not None:
        cache._cache_file = _Kept(cache.cache_path, function)
    return cast("F", made)


class _Kept(IndexDataCacheFile):
    """The files of one function in the folder ``place``, named after the digest of the code that they come from.

    Those of another version are never overwritten, as numba would: other processes may be reading them. They are
    removed once there are new ones.
    """

    def __init__(self, place: str, function: Callable[..., object]) -> None:
        file = Path(function.__code__.co_filename)
        self._place, self._digest = Path(place), _digest(file.parent)
        name = f"{file.stem}.{function.__qualname__}".replace("<", "").replace(">", "")
        super().__init__(place, f"{name}.{_TAG}-{self._digest}", self._digest)  # type: ignore[no-untyped-call]

    def save(self, key: object, data: object) -> None:
        super().save(key, data)  # type: ignore[no-untyped-call]
        for file in self._place.glob(f"*.{_TAG}-*.nb[ci]"):
            if f".{_TAG}-{self._digest}." not in file.name:
                with suppress(OSError):  # another process was faster, or has it open
                    file.unlink()


@lru_cache
def _digest(folder: Path) -> str:
    """Of the code in a folder, and of the options above."""
    files = [Path(__file__), *sorted(folder.glob("*.py"))]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
