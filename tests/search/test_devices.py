from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cryopipe.errors import DeviceError
from cryopipe.imaging.geometry import random_rotations
from cryopipe.kernels import devices
from cryopipe.kernels._memory import in_batches
from cryopipe.kernels.devices import Resources
from cryopipe.projection.references import ReferenceSlices
from cryopipe.search.exhaustive import search as global_search
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.exhaustive.tile import TileSettings
from cryopipe.search.exhaustive.tile_gpu import ArrayTile, tile_bytes_an_image
from cryopipe.search.options import GreyScale, SearchOptions
from cryopipe.search.posterior import Posterior
from cryopipe.search.shifts import ShiftGrid, shift_grid
from tests.particle_scenes import Scene, phantom, scene

SHIFTS = shift_grid(2, 1)
OPTIONS = SearchOptions(inverse_temperature=0.3, accumulate=True, keep_significant=True, candidates=3)


@pytest.fixture(scope="module")
def small() -> tuple[Scene, np.ndarray]:
    one = scene(phantom(32), 50, snr=0.2, radius=9)
    return one, one.truth.slices(random_rotations(np.random.default_rng(8), 70), one.images.pixels)


class OutOfMemory(MemoryError):
    """As CuPy's OutOfMemoryError, which is a MemoryError."""


def test_blocks_are_halved_until_they_fit_and_come_back_in_order() -> None:
    sizes = []

    def work(part: np.ndarray) -> list[int]:
        sizes.append(len(part))
        if len(part) > 6:
            raise OutOfMemory("7 GB asked for")
        return part.tolist()

    found = in_batches(work, np.arange(30), 20)
    assert [i for part in found for i in part] == list(range(30))
    assert sizes == [20, 10, 5, 5, 5, 5, 5, 5]
    with pytest.raises(MemoryError):
        in_batches(work, np.arange(30), 20, halve=False)


def test_one_image_that_does_not_fit_is_a_device_error_with_a_remedy() -> None:
    def work(part: np.ndarray) -> None:
        raise OutOfMemory("7 GB asked for")

    with pytest.raises(DeviceError, match=r"7 GB asked for.*smaller radius"):
        in_batches(work, np.arange(3), 2)


@pytest.mark.parametrize("where", ["score", "posterior", "accumulate"])
def test_a_search_that_runs_out_of_memory_halves_its_tile_and_gives_the_same(
    small: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    one, references = small
    tiles = []

    class Tight(ArrayTile):
        """Array expressions as on the GPU, on a device where six images fit."""

        def score(self, data: Any, part: np.ndarray) -> np.ndarray:
            tiles.append(len(part))
            self.full = len(part) > 6
            self._allocate("score")
            return super().score(data, part)

        def posterior(self, n: int, log_state: Any, log_shift: Any) -> Any:
            self._allocate("posterior")
            return super().posterior(n, log_state, log_shift)

        def accumulate(self, n: int, answer: Any) -> None:
            self._allocate("accumulate")
            super().accumulate(n, answer)

        def _allocate(self, here: str) -> None:
            if self.full and here == where:
                raise OutOfMemory("full")

    def tile(kind: type[ArrayTile]) -> Any:
        return lambda xp, given, settings, threads: kind(given, settings)

    def halving(work: Any, items: np.ndarray, size: int, *, what: str, halve: bool) -> Any:
        return in_batches(work, items, 40)

    monkeypatch.setattr(global_search, "in_batches", halving)
    monkeypatch.setattr(global_search, "_tile", tile(ArrayTile))
    roomy = search_poses(one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS), options=OPTIONS)
    monkeypatch.setattr(global_search, "_tile", tile(Tight))
    tight = search_poses(one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS), options=OPTIONS)
    assert tiles[:4] == [40, 20, 10, 5]
    _same(tight, roomy)


def _same(a: Posterior, b: Posterior) -> None:
    np.testing.assert_array_equal(a.best_state, b.best_state)
    # other shapes of the products: float32 rounding of log-likelihoods up to 100
    np.testing.assert_allclose(a.log_evidence, b.log_evidence, atol=1e-4)
    assert a.sums is not None
    assert b.sums is not None
    np.testing.assert_allclose(a.sums.numerator, b.sums.numerator, atol=1e-4 * np.abs(b.sums.numerator).max())
    np.testing.assert_allclose(a.sums.weight, b.sums.weight, atol=1e-4 * b.sums.weight.max())
    np.testing.assert_allclose(a.sums.data_power, b.sums.data_power, rtol=1e-10)


