"""Local motion against a field that is known, and the motion file that stores it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cryopipe.io.star import read_blocks
from cryopipe.kernels.warp import node_count, spline_coefficients, warp_accumulate
from cryopipe.movies.correlation import correlation_grid, correlation_spectrum
from cryopipe.movies.dose_weighting import frame_weight
from cryopipe.movies.frame_sums import SPACING, FrameSums, normalised_filters, separate_filters
from cryopipe.movies.global_alignment import estimate_global_motion
from cryopipe.movies.local_alignment import LocalMotion, estimate_local_motion, fit_field, patch_layout, spline_values
from cryopipe.movies.motion_star import polynomial_model, read_motion, write_motion

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


@pytest.fixture(scope="module")
def measured() -> tuple[np.ndarray, LocalMotion]:
    """Global shifts and local motion of a movie of 1 count a pixel and frame at 1 Å/px."""
    grid = correlation_grid((SIZE, SIZE), 1.0, 20.0)
    spectra, small = [], []
    for frame in frames(np.random.default_rng(1), 1.0):
        spectra.append(correlation_spectrum(frame, grid))
        side = SIZE // grid.block
        cut = frame[: side * grid.block, : side * grid.block]
        small.append(cut.reshape(side, grid.block, side, grid.block).sum(axis=(1, 3)) - grid.block**2)
    shifts = estimate_global_motion(spectra, grid, max_shift_A=50.0).shifts_px
    local = estimate_local_motion(
        small, grid.block, (SIZE, SIZE), 1.0, shifts, reference=FRAMES // 2, resolution_A=20.0, patch_A=500.0,
        group=2, max_shift_A=20.0,
    )  # fmt: skip
    assert local is not None
    return shifts, local


def test_the_local_field_is_found_to_a_third_of_a_pixel(measured: tuple[np.ndarray, LocalMotion]) -> None:
    shifts, local = measured
    inner = np.linspace(0.05 * SIZE, 0.95 * SIZE, 19)
    truth = np.stack([-bend(t, inner, inner) - track()[t][:, None, None] for t in range(FRAMES)])
    found = np.stack([local.at(t, inner, inner) + shifts[t][:, None, None] for t in range(FRAMES)])
    bent = truth - truth.mean(axis=(2, 3), keepdims=True)
    assert np.ptp(bent) > 8
    # requirement of the method; without the local model the error is that of `bent`, 1 px
    assert np.sqrt(((found - truth) ** 2).mean()) < 0.3 < 0.5 * np.sqrt((bent**2).mean())


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


def test_the_polynomial_of_relion_follows_the_field(measured: tuple[np.ndarray, LocalMotion]) -> None:
    _, local = measured
    coefficients = polynomial_model(local).reshape(2, 6, 3)
    at = np.linspace(0.1 * SIZE, 0.9 * SIZE, 7)
    v, u = np.meshgrid(at / SIZE - 0.5, at / SIZE - 0.5, indexing="ij")
    space = np.stack([np.ones_like(u), u, u**2, v, v**2, u * v])
    rest = []
    for frame in range(FRAMES):
        time = float(frame) ** np.arange(1, 4)
        polynomial = np.einsum("cst,syx,t->cyx", coefficients, space, time)
        rest.append(polynomial - (local.at(frame, at, at) - local.at(0, at, at)))
    # 18 numbers an axis cannot hold the whole spline; it holds a bend of 8 px to the accuracy asked of the field
    assert np.sqrt(np.mean(np.square(rest))) < 0.3


def test_one_patch_gone_astray_does_not_bend_the_field() -> None:
    rng = np.random.default_rng(3)
    time = spline_values(np.arange(10.0), 10, 4)
    time = time - time[5]
    rows = columns = spline_values(np.linspace(50, 949, 6), 1000, 4)
    truth = rng.standard_normal((2, 4, 4, 4))
    observed = np.einsum("gt,ay,bx,ctyx->gabc", time, rows, columns, truth)
    clean = observed.copy()
    observed[:, 2, 3] += rng.uniform(-20, 20, (10, 2))
    result = fit_field(time, rows, columns, observed, np.ones(observed.shape[:3]))
    assert result is not None
    coefficients, _ = result
    fitted = np.einsum("gt,ay,bx,ctyx->gabc", time, rows, columns, coefficients)
    # the smoothness term moves the fit a little; an unweighted fit is off by several px at the patch
    assert np.sqrt(((fitted - clean) ** 2).mean()) < 0.3


def test_patches_of_pure_noise_give_no_field() -> None:
    time = spline_values(np.arange(10.0), 10, 4)
    time = time - time[5]
    rows = columns = spline_values(np.linspace(50, 949, 6), 1000, 4)
    noise = np.random.default_rng(5).normal(0, 3, (10, 6, 6, 2))
    assert fit_field(time, rows, columns, noise, np.ones((10, 6, 6))) is None


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
    # content of the right border would enter here; the frame's mean, 13.5, stands instead
    np.testing.assert_allclose(average[:, :14], frame.mean(), rtol=1e-4)
