"""Local motion against a field that is known, and the motion file that stores it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from cryopipe.io.movies import write_movie
from cryopipe.io.star import StarTable, make_optics, read_blocks, write_table
from cryopipe.kernels.warp import node_count, spline_coefficients, warp_accumulate
from cryopipe.movies.motion.correlation import correlation_grid, correlation_spectrum
from cryopipe.movies.motion.dose_weighting import frame_weight
from cryopipe.movies.motion.frame_sums import SPACING, FrameSums, normalised_filters, separate_filters
from cryopipe.movies.motion.global_alignment import estimate_global_motion
from cryopipe.movies.motion.joint_motion import refine_motion
from cryopipe.movies.motion.local_alignment import LocalMotion, patch_layout, spline_values
from cryopipe.movies.motion.patch_spectra import patch_spectra, reduced, reduction
from cryopipe.movies.motion.priors import fit_field, smooth_track
from cryopipe.movies.motion.star import (
    polynomial_field,
    polynomial_model,
    read_motion,
    read_polynomial,
    write_motion,
)

FRAMES, SIZE = 15, 1536


def track() -> np.ndarray:
    t = np.arange(FRAMES)
    path = np.stack([6 * (1 - np.exp(-t / 4)), -4 * (1 - np.exp(-t / 6))], axis=1)
    return path - path[FRAMES // 2]


def bend(frame: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Motion of the specimen beside the track, [2, y, x]: 8 px from edge to edge, most of it early."""
    amount = 16 * (np.exp(-(FRAMES // 2) / 5) - np.exp(-frame / 5))
    v, u = np.meshgrid(y / SIZE - 0.5, x / SIZE - 0.5, indexing="ij")
    return amount * np.stack([0.6 * u + v**2, u * v - 0.6 * v])


def frames(rng: np.random.Generator, counts: float):
    k = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None])
    noise = np.fft.rfft2(rng.standard_normal((SIZE, SIZE)))
    specimen = np.fft.irfft2(noise * np.exp(-0.5 * (k / 0.05) ** 2), s=(SIZE, SIZE))
    coefficients = (0.1 * specimen / specimen.std()).astype(np.float32)
    spline_coefficients(coefficients)
    nodes = SPACING * np.arange(node_count(SIZE, SPACING))
    for t in range(FRAMES):
        still = np.zeros((1, SIZE, SIZE), np.float32)
        field = (bend(t, nodes, nodes) + track()[t][:, None, None]).astype(np.float32)
        warp_accumulate(coefficients, field, SPACING, np.ones(1, np.float32), still, fill=0.0)
        yield rng.poisson(counts * np.maximum(1 + still[0], 0)).astype(np.float32)


def align(
    stack: Iterable[np.ndarray], *, patch_A: float = 500.0, local: bool = True, threads: int = 1
) -> tuple[np.ndarray, LocalMotion | None]:
    """Return global shifts and local motion of frames at 1 Å/px."""
    spectra, small = [], []
    block = reduction(1.0, 3.5)
    for frame in stack:
        shape = frame.shape
        grid = correlation_grid(shape, 1.0, 20.0)
        spectra.append(correlation_spectrum(frame, grid))
        small.append(reduced(frame, block))
    motion = estimate_global_motion(spectra, grid, max_shift_A=50.0)
    patches = patch_spectra(small, block, shape, 1.0, motion.shifts_px, patch_A=patch_A, finest_A=3.5, threads=threads)
    refined = refine_motion(
        patches,
        motion.shifts_px,
        shape=shape,
        reference=motion.reference,
        resolution_A=20.0,
        local=local,
        threads=threads,
    )
    assert (refined.local is None) == bool(refined.no_local), "a movie without local motion says why"
    return refined.shifts_px, refined.local


def field_error(shifts: np.ndarray, local: LocalMotion) -> tuple[float, float, float]:
    """Return rms errors of the field and of frames' means in the inner 90 %, and what the field is without a model."""
    inner = np.linspace(0.05 * SIZE, 0.95 * SIZE, 19)
    truth = np.stack([-bend(t, inner, inner) - track()[t][:, None, None] for t in range(FRAMES)])
    found = np.stack([local.at(t, inner, inner) + shifts[t][:, None, None] for t in range(FRAMES)])
    bent = truth - truth.mean(axis=(2, 3), keepdims=True)
    assert np.ptp(bent) > 8
    rest = found - truth
    frame = rest.mean(axis=(2, 3))
    frame -= frame.mean(axis=0)  # which frame is the reference is no error
    return float(np.sqrt((rest**2).mean())), float(np.sqrt((frame**2).mean())), float(np.sqrt((bent**2).mean()))


@pytest.fixture(scope="module")
def measured() -> tuple[np.ndarray, LocalMotion]:
    """Global shifts and local motion of a movie of 1 count a pixel and frame at 1 Å/px."""
    with threadpool_limits(1, user_api="blas"):  # as in the step; the fixture of all tests here comes later
        shifts, local = align(frames(np.random.default_rng(1), 1.0))
    assert local is not None
    return shifts, local


def test_the_local_field_is_found_to_a_tenth_of_a_pixel(measured: tuple[np.ndarray, LocalMotion]) -> None:
    field, frame, without = field_error(*measured)
    # 0.3 and 0.1 px are the requirements of the method; without the local model the error of the field is 1 px
    assert field < 0.15 < 0.15 * without / 0.5
    assert frame < 0.1


def test_threads_do_not_change_a_bit_of_the_field(measured: tuple[np.ndarray, LocalMotion]) -> None:
    shifts, local = align(frames(np.random.default_rng(1), 1.0), threads=3)
    assert local is not None
    np.testing.assert_array_equal(shifts, measured[0])
    np.testing.assert_array_equal(local.coefficients, measured[1].coefficients)


def test_at_a_quarter_of_the_dose_the_shifts_are_still_right() -> None:
    shifts, local = align(frames(np.random.default_rng(2), 0.25))
    assert local is not None
    field, frame, _ = field_error(shifts, local)
    assert field < 0.3
    assert frame < 0.25


@pytest.mark.parametrize("frames_of_noise", [8, 20])
def test_frames_that_share_nothing_bend_nothing(frames_of_noise: int) -> None:
    # noise is aligned to chance, a different one with every rounding: of 215 such movies none may bend. Judged by the
    # field's parameters alone, half of them did.
    for seed in range(3, 9):
        rng = np.random.default_rng(seed)
        stack = (rng.poisson(1.0, (768, 768)).astype(np.float32) for _ in range(frames_of_noise))
        shifts, local = align(stack, patch_A=190.0)
        assert local is None, f"seed {seed}"
        assert shifts.shape == (frames_of_noise, 2)


def test_a_specimen_that_is_barely_seen_still_bends() -> None:
    shifts, local = align(frames(np.random.default_rng(2), 0.06))
    assert local is not None
    # 0.06 counts a pixel and frame: the field is found to half of what it is without a model, 0.86 px
    assert field_error(shifts, local)[0] < 0.6


def test_a_specimen_that_does_not_bend_gets_no_field_that_matters() -> None:
    rng = np.random.default_rng(4)
    size = 768
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    specimen = np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-0.5 * (k / 0.05) ** 2)
    image = np.fft.irfft2(specimen, s=(size, size))
    light = np.maximum(1 + 0.1 * image / image.std(), 0)
    shifts, local = align(
        (rng.poisson(np.roll(light, (t, -2 * t), axis=(0, 1))).astype(np.float32) for t in range(10)), patch_A=190.0
    )
    motion = np.stack([2.0 * np.arange(10), -1.0 * np.arange(10)], axis=1)
    np.testing.assert_allclose(shifts, motion - motion[5], atol=0.3)
    at = np.linspace(80, 700, 5)
    if local is not None:
        # the field's own noise: 0.2 px at 600,000 counts a frame
        assert max(np.abs(local.at(t, at, at)).max() for t in range(10)) < 0.5