def test_devices_share_fixed_blocks_whose_results_keep_their_order() -> None:
    barrier = threading.Barrier(2, timeout=300)
    seen: list[tuple[int, int]] = []

    def work(device: int, rows: slice) -> int:
        seen.append((device, rows.start))
        if rows.start < 8:
            barrier.wait()  # both devices work at once
        return rows.stop - rows.start

    assert devices.over_devices(work, 30, 4, [0, 1], activate=False) == [4] * 7 + [2]
    assert {device for device, _ in seen} == {0, 1}
    with pytest.raises(DeviceError, match="list of GPUs is empty"):
        devices.over_devices(work, 30, 4, [], activate=False)


@pytest.mark.parametrize("numbers", [[0], [0, 1, 2]])
def test_a_search_over_devices_is_that_of_its_blocks(
    small: Any, monkeypatch: pytest.MonkeyPatch, numbers: list[int]
) -> None:
    one, references = small
    base = np.random.default_rng(0).normal(size=(50, 2))
    prior = np.random.default_rng(1).normal(size=(50, len(SHIFTS)))
    given = (one.images, one.noise, ReferenceSlices(references), ShiftGrid(SHIFTS, prior, base))
    options: dict[str, Any] = {"scale": GreyScale(np.linspace(0.9, 1.1, 50)), "options": OPTIONS}
    monkeypatch.setattr(global_search, "to_device", np.asarray)  # NumPy plays the device
    on_host = devices.over_devices
    monkeypatch.setattr(global_search, "over_devices", lambda *given: on_host(*given, activate=False))
    found = search_poses(*given, resources=Resources(threads=1, devices=tuple(numbers), block=20), **options)
    whole = search_poses(*given, **options)
    _same(found, whole)
    np.testing.assert_allclose(found.shift_px, whole.shift_px)
    assert found.significant is not None
    assert whole.significant is not None
    np.testing.assert_array_equal(np.diff(found.significant.start), found.n_significant)
    for i in (0, 25, 49):
        np.testing.assert_array_equal(found.significant.of_image(i)[0], whole.significant.of_image(i)[0])


def test_no_device_is_visible_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.gpu_unavailable_reason.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    assert devices.visible_devices() == []
    devices.gpu_unavailable_reason.cache_clear()


def test_the_array_tile_stays_below_the_memory_predicted_for_it(small: Any) -> None:
    import tracemalloc

    one, _ = small
    references = one.truth.slices(random_rotations(np.random.default_rng(3), 900), one.images.pixels)
    n = len(one.images)
    settings = TileSettings(n, 1, len(SHIFTS), 1, 1.0, 0.999, 0, False, True)
    tile = ArrayTile(references, settings)
    data = global_search.tile_data(one.images, one.noise, ShiftGrid(SHIFTS), GreyScale(), np)
    tracemalloc.start()
    tile.score(data, np.arange(n))
    tile.accumulate(n, tile.posterior(n, np.zeros(900, np.float32), np.zeros((n, len(SHIFTS)), np.float32)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    predicted = n * tile_bytes_an_image(len(SHIFTS), 900, len(one.images.pixels), accumulate=True)
    sums = 3 * references.nbytes  # products of the M-step before they are added
    assert 0.4 * predicted < peak < predicted + sums


def test_the_gpu_gives_the_cpus_answer(small: Any, cupy: Any) -> None:
    one, references = small
    shifts, options = ShiftGrid(SHIFTS, base_px=np.full((50, 2), 0.3)), {"scale": GreyScale(sd=0.2), "options": OPTIONS}
    cpu = search_poses(one.images, one.noise, ReferenceSlices(references), shifts, **options)
    gpu = search_poses(one.images.to_gpu(), one.noise, ReferenceSlices(cupy.asarray(references)), shifts, **options)
    assert gpu.sums is not None
    # two orders of float32 sums of 280 products whose total reaches 100: 2e-4 in a log-likelihood
    np.testing.assert_allclose(gpu.log_evidence, cpu.log_evidence, atol=5e-4)
    assert np.mean(gpu.best_state == cpu.best_state) > 0.95
    _same(replace(gpu, best_state=cpu.best_state, log_evidence=cpu.log_evidence, sums=gpu.sums.to_host()), cpu)
