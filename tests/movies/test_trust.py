"""Whether frames share a specimen, and which do not: on frames of which that is known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from cryopipe.movies.motion.correlation import correlation_grid, correlation_spectrum
from cryopipe.movies.motion.global_alignment import estimate_global_motion
from cryopipe.movies.motion.joint_motion import RefinedMotion, refine_motion
from cryopipe.movies.motion.patch_spectra import patch_spectra, reduced, reduction

SIZE = 640


def align(stack: Iterable[np.ndarray]) -> RefinedMotion:
    """Align frames at 1 Å/px on patches of 190 Å."""
    grid, block, spectra, small = correlation_grid((SIZE, SIZE), 1.0, 20.0), reduction(1.0, 3.5), [], []
    for frame in stack:
        spectra.append(correlation_spectrum(frame.astype(np.float32), grid))
        small.append(reduced(frame, block))
    motion = estimate_global_motion(spectra, grid)
    patches = patch_spectra(small, block, (SIZE, SIZE), 1.0, motion.shifts_px, patch_A=190.0, finest_A=3.5)
    return refine_motion(
        patches, motion.shifts_px, shape=(SIZE, SIZE), reference=motion.reference, resolution_A=20.0, local=True
    )


def exposed(rng: np.random.Generator, n: int, counts: float, contrast: float = 0.1) -> list[np.ndarray]:
    """Return n frames of a specimen that drifts by 12 px, ``counts`` a pixel in all."""
    ky, kx = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]
    specimen = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) * np.exp(-0.5 * (np.hypot(ky, kx) / 0.05) ** 2)
    specimen *= contrast / np.fft.irfft2(specimen, s=(SIZE, SIZE)).std()
    moved = (
        np.fft.irfft2(specimen * np.exp(-2j * np.pi * kx * 12.0 * t / n), s=(SIZE, SIZE)) for t in range(n)
    )  # fmt: skip
    return [rng.poisson(counts / n * np.maximum(1 + image, 0)) for image in moved]


@pytest.mark.parametrize("pattern", [0.0, 0.02])
def test_noise_has_no_evidence_and_is_left_alone_with_and_without_a_camera_pattern(pattern: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        response = 1 + pattern * rng.standard_normal((SIZE, SIZE))
        found = align(rng.poisson(response.clip(0), (12, SIZE, SIZE)))
        assert found.local is None
        assert found.no_local
        assert found.evidence < 0, f"seed {seed}"
        assert not found.shifts_px.any()


def test_evidence_does_not_depend_on_how_many_frames_an_exposure_is_cut_into() -> None:
    few, many = (align(exposed(np.random.default_rng(1), n, 6.0, 0.06)) for n in (8, 32))
    assert few.evidence > 100
    assert many.evidence > 0.6 * few.evidence


@pytest.mark.parametrize("lost", [[7, 8, 9, 10, 11], [3, 6]])
def test_frames_that_hold_something_else_are_named(lost: list[int]) -> None:
    frames = exposed(np.random.default_rng(2), 12, 24.0)
    if len(lost) > 2:  # the movie falls into two parts, each of one specimen
        others = exposed(np.random.default_rng(3), 12, 24.0)
    for t in lost:
        frames[t] = others[t] if len(lost) > 2 else np.random.default_rng(t).poisson(2.0, (SIZE, SIZE))
    found = align(frames)
    assert found.agreement is not None
    assert found.agreement.lost().tolist() == lost
    # the others share as much as their mean, and scatter as stated
    kept = np.delete(found.agreement.shares, lost)
    assert kept.min() > 0.8
    assert kept.std() < 3 * found.agreement.errors.max()


def test_no_frame_of_a_sound_movie_is_lost() -> None:
    found = align(exposed(np.random.default_rng(4), 12, 12.0))
    assert found.agreement is not None
    assert found.agreement.lost().tolist() == []
