"""The bits of a compiled function do not depend on what its process compiled before."""

from __future__ import annotations

import subprocess
import sys

#: functions with Numba's internal power and complex product, compiled in a given order; prints the digests of their results
SCRIPT = """
import sys
import numba
import numpy as np

{before}

@numba.njit(inline="always")
def power(values):
    total = np.float32(0)
    for k in range(values.size):
        total += (values[k].real ** 2 + values[k].imag ** 2) * values[k].real
    return total

@numba.njit(fastmath={{"contract", "reassoc", "nsz"}})
def fast(a, b):
    total = np.complex64(0)
    for k in range(a.size):
        total += a[k] * b[k]
    return total, power(a)

@numba.njit
def strict(a, b):
    total = np.complex64(0)
    for k in range(a.size):
        total += a[k] * b[k]
    return total, power(a)

rng = np.random.default_rng(1)
a, b = rng.standard_normal((2, 1000, 2)).view(np.complex128)[..., 0].astype(np.complex64)
found = {{name: globals()[name](a, b) for name in sys.argv[1:]}}
for name in sorted(found):
    print(name, np.asarray(found[name]).tobytes().hex())
"""
#: Numba as it is, for comparison: its own method in the place of the repaired one
UNREPAIRED = """
from numba.core import base, entrypoints
entrypoints.init_all()
base.BaseContext._compile_subroutine_no_cache = base.BaseContext._compile_subroutine_no_cache.__wrapped__
"""


def results(*order: str, before: str = "") -> str:
    """Compile and call the functions in this order in a process of their own; return what it prints."""
    command = [sys.executable, "-c", SCRIPT.format(before=before), *order]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_strict_function_and_one_that_may_reorder_have_the_same_bits_in_either_order() -> None:
    assert results("fast", "strict") == results("strict", "fast")


def test_without_the_repair_they_would_not() -> None:
    assert results("fast", "strict", before=UNREPAIRED) != results("strict", "fast", before=UNREPAIRED)