def test_the_pattern_of_the_camera_does_not_hold_the_frames() -> None:
    rng = np.random.default_rng(5)
    size, n = 768, 20
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-0.5 * (k / 0.05) ** 2)
    spectrum *= 0.1 / np.fft.irfft2(spectrum, s=(size, size)).std()
    pattern = 1 + 0.03 * rng.standard_normal((size, size))  # a gain that is wrong by 3 %
    course = np.stack([0.3 * np.arange(n), -0.2 * np.arange(n)], axis=1)
    turns = np.fft.rfftfreq(size)[None, None] * course[:, 0, None, None]
    turns = turns + np.fft.fftfreq(size)[None, :, None] * course[:, 1, None, None]
    stack = (
        rng.poisson(
            np.maximum(1 + np.fft.irfft2(spectrum * np.exp(-2j * np.pi * turn), s=(size, size)), 0) * pattern
        ).astype(np.float32)
        for turn in turns
    )
    shifts, _ = align(stack, local=False)
    rest = shifts + course
    # held by the camera the shifts would be zero: an error of 2 px
    assert np.sqrt(((rest - rest.mean(axis=0)) ** 2).mean()) < 0.15


def test_the_field_is_zero_in_the_reference_frame(measured: tuple[np.ndarray, LocalMotion]) -> None:
    _, local = measured
    np.testing.assert_allclose(local.nodes(local.reference, SPACING), 0, atol=1e-9)


