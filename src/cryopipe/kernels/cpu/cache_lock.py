"""A lock by which only one process at a time writes Numba's index of the compiled variants of a function.

Numba reads the index, takes the next free number, and writes index and machine code, without a lock. In a fresh
installation two jobs may compile a function for different types within the same milliseconds. Both then take the same
number, and from then on one type runs the code of the other. Numba calls :func:`install` by itself before it compiles
(entry point ``numba_extensions``), in every process that has this package.
"""

from __future__ import annotations

import fcntl
from contextlib import ExitStack, suppress
from functools import wraps
from pathlib import Path
from typing import Any

from numba.core.caching import IndexDataCacheFile

from cryopipe.kernels import _internal_functions

_MARK = "locked_by_cryopipe"


def install() -> None:
    """Make ``IndexDataCacheFile.save`` lock a file beside its index, and internal functions strict. Do it only once."""
    _internal_functions.install()
    if hasattr(IndexDataCacheFile.save, _MARK):
        return
    plain = IndexDataCacheFile.save

    @wraps(plain)
    def save(self: Any, key: Any, data: Any) -> None:
        with ExitStack() as held:
            # on a disk without locks the cache is only as safe as Numba makes it
            with suppress(OSError):
                lock = held.enter_context(Path(self._index_path + ".lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX)
            plain(self, key, data)

    setattr(save, _MARK, True)
    IndexDataCacheFile.save = save
