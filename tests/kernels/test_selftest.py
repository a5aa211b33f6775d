"""The self-test passes where the kernels are right and says so where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.kernels import slices
from cryopipe.selftest import checks, machine


def test_every_kernel_passes_its_check_on_the_cpu() -> None:
    rows = list(checks.check_kernels("cpu"))
    assert all(row.passed for row in rows), rows


def test_every_kernel_passes_its_check_on_a_gpu(gpu) -> None:
    rows = list(checks.check_kernels("gpu"))
    assert all(row.passed for row in rows), rows


def test_every_kernel_of_the_package_has_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"slices", "poses", "pose_steps", "warp", "coherence", "ctf_values", "volumes.shells"} <= set(
        checks.kernels()
    )
    assert set(checks.kernels()) == {check.kernel for check in checks.CHECKS}
    monkeypatch.setattr(checks, "CHECKS", checks.CHECKS[:2])
    with pytest.raises(RuntimeError, match=r"no check for coherence, ctf_values, gain\.blocks"):
        checks.run()


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = slices.extract_slices
    monkeypatch.setattr(slices, "extract_slices", lambda *a, **k: np.conj(right(*a, **k)))
    verdicts = {row.name: row.passed for row in checks.check_kernels("cpu")}
    assert not verdicts.pop("slices: extraction")
    assert all(verdicts.values())


def test_device_facts_name_a_gpu_or_the_reason_for_none() -> None:
    text = " ".join(machine.device_facts())
    assert "compute capability" in text or "none can be used" in text