def test_the_motion_file_stores_the_field_for_relion_and_exactly(
    measured: tuple[np.ndarray, LocalMotion], tmp_path: Path
) -> None:
    shifts, local = measured
    path = tmp_path / "motion.star"
    write_motion(
        path, shifts, movie=Path("m.tif"), frame_shape=(SIZE, SIZE), pixel_size_A=1.0, voltage_kV=300.0, binning=1,
        gain=None, dose_per_frame_e_A2=1.0, pre_exposure_e_A2=0.0, local=local,
    )  # fmt: skip
    blocks = read_blocks(path)
    assert int(blocks["general"]["rlnMotionModelVersion"].iloc[0]) == 1
    np.testing.assert_allclose(read_motion(path).shifts_px, shifts, atol=1e-5)
    model = blocks["local_motion_model"]
    assert list(model["rlnMotionModelCoeffsIdx"]) == list(range(36))
    spline = blocks["local_spline"]["crpSplineCoefficient"].to_numpy().reshape(local.coefficients.shape)
    np.testing.assert_allclose(spline, local.coefficients, atol=1e-4)
    if shutil.which("relion_star_printtable"):
        command = ["relion_star_printtable", str(path), "data_local_motion_model", "_rlnMotionModelCoeff"]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        theirs = np.array([float(line) for line in printed.split()])
        np.testing.assert_allclose(theirs, model["rlnMotionModelCoeff"], rtol=1e-4, atol=1e-6)


