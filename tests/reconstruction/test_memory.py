"""Memory is known before a reconstruction starts."""

from __future__ import annotations

import pytest

from cryopipe.errors import DeviceError
from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.reconstruction import memory
from cryopipe.reconstruction.reconstruct import Reconstruction


@pytest.mark.parametrize(("box", "radius", "padding"), [(32, 15, 2), (64, 20, 2), (48, 23, 3)])
def test_the_need_is_what_the_accumulators_take(box: int, radius: int, padding: int) -> None:
    need = memory.memory_need(box, radius, padding=padding, images_per_batch=7)
    assert need.accumulators == Reconstruction.empty(box, radius, padding=padding).nbytes
    # pixels within round(|k|) <= radius, of which the need counts the half disc: the rim differs
    assert need.batch == pytest.approx(7 * 12 * len(half_plane(box, radius)), rel=0.05)
    assert need.rotation == 0
    assert memory.memory_need(box, radius, padding=padding, interpolated=True).rotation == need.accumulators


def test_a_box_of_512_needs_what_is_stated() -> None:
    need = memory.memory_need(512, 255)
    assert need.accumulators == 12 * 1025 * 1025 * 513  # R = ceil(2 x 255.5) + 1 = 512
    assert need.accumulators == pytest.approx(6.47e9, rel=1e-3)
    assert need.solution == 8 * 512 * 1025 * 513 + 4 * 512**3
    assert need.peak == pytest.approx(9.16e9, rel=1e-3)


def test_too_little_memory_is_refused_before_it_is_taken_with_the_radius_that_fits() -> None:
    with pytest.raises(
        DeviceError, match=r"needs 1.07 GB, but 0.50 GB of host memory are free. The largest radius that fits is \d+"
    ) as e:
        memory.check_memory(250, 124, padding=2, interpolated=False, gpu=False, free_bytes=500_000_000)
    radius = int(str(e.value).split("that fits is ")[1].split()[0])
    assert memory.memory_need(250, radius).peak <= 500_000_000 < memory.memory_need(250, radius + 1).peak
    with pytest.raises(DeviceError, match="Crop the images"):
        memory.check_memory(250, 124, padding=2, interpolated=False, gpu=True, free_bytes=1000)


def test_a_reconstruction_asks_before_it_allocates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: 1_000_000)
    with pytest.raises(DeviceError, match=r"box 64, radius 31, padding 2 needs"):
        Reconstruction.empty(64, 31)
    assert Reconstruction.empty(16, 7).nbytes < 1_000_000


def test_the_batch_shrinks_to_what_is_free_and_one_image_must_fit() -> None:
    each = memory.memory_need(64, 31, images_per_batch=1).batch
    assert memory.images_that_fit(31, wanted=100, gpu=False, free_bytes=10 * each) == 10
    assert memory.images_that_fit(31, wanted=100, gpu=False, free_bytes=1000 * each) == 100
    with pytest.raises(DeviceError, match=r"0.01 MB of GPU memory are free, but an image of radius 31 needs 0.02 MB"):
        memory.images_that_fit(31, wanted=100, gpu=True, free_bytes=each // 2)


def test_a_machine_that_does_not_say_what_is_free_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_memory", lambda: None)
    assert memory.images_that_fit(31, wanted=100, gpu=False) == 100
    assert memory.check_memory(64, 31, padding=2, interpolated=False, gpu=False).peak > 0


def test_the_host_says_how_much_is_free() -> None:
    free = memory.free_host_memory()
    assert free is None or free > 10_000_000
