"""Memory that was freed goes back to the system: allocators keep it for later, where it counts as the job's.

Reading a table takes several times what the table takes, in pieces of some hundred bytes for each particle; without this
some 400 bytes for each stay resident for as long as the job lives. Arrays above 32 MB, such as the blocks of a particle
store, are given back by themselves and cannot use what is kept (glibc, mallopt(3): M_MMAP_THRESHOLD).
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any


def return_freed_memory() -> None:
    """Give what the allocators of Python's objects and of pandas' texts keep back to the system, where they can (glibc)."""
    arrow: Any = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))
