"""The search of a movie's track in the maps of all pairs, against motion that is known."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.movies.motion.correlation import CorrelationGrid, correlation_grid, correlation_spectrum, whitened
from cryopipe.movies.motion.global_alignment import estimate_global_motion
from cryopipe.movies.motion.pair_maps import map_peaks, pair_maps

SIZE, FRAMES, RESOLUTION = 512, 16, 15.0


def movie(
    track: np.ndarray, contrast: float, *, pattern: float = 0.0, seed: int = 0
) -> tuple[list[np.ndarray], CorrelationGrid]:
    """Return spectra of frames at 1 Å/px with noise of deviation 1, a specimen that moves and a pattern that does not."""
    rng = np.random.default_rng(seed)
    ky, kx = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]
    specimen = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) * np.exp(-0.5 * (np.hypot(ky, kx) / 0.05) ** 2)
    specimen *= contrast / np.fft.irfft2(specimen, s=(SIZE, SIZE)).std()
    still = pattern * rng.standard_normal((SIZE, SIZE))
    grid = correlation_grid((SIZE, SIZE), 1.0, RESOLUTION)
    spectra = []
    for x, y in track:
        moved = np.fft.irfft2(specimen * np.exp(-2j * np.pi * (kx * x + ky * y)), s=(SIZE, SIZE))
        frame = moved + still + rng.standard_normal((SIZE, SIZE))
        spectra.append(correlation_spectrum(frame.astype(np.float32), grid))
    return spectra, grid


def drift(length_A: float, n: int = FRAMES) -> np.ndarray:
    t = np.arange(n) / (n - 1)
    return np.stack([length_A * t, 6.0 * (1 - np.exp(-5 * t)) - 0.3 * length_A * t], axis=1)


def error(shifts: np.ndarray, track: np.ndarray) -> float:
    rest = shifts + track
    return float(np.sqrt(((rest - rest.mean(axis=0)) ** 2).sum(axis=1).mean()))


@pytest.mark.parametrize("length", [0.0, 40.0, 100.0])
def test_a_drift_is_followed_where_hardly_a_pair_of_frames_has_a_peak(length: float) -> None:
    track = drift(length)
    spectra, grid = movie(track, 0.022, seed=int(length))
    motion = estimate_global_motion(spectra, grid)
    assert motion.agreeing < 0.3
    # a frame that is too weak stays on the smooth track: within a sixth of the resolution
    assert error(motion.shifts_px, track) < RESOLUTION / 6


def test_a_pattern_of_the_camera_does_not_hold_a_movie_that_drifts() -> None:
    track = drift(36.0)
    spectra, grid = movie(track, 0.03, pattern=0.3, seed=1)
    maps = pair_maps(whitened(spectra, grid), grid, 60.0)
    # most pairs have their highest place at zero shift
    assert np.mean(np.hypot(*map_peaks(maps)[0].T) < 5) > 0.8
    assert error(estimate_global_motion(spectra, grid).shifts_px, track) < 2.0


def test_a_bound_on_the_shifts_is_kept() -> None:
    spectra, grid = movie(drift(60.0), 0.1, seed=2)
    free = estimate_global_motion(spectra, grid).shifts_px
    bound = estimate_global_motion(spectra, grid, max_shift_A=20.0).shifts_px
    assert np.ptp(free, axis=0).max() > 55
    # frames are moved by up to half a resolution when each meets the sum of the others
    assert np.ptp(bound, axis=0).max() <= 20 + RESOLUTION


def test_maps_of_noise_have_the_deviation_that_they_are_measured_in() -> None:
    spectra, grid = movie(np.zeros((8, 2)), 0.0, seed=3)
    maps = pair_maps(whitened(spectra, grid), grid, 60.0)
    # 28 maps of some 500 independent places: 0.6 %, and the spectra's own estimate of the power
    assert maps.maps.std() == pytest.approx(1.0, abs=0.03)
    assert maps.maps[:, :4].std() == pytest.approx(maps.maps[:, 14:18].std(), rel=0.1)  # the border loses nothing


def test_many_frames_are_followed_in_groups() -> None:
    track = drift(50.0, 80)
    spectra, grid = movie(track, 0.04, seed=4)
    assert error(estimate_global_motion(spectra, grid).shifts_px, track) < RESOLUTION / 6
