"""Numba's internal functions get strict arithmetic, independent of the function that needs them first.

Numba compiles some operations as internal functions, once per process: the product of two complex numbers, the power of a
float, a complex quotient. It compiles them with the arithmetic of the first function that needs them. If this function
allows fused or reordered sums (``fastmath``), every strict function that is compiled later uses the same copy, and vice
versa. So the last bits of a kernel would depend on what the process, or the process that filled the cache, compiled
before. `cryopipe.kernels.cpu.cache_lock.install` installs this repair before Numba compiles anything.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from numba.core.base import BaseContext

_MARK = "strict_by_cryopipe"


def install() -> None:
    """Compile internal functions without ``fastmath``. Further calls do nothing.

    An expression of whole arrays becomes a function of its caller alone. It keeps the caller's arithmetic, which Numba
    passes in ``flags``.
    """
    if hasattr(BaseContext._compile_subroutine_no_cache, _MARK):
        return
    plain = BaseContext._compile_subroutine_no_cache

    @wraps(plain)
    def compile_strictly(self: Any, *arguments: Any, **options: Any) -> Any:
        return plain(self.subtarget(fastmath=False) if self.fastmath else self, *arguments, **options)

    setattr(compile_strictly, _MARK, True)
    BaseContext._compile_subroutine_no_cache = compile_strictly
