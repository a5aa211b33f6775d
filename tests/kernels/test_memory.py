"""Batches that shrink where memory runs out, on an allocator that says so."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import DeviceError
from cryopipe.kernels._memory import in_batches


class SmallDevice:
    """Sums what it is given; raises MemoryError for more than ``room`` items, as CuPy does."""

    def __init__(self, room: int) -> None:
        self.room, self.total, self.tried, self.freed = room, np.float32(0), [], 0

    def work(self, batch: np.ndarray) -> int:
        self.tried.append(len(batch))
        if len(batch) > self.room:
            raise MemoryError(f"out of memory allocating {len(batch)} items")
        for value in batch:
            self.total += value
        return len(batch)

    def free(self) -> None:
        self.freed += 1


def test_a_batch_that_does_not_fit_is_halved_and_the_sum_keeps_its_bits() -> None:
    items = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    large, small = SmallDevice(10**6), SmallDevice(77)
    in_batches(large.work, items, 1000)
    answers = in_batches(small.work, items, 1000, free=small.free)
    assert small.total.tobytes() == large.total.tobytes()
    assert sum(answers) == 1000
    assert small.tried[:5] == [1000, 500, 250, 125, 62]
    assert set(small.tried[4:-1]) == {62}  # once halved it stays so
    assert small.freed == 4


def test_an_item_that_does_not_fit_alone_is_refused_with_the_remedy() -> None:
    with pytest.raises(DeviceError, match=r"one image does not fit .* 1 items.*smaller radius"):
        in_batches(SmallDevice(0).work, np.ones(8), 8, what="image", free=lambda: None)


def test_no_items_need_no_memory_and_a_batch_of_none_is_refused() -> None:
    assert in_batches(SmallDevice(0).work, [], 4) == []
    with pytest.raises(ValueError, match="at least one item, not 0"):
        in_batches(SmallDevice(1).work, [1], 0)
