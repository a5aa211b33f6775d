"""Maps on other grids: whatever the ratio of the pixel sizes, the density stays where it is."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.validation.maps import on_grid

#: Centre (x, y, z) and sd of the Gaussians in Å: no density at the box's edge, none beyond Nyquist of 1.5 Å pixels.
_BLOBS = (((3.0, -4.0, 6.0), 2.0), ((-7.0, 5.0, -2.0), 2.5), ((0.0, 8.0, 1.0), 2.2))


def blobs(box: int, pixel_size_A: float) -> np.ndarray:
    axis = (np.arange(box) - box // 2) * pixel_size_A
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return sum(np.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / (2 * sd**2)) for c, sd in _BLOBS).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("old_A", "new_A"),
    [
        pytest.param(0.7, 0.70125, id="the tutorial's truth and its particles of 17/12 pixels"),
        pytest.param(0.70125, 0.7, id="finer by two per mille"),
        pytest.param(1.0, 1.0012, id="nearly equal"),
        pytest.param(0.8, 1.2, id="a common grid"),
    ],
)
@pytest.mark.parametrize("box", [40, 41, 90])
def test_density_stays_in_place_at_any_ratio_of_pixel_sizes(old_A, new_A, box):
    resampled = on_grid(blobs(72, old_A), old_A, box=box, new_pixel_size_A=new_A)
    expected = blobs(box, new_A)
    inside = np.abs((np.arange(box) - box // 2) * new_A) < 34 * old_A
    assert resampled.dtype == np.float32
    assert resampled.shape == (box,) * 3
    inner = np.ix_(inside, inside, inside)
    np.testing.assert_allclose(resampled[inner], expected[inner], atol=0.004)
    assert not resampled[0, 0, 0] > 0.004


def test_coarser_pixels_lose_what_lies_beyond_their_nyquist_frequency():
    n, ratio = 64, 1 / 1.0023
    axis = np.arange(n) - n // 2
    beyond = np.broadcast_to(np.cos(np.pi * axis), (n, n, n)).astype(np.float32)
    kept = np.broadcast_to(np.cos(2 * np.pi * 8 / n * axis), (n, n, n)).astype(np.float32)
    resampled = on_grid(beyond + kept, 1.0, box=40, new_pixel_size_A=1.0 / ratio)
    x = (np.arange(40) - 20) / ratio
    np.testing.assert_allclose(resampled, np.broadcast_to(np.cos(2 * np.pi * 8 / n * x), (40,) * 3), atol=1e-5)


def test_a_full_size_truth_map_reaches_the_grid_of_its_particles():
    assert on_grid(blobs(268, 0.7), 0.7, box=250, new_pixel_size_A=0.70125).shape == (250,) * 3
