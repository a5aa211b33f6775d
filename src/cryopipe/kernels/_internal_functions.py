"""Numba's internal functions round strictly, whoever asks for them first.

Some operations become functions that Numba compiles by itself, once in a process: the product of two complex numbers, the
power of a float, a complex quotient. It compiles them with the arithmetic of the first function that needs them. Where that
one allows sums to be fused or reordered (``fastmath``), every strict function compiled later is served the same copy, and
the other way round; so the last bits of a kernel would depend on what the process, or the one that filled the cache,
compiled before. `cryopipe.kernels.cpu.cache_lock.install` installs this repair before Numba compiles anything.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from numba.core.base import BaseContext

_MARK = "strict_by_cryopipe"


def install() -> None:
    """Let internal functions be compiled without ``fastmath``; once, whoever calls.

    An expression of whole arrays is a function of its caller alone: it keeps the caller's arithmetic, which Numba hands
    over in ``flags``.
    """
    if hasattr(BaseContext._compile_subroutine_no_cache, _MARK):
        return
    plain = BaseContext._compile_subroutine_no_cache

    @wraps(plain)
    def compile_strictly(self: Any, *arguments: Any, **options: Any) -> Any:
        return plain(self.subtarget(fastmath=False) if self.fastmath else self, *arguments, **options)

    setattr(compile_strictly, _MARK, True)
    BaseContext._compile_subroutine_no_cache = compile_strictly
