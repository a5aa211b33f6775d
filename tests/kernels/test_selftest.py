"""The self-test passes where the kernels are right and says so where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe import selftest
from cryopipe.kernels import slices


def test_every_kernel_passes_its_check_on_the_cpu() -> None:
    rows = list(selftest.check_kernels("cpu"))
    assert len(rows) == 11
    assert all(row.passed for row in rows), rows


def test_every_kernel_passes_its_check_on_a_gpu(gpu) -> None:
    rows = list(selftest.check_kernels("gpu"))
    assert all(row.passed for row in rows), rows


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = slices.extract_slices
    monkeypatch.setattr(slices, "extract_slices", lambda *a, **k: np.conj(right(*a, **k)))
    verdicts = {row.name: row.passed for row in selftest.check_kernels("cpu")}
    assert not verdicts.pop("slices: extraction")
    assert all(verdicts.values())


def test_device_facts_name_a_gpu_or_the_reason_for_none() -> None:
    text = " ".join(selftest.device_facts())
    assert "compute capability" in text or "none usable" in text