def test_the_polynomial_of_relion_follows_the_field(measured: tuple[np.ndarray, LocalMotion], tmp_path: Path) -> None:
    shifts, local = measured
    write_motion(
        tmp_path / "motion.star", shifts, movie=Path("m.tif"), frame_shape=(SIZE, SIZE), pixel_size_A=1.0,
        voltage_kV=300.0, binning=1, gain=None, dose_per_frame_e_A2=1.0, pre_exposure_e_A2=0.0, local=local,
    )  # fmt: skip
    coefficients = read_polynomial(tmp_path / "motion.star")
    assert coefficients is not None
    np.testing.assert_allclose(coefficients, polynomial_model(local), rtol=1e-4, atol=1e-6)
    at = np.linspace(0.1 * SIZE, 0.9 * SIZE, 7)
    stored = polynomial_field(coefficients, np.arange(FRAMES), at / SIZE - 0.5, at / SIZE - 0.5)
    exact = np.stack([local.at(t, at, at) - local.at(0, at, at) for t in range(FRAMES)])
    # 18 numbers an axis cannot hold the whole spline; it holds a bend of 8 px to the accuracy asked of the field
    assert np.sqrt(((stored - exact) ** 2).mean()) < 0.3


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_run_motioncorr") is None, reason="RELION is not installed")
def test_the_polynomial_is_read_as_relion_writes_it(tmp_path: Path) -> None:
    size, n = 1024, 12
    rng = np.random.default_rng(6)
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    image = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-0.5 * (k / 0.08) ** 2), s=(size, size)
    )
    coefficients = (image / image.std()).astype(np.float32)
    spline_coefficients(coefficients)

    def motion(t: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """No two of x, y, their powers and those of time can be mistaken for each other."""
        v, u = np.meshgrid(y / size - 0.5, x / size - 0.5, indexing="ij")
        z = t / n
        bent = [10 * z * u + 4 * z**2 * v**2 - 6 * z * u * v, -7 * z * v + 5 * z**2 * u**2 + 3 * z**3 * u]
        return np.stack(bent) + t * np.array([0.4, -0.25])[:, None, None]

    nodes = SPACING * np.arange(node_count(size, SPACING))
    stack = []
    for t in range(n):
        moved = np.zeros((1, size, size), np.float32)
        field = motion(t, nodes, nodes).astype(np.float32)
        warp_accumulate(coefficients, field, SPACING, np.ones(1, np.float32), moved, fill=0.0)
        stack.append((10 + moved[0] + 0.5 * rng.standard_normal((size, size))).astype(np.float32))
    write_movie(tmp_path / "m.mrcs", iter(stack), 1.0)  # MRC: RELION turns no rows
    optics = make_optics(voltage_kV=300.0, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=1.0)
    rows = pd.DataFrame({"rlnMicrographMovieName": ["m.mrcs"], "rlnOpticsGroup": [1]})
    write_table(tmp_path / "in.star", StarTable("movies", optics, rows))
    command = (
        "relion_run_motioncorr --use_own --i in.star --o relion/ --first_frame_sum 1 --last_frame_sum -1 "
        "--bin_factor 1 --bfactor 150 --dose_per_frame 1 --preexposure 0 --patch_x 5 --patch_y 5 --j 2"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    file = next((tmp_path / "relion").rglob("m.star"))
    model = read_polynomial(file)
    assert model is not None
    at = np.linspace(0.1, 0.9, 7)
    shifts = read_motion(file).shifts_px
    found = (shifts - shifts[0])[:, :, None, None] + polynomial_field(model, np.arange(n), at - 0.5, at - 0.5)
    truth = np.stack([-motion(t, at * size, at * size) for t in range(n)])
    # their error on this bright movie was 0.04 px; with x and y exchanged it is 1.9 px, with the sign 2.5 px
    assert np.sqrt(((found - (truth - truth[0])) ** 2).mean()) < 0.15


def splines() -> tuple[np.ndarray, np.ndarray]:
    """Return splines of 10 frames, their mean removed, and of 6 x 6 patches."""
    time = spline_values(np.arange(10.0), 10, 4)
    rows = spline_values(np.linspace(50, 949, 6), 1000, 4)
    return time - time.mean(axis=0), np.einsum("ay,bx->abyx", rows, rows).reshape(36, 16)


def test_a_field_is_found_as_well_as_its_parameters_allow() -> None:
    rng = np.random.default_rng(7)
    time, space = splines()
    truth = np.einsum("nt,pq,atq->pna", time, space, rng.normal(0, 60, (2, 4, 16)))
    truth -= truth.mean(axis=0)
    noisy = truth + rng.normal(0, 0.5, truth.shape)
    coefficients, parameters = fit_field(time, space, noisy, np.full((36, 2), 4.0), (4, 4, 4))
    fitted = np.einsum("nt,pq,atq->pna", time, space, coefficients.reshape(2, 4, 16))
    error = np.sqrt(((fitted - truth) ** 2).mean())
    # 2 x 3 x 15 parameters of 720 numbers of noise 0.5: 0.18 px for a fit without a prior
    assert error < 0.2
    assert 30 < parameters < 90
    # the whole frame's motion is none of the field's
    np.testing.assert_allclose(fitted.mean(axis=0), 0, atol=1e-9)


def test_patches_of_pure_noise_give_a_field_of_next_to_nothing() -> None:
    time, space = splines()
    noise = np.random.default_rng(8).normal(0, 3, (36, 10, 2))
    coefficients, parameters = fit_field(time, space, noise, np.full((36, 2), 1 / 9.0), (4, 4, 4))
    fitted = np.einsum("nt,pq,atq->pna", time, space, coefficients.reshape(2, 4, 16))
    # what no second difference settles stays free: tx, ty and txy of each axis, 6 of 720 numbers: 0.27 px
    assert np.sqrt((fitted**2).mean()) < 0.6
    assert parameters < 15


def test_a_smooth_track_is_told_from_noise_and_a_rough_one_is_kept() -> None:
    rng = np.random.default_rng(9)
    t = np.arange(40.0)
    smooth = np.stack([5 * (1 - np.exp(-t / 10)), 0.02 * t**1.5], axis=1)
    noisy = smooth + rng.normal(0, 0.5, smooth.shape)
    found = smooth_track(noisy, np.full(2, 4.0))[0]
    assert np.sqrt(((found - smooth) ** 2).mean()) < 0.25  # half the noise at least is gone
    rough = np.cumsum(rng.normal(0, 3, (40, 2)), axis=0)
    near = rough + rng.normal(0, 0.1, rough.shape)
    # steps of 3 px stand out of a noise of 0.1 px: smoothing may move nothing by more than the noise
    assert np.abs(smooth_track(near, np.full(2, 100.0))[0] - near).max() < 0.1


def test_a_small_frame_has_no_patches_and_a_large_one_is_covered() -> None:
    assert patch_layout((160, 192), 1.5, 500.0, 5.0) is None
    layout = patch_layout((3838, 3710), 0.85, 500.0, 10.0)
    assert layout is not None
    tops, lefts, side = layout
    assert (len(tops), len(lefts)) == (7, 7)
    assert tops[0] == 10
    assert tops[-1] + side == pytest.approx(3828)
    assert np.diff(tops).max() < side


def test_the_filters_of_fifty_frames_are_spanned_by_a_few_functions() -> None:
    k = np.linspace(0, 0.8, 500)
    filters = np.stack([frame_weight(k, exposure, 300.0) for exposure in 1.0 + np.arange(50.0)])
    wanted = normalised_filters(filters)
    functions, mixing = separate_filters(wanted)
    assert len(functions) <= 8
    assert np.sqrt(((functions.T @ mixing - wanted) ** 2).sum(axis=0)).max() <= 1e-4


def test_the_weighted_average_is_that_of_filters_applied_frame_by_frame() -> None:
    rng = np.random.default_rng(4)
    stack = rng.standard_normal((6, 64, 72)).astype(np.float32)
    exposures = 3.0 * np.arange(1, 7)
    sums = FrameSums((64, 72), 1.1, 300.0, exposures, frames=6)
    for frame in stack:
        sums.add(frame.copy(), np.zeros(2))
    k = np.hypot(np.fft.fftfreq(64, 1.1)[:, None], np.fft.rfftfreq(72, 1.1)[None])
    weights = np.stack([frame_weight(k, exposure, 300.0) for exposure in exposures])
    total = (weights * np.fft.rfft2(stack)).sum(axis=0) / np.sqrt(6 * (weights**2).sum(axis=0))
    # frequency bins of 1/2900 px and the 1e-4 of the separation, against values of deviation 0.4
    np.testing.assert_allclose(sums.weighted_average(), np.fft.irfft2(total, s=(64, 72)), atol=3e-3)


def test_nothing_wraps_around_the_border() -> None:
    frame = np.ones((64, 64), np.float32)
    frame[:, -8:] = 101.0
    sums = FrameSums((64, 64), 1.0, 300.0, None, frames=1)
    sums.add(frame.copy(), np.array([16.0, 0.0]))
    average = sums.average()
    # content of the right border would enter here; the frame's mean, 13.5, stands instead; the step at column 16
    # rings through the splines' prefilter by 0.27 a pixel: 12 px, 0.27^8
    np.testing.assert_allclose(average[:, :8], frame.mean(), rtol=1e-4)
