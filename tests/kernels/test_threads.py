from __future__ import annotations

import threading

import pytest

from cryopipe.kernels._dispatch import cpu_threads
from cryopipe.kernels.cpu.threads import in_parts


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_parts_cover_every_entry_once(threads: int, count: int) -> None:
    found: list[int] = []
    with cpu_threads(threads):
        in_parts(lambda first, last, extra: found.extend(range(first + extra, last + extra)), count, 5)
    assert sorted(found) == list(range(5, 5 + count))


def test_no_more_threads_work_than_numba_may_use() -> None:
    used: set[int] = set()
    with cpu_threads(1):
        in_parts(lambda first, last: used.add(threading.get_ident()), 64)
    assert used == {threading.get_ident()}


def test_an_error_in_a_part_reaches_the_caller() -> None:
    def fails(first: int, last: int) -> None:
        raise ValueError(f"part {first}")

    with cpu_threads(2), pytest.raises(ValueError, match="part 0"):
        in_parts(fails, 10)
