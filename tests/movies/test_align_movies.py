"""Step align_movies and its parts against motion that is known."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.ctf import EstimateCtfCtffind
from cryopipe.config.movies import AlignMovies
from cryopipe.context import Context
from cryopipe.ctf.defocus import Microscope
from cryopipe.ctf.estimate_ctf_ctffind import ctf_by_amplitudes
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.io.movies import open_movie, write_movie
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, make_optics, read_blocks, read_rejections, read_table, write_table
from cryopipe.kernels.warp import node_count, spline_coefficients, warp_accumulate
from cryopipe.movies import align_movies
from cryopipe.movies.gain.defects import write_defects
from cryopipe.movies.motion.correlation import correlation_grid, correlation_spectrum, paraboloid_peak
from cryopipe.movies.motion.dose_weighting import critical_exposure_e_A2, frame_weight
from cryopipe.movies.motion.frame_sums import SPACING, FrameSums
from cryopipe.movies.motion.global_alignment import (
    estimate_global_motion,
    solve_positions,
)
from cryopipe.movies.motion.pictures import composite_spectrum, mean_periodogram
from cryopipe.movies.motion.star import accumulated_motion_A, polynomial_field, read_motion, read_polynomial


def specimen_spectrum(size: int, rng: np.random.Generator) -> np.ndarray:
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-0.5 * (k / 0.08) ** 2)
    return spectrum / np.fft.irfft2(spectrum, s=(size, size)).std()


def moved(spectrum: np.ndarray, size: int, shift: np.ndarray) -> np.ndarray:
    turns = np.fft.rfftfreq(size)[None] * shift[0] + np.fft.fftfreq(size)[:, None] * shift[1]
    return np.fft.irfft2(spectrum * np.exp(-2j * np.pi * turns), s=(size, size))


def smooth_track(n: int) -> np.ndarray:
    t = np.arange(n)
    return np.stack([0.3 * t - 0.005 * t**2 + np.cos(t / 10) / 10, -0.2 * t + 0.004 * t**2 + np.sin(t**2) / 5], axis=1)


def alignment_error(size: int, snr: float, *, frames: int = 24, resolution: float = 10.0, seed: int = 0) -> float:
    """Gauge-free rms error in px of the estimated shifts of a phantom movie (the phantom of xmipp's phantom_movie)."""
    rng = np.random.default_rng(seed)
    spectrum, track = specimen_spectrum(size, rng), smooth_track(frames)
    grid = correlation_grid((size, size), 1.0, resolution)
    noisy = (moved(spectrum, size, d) + rng.standard_normal((size, size)) / np.sqrt(snr) for d in track)
    spectra = [correlation_spectrum(frame.astype(np.float32), grid) for frame in noisy]
    motion = estimate_global_motion(spectra, grid, max_shift_A=20.0)
    assert np.all(motion.shifts_px[frames // 2] == 0)
    rest = motion.shifts_px + track
    return float(np.sqrt(((rest - rest.mean(axis=0)) ** 2).mean()))


@pytest.mark.parametrize(("snr", "limit"), [(0.1, 0.06), (0.03, 0.12), (0.01, 0.3)])
def test_shifts_of_a_small_phantom_are_as_exact_as_its_noise_allows(snr: float, limit: float) -> None:
    errors = [alignment_error(192, snr, seed=seed) for seed in range(3)]
    # Cramér-Rao bound for a known specimen, 1/√(192² SNR (2π 0.057)²): 0.046, 0.084, 0.147 px
    assert np.mean(errors) <= limit


def test_larger_frames_give_better_shifts_in_proportion() -> None:
    # 512/192 = 2.7 times more pixels along each side: 2.5 times is asked for
    assert alignment_error(512, 0.03, frames=12) <= 0.12 / 2.5


def test_a_bright_structure_that_moves_along_does_not_blunt_the_peak() -> None:
    rng = np.random.default_rng(1)
    size, track = 256, np.stack([np.zeros(8), 5.0 * np.arange(8)], axis=1)
    spectrum = specimen_spectrum(size, rng)
    y, x = np.mgrid[:size, :size]
    disc = 20.0 * (np.hypot(x - 80, y - 150) < 40)
    hill = 10.0 * np.cos(np.pi * (x - size / 2) / size)  # illumination: stays
    grid = correlation_grid((size, size), 2.0, 15.0)
    spectra = []
    for d in track:
        frame = moved(spectrum + np.fft.rfft2(disc), size, d) + hill + 2 * rng.standard_normal((size, size))
        spectra.append(correlation_spectrum(frame.astype(np.float32), grid))
    motion = estimate_global_motion(spectra, grid, max_shift_A=60.0)
    # 5 px a frame; pairs beyond the search range must not pull the trajectory to zero
    np.testing.assert_allclose(motion.shifts_px, -(track - track[4]), atol=0.2)


def test_the_paraboloid_peak_of_a_gaussian_is_nearly_unbiased() -> None:
    y, x = np.mgrid[-1:2, -1:2]
    errors = []
    for true in np.linspace(-0.45, 0.45, 19):
        values = np.exp(-0.5 * ((x - true) ** 2 + (y + 0.3 * true) ** 2) / 1.5**2)
        dy, dx = paraboloid_peak(values)
        errors.append(max(abs(dx - true), abs(dy + 0.3 * true)))
    assert max(errors) < 0.05  # the method's 0.03 for σ = 1.5 px, doubled: here both coordinates are off at once


@pytest.mark.parametrize("axis", [0, 1])
def test_the_paraboloid_peak_is_biased_by_less_than_three_hundredths(axis: int) -> None:
    grid = np.mgrid[-1:2, -1:2]
    for true in np.linspace(-0.45, 0.45, 19):
        values = np.exp(-0.5 * ((grid[axis] - true) ** 2 + grid[1 - axis] ** 2) / 1.5**2)
        # requirement of the method; the centre of mass is off by up to 0.36
        assert abs(paraboloid_peak(values)[axis] - true) < 0.03


def test_positions_follow_from_pairs_although_most_pairs_are_wrong() -> None:
    rng = np.random.default_rng(2)
    n = 40
    truth = np.cumsum(rng.normal(0, 0.5, (n, 2)), axis=0)
    truth -= truth[n // 2]
    pairs = np.array([(i, j) for i in range(n) for j in range(i + 1, n)])
    d = truth[pairs[:, 1]] - truth[pairs[:, 0]] + rng.normal(0, 0.1, (len(pairs), 2))
    wrong = rng.random(len(pairs)) < 0.6
    d[wrong] = rng.uniform(-50, 50, (wrong.sum(), 2))
    found = solve_positions(pairs, d, np.ones(len(pairs), bool), n, reference=n // 2)
    # 16 good equations a frame, 0.1 px each: 0.03 px and the efficiency of the weights; outliers would leave several px
    assert np.sqrt(((found - truth) ** 2).mean()) < 0.1


def test_critical_exposures_are_those_of_grant_and_grigorieff() -> None:
    k = 1.0 / np.array([50.0, 20.0, 10.0, 5.0, 3.0, 2.0])
    expected = [168, 38.7, 14.1, 6.38, 4.34, 3.59]  # the method's table, three digits
    np.testing.assert_allclose(critical_exposure_e_A2(k, 300.0), expected, rtol=5e-3)
    np.testing.assert_allclose(critical_exposure_e_A2(k, 200.0), 0.8 * np.array(expected), rtol=5e-3)
    # 0.245 · 3^1.665 + 2.81 = 4.337; e^(-40 / 8.674)
    assert frame_weight(np.array([1 / 3.0]), 40.0, 300.0)[0] == pytest.approx(0.00997, rel=0.01)
    assert frame_weight(np.array([0.0]), 40.0, 300.0)[0] == 1.0


def test_weighted_white_noise_keeps_the_power_of_the_plain_average() -> None:
    rng = np.random.default_rng(3)
    sums = FrameSums((256, 240), 1.2, 300.0, 2.0 * np.arange(1, 13), frames=12)
    for _ in range(12):
        sums.add(rng.standard_normal((256, 240)).astype(np.float32), rng.uniform(-0.8, 0.8, 2))
    plain, weighted = (np.abs(np.fft.rfft2(a, norm="ortho")) ** 2 for a in (sums.average(), sums.weighted_average()))
    ring = np.rint(10 * np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(240)[None])).astype(int)
    for r in range(1, 5):
        inside = ring == r
        # each power is 1/12; its mean over the ring is known to 1/√pixels: 5 standard errors
        assert weighted[inside].mean() == pytest.approx(1 / 12, rel=5 / np.sqrt(inside.sum()))
    assert plain.mean() == pytest.approx(1 / 12, rel=0.05)
    assert sums.weighted_average().mean() == pytest.approx(sums.average().mean(), abs=1e-6)


def test_the_noise_of_a_bent_movie_is_flat_to_two_percent() -> None:
    rng = np.random.default_rng(10)
    size, n = 768, 12
    sums = FrameSums((size, size), 1.2, 300.0, 2.0 * np.arange(1, n + 1), frames=n)
    nodes = SPACING * np.arange(node_count(size, SPACING)) / size - 0.5
    v, u = np.meshgrid(nodes, nodes, indexing="ij")
    for t in range(n):
        field = (t - n / 2) / n * np.stack([2 * u + v**2, u * v - 2 * v]) + rng.uniform(-0.5, 0.5, (2, 1, 1))
        sums.add(rng.standard_normal((size, size)).astype(np.float32), field)
    power = np.abs(np.fft.rfft2(sums.weighted_average(), norm="ortho")) ** 2
    ring = np.rint(10 * np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])).astype(int)
    # 40,000 frequencies in the smallest of these rings: 0.5 % of noise; the requirement of the method is 2 %
    for r in range(1, 6):
        assert power[ring == r].mean() == pytest.approx(1 / n, rel=0.02)


def test_thon_rings_reach_further_after_alignment() -> None:
    rng = np.random.default_rng(11)
    size, n, pixel = 1024, 12, 1.2
    ky, kx = np.fft.fftfreq(size, pixel)[:, None], np.fft.rfftfreq(size, pixel)[None]
    contrast = ctf(kx, ky, CtfParameters(12000.0, 12000.0, 0.0, 300.0, 2.7, 0.1))
    specimen = np.fft.rfft2(rng.standard_normal((size, size))) * contrast * np.exp(-10.0 * (kx**2 + ky**2))
    specimen *= 0.08 / np.fft.irfft2(specimen, s=(size, size)).std()
    course = np.stack([8 * (1 - np.exp(-np.arange(n) / 3)), -0.5 * np.arange(n)], axis=1)
    grid = correlation_grid((size, size), pixel, 15.0)
    stack = []
    for x, y in course:
        light = np.fft.irfft2(specimen * np.exp(-2j * np.pi * pixel * (kx * x + ky * y)), s=(size, size))
        stack.append(rng.poisson(2 * np.maximum(1 + light, 0)).astype(np.float32))
    motion = estimate_global_motion([correlation_spectrum(f, grid) for f in stack], grid, max_shift_A=50.0)
    sums = FrameSums((size, size), pixel, 300.0, None, frames=n)
    for frame, shift in zip(stack, motion.shifts_px, strict=True):
        sums.add(frame, shift)
    before, after = (
        ctf_by_amplitudes(
            image, pixel, Microscope(300.0, 2.7, 0.1), EstimateCtfCtffind(max_resolution_A=5.0)
        ).resolution_A
        for image in (np.mean(stack, axis=0), sums.average())
    )
    assert after < before
    assert after < 4.0 < before  # 4.4 Å before and 2.8 Å after, on this movie


def test_unmoved_frames_average_to_their_mean_whatever_the_threads() -> None:
    frames = np.random.default_rng(4).random((5, 50, 63)).astype(np.float32)
    results = []
    for threads in (1, 2):
        sums = FrameSums((50, 63), 1.0, 300.0, np.ones(5), frames=5, threads=threads)
        for frame in frames:
            sums.add(frame.copy(), np.zeros(2))
        results.append((sums.average(), sums.weighted_average()))
    np.testing.assert_allclose(results[0][0], frames.mean(axis=0), atol=1e-6)  # float32
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_binned_average_is_the_fourier_crop_of_the_full_one() -> None:
    frames = np.random.default_rng(5).random((3, 64, 80)).astype(np.float32)
    full, binned = (FrameSums((64, 80), 1.0, 300.0, None, frames=3, binning=b) for b in (1, 2))
    for frame in frames:
        full.add(frame.copy(), np.array([1.3, -0.4]))
        binned.add(frame.copy(), np.array([1.3, -0.4]))
    assert binned.average().shape == (32, 40)
    a, b = np.fft.rfft2(full.average()), np.fft.rfft2(binned.average())
    np.testing.assert_allclose(b[:15, :20] * 4, a[:15, :20], atol=2e-3)  # sums of 5,120 float32 of order 1
    assert binned.average().mean() == pytest.approx(full.average().mean(), rel=1e-5)


def test_the_left_half_of_the_composite_is_of_the_unaligned_average() -> None:
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:256, :256]
    noise = 0.1 * rng.standard_normal((256, 256))
    vertical, tilted = noise + np.cos(2 * np.pi * x / 8), noise + np.cos(2 * np.pi * y / 8)
    picture = composite_spectrum(vertical, tilted)
    middle = picture.shape[0] // 2
    assert picture[middle, middle - 32] > picture[middle, middle + 32] + 3  # 256/8 = 32 px on the x axis, left only
    assert picture[middle + 32, middle + 1] > picture[middle + 32, middle - 2] + 3


def test_the_periodogram_has_the_power_of_the_image_and_is_symmetric() -> None:
    power = mean_periodogram(np.random.default_rng(7).standard_normal((500, 400)), 128)
    window = np.hanning(130)[1:-1]
    expected = (window**2).sum() ** 2
    assert power.mean() == pytest.approx(expected, rel=0.02)  # 200,000 pixels
    np.testing.assert_allclose(power[1:, 1:], power[1:, 1:][::-1, ::-1], rtol=1e-5)  # float32


def test_early_motion_ends_at_four_electrons() -> None:
    track = np.stack([np.arange(6.0), np.zeros(6)], axis=1)
    assert accumulated_motion_A(track, 2.0, 1.0, 0.0) == pytest.approx((10.0, 6.0, 4.0))
    assert accumulated_motion_A(track, 2.0, 1.0, 2.0) == pytest.approx((10.0, 2.0, 8.0))
    assert accumulated_motion_A(track, 2.0, None, 0.0) == pytest.approx((10.0, 10.0, 0.0))


SIZE = (160, 192)


def make_run(folder: Path, *, movies: int = 2, broken: bool = False) -> tuple[dict[str, Path], np.ndarray]:
    """Write movies of Poisson counts under a gain, with a hot pixel; return the step's inputs and the track."""
    rng = np.random.default_rng(8)
    response = 1.0 + 0.05 * rng.standard_normal(SIZE)
    track = np.stack([3.0 * np.exp(-np.arange(8) / 3), -0.7 * np.arange(8)], axis=1)
    names = []
    for m in range(movies):
        spectrum = specimen_spectrum(256, rng)
        frames = []
        for d in track:
            light = 20.0 * (1 + 0.2 * moved(spectrum, 256, d)[: SIZE[0], : SIZE[1]])
            frame = rng.poisson(np.maximum(light, 0) * response).astype(np.uint8)
            frame[40, 50] = 255
            frames.append(frame)
        names.append(folder / f"m{m}.tif")
        write_movie(names[-1], frames, 1.5)
    if broken:
        names[0].write_bytes(names[0].read_bytes()[:5000])
    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=1.5)
    rows = pd.DataFrame(
        {"rlnMicrographMovieName": [str(n) for n in names], "rlnOpticsGroup": 1, "crpItem": [n.stem for n in names]}
    )
    write_table(folder / "movies.star", StarTable("movies", optics, rows))
    hot = np.zeros(SIZE, bool)
    hot[40, 50] = True
    write_image(folder / "gain.mrc", np.where(hot, 0, 1 / response).astype(np.float32), 1.5)
    write_defects(folder / "defects.tsv", np.zeros(SIZE, bool), hot)
    return {"movies": folder / "movies.star", "gain": folder / "gain.mrc", "defects": folder / "defects.tsv"}, track


def run(folder: Path, inputs: dict[str, Path], *, threads: int = 2, **params: object) -> StarTable:
    outputs = {"micrographs": folder / "out" / "mics.star", "rejected": folder / "out" / "rejected.tsv"}
    context = Context(
        step="align_movies",
        work_dir=folder / "work",
        threads=threads,
        max_failed_fraction=0.6,
        log=logging.getLogger("test"),
    )
    given = {"dose_per_frame_e_A2": 1.5, "pre_exposure_e_A2": 0.0, "max_resolution_A": 12.0} | params
    align_movies.main(inputs, outputs, AlignMovies(**given), context)
    return read_table(outputs["micrographs"], "micrographs")


def test_the_step_writes_micrographs_motion_and_pictures(tmp_path: Path) -> None:
    inputs, track = make_run(tmp_path)
    table = run(tmp_path, inputs)
    assert list(table.rows["crpItem"]) == ["m0", "m1"]
    assert table.single("rlnMicrographPixelSize") == 1.5
    row = table.rows.iloc[0]
    motion = read_motion(Path(row["rlnMicrographMetadata"]))
    # 31,000 pixels at SNR 0.8: 0.02 px expected, and the border that enters
    np.testing.assert_allclose(motion.shifts_px, -(track - track[4]), atol=0.15)
    average, pixel = read_image(Path(row["rlnMicrographName"]))
    weighted, _ = read_image(Path(row["crpMicrographNameDW"]))
    assert pixel == pytest.approx(1.5)
    assert average.shape == weighted.shape == SIZE
    assert average[35:46, 45:56].max() < 60  # the hot pixel (255) is gone
    assert row["rlnAccumMotionTotal"] == pytest.approx(row["rlnAccumMotionEarly"] + row["rlnAccumMotionLate"])
    pictures = {p.name for p in (tmp_path / "out" / "pictures").iterdir()}
    assert {"m0_psd.png", "m0_shifts.png", "m0_micrograph.png", "m1_psd.png"} <= pictures
    general = read_blocks(Path(row["rlnMicrographMetadata"]))["general"].iloc[0]
    assert (general["rlnImageSizeX"], general["rlnImageSizeY"], general["rlnImageSizeZ"]) == (192, 160, 8)


def test_movies_are_weighted_by_the_exposure_of_their_own_optics_group(tmp_path: Path) -> None:
    inputs, _ = make_run(tmp_path)
    table = read_table(inputs["movies"], "movies")
    optics = pd.concat([table.optics, table.optics.assign(rlnOpticsGroup=2, rlnOpticsGroupName="second")])
    rows = table.rows.assign(
        rlnOpticsGroup=[1, 2], rlnMicrographDoseRate=[1.5, 4.0], rlnMicrographPreExposure=[0.0, 10.0]
    )
    write_table(inputs["movies"], StarTable("movies", optics.reset_index(drop=True), rows))
    grouped = run(tmp_path, inputs)
    facts = [read_blocks(Path(path))["general"].iloc[0] for path in grouped.rows["rlnMicrographMetadata"]]
    assert [fact["rlnMicrographDoseRate"] for fact in facts] == [1.5, 4.0]
    assert [fact["rlnMicrographPreExposure"] for fact in facts] == [0.0, 10.0]
    weighted = [read_image(Path(path))[0] for path in grouped.rows["crpMicrographNameDW"]]
    plain = [read_image(Path(path))[0] for path in grouped.rows["rlnMicrographName"]]
    for name in ("out", "work"):
        (tmp_path / name).rename(tmp_path / f"grouped_{name}")
    write_table(inputs["movies"], table)
    alone = run(tmp_path, inputs)  # both at 1.5 e/Å², nothing before
    for m, same in ((0, True), (1, False)):
        assert np.array_equal(read_image(Path(alone.rows["rlnMicrographName"][m]))[0], plain[m])
        assert np.array_equal(read_image(Path(alone.rows["crpMicrographNameDW"][m]))[0], weighted[m]) is same
    off = run(tmp_path, inputs, dose_per_frame_e_A2=None)
    assert (off.rows["crpMicrographNameDW"] == off.rows["rlnMicrographName"]).all()


def test_the_step_follows_local_motion_and_stores_it(tmp_path: Path) -> None:
    """A specimen that shears by 8 px in 10 frames of 576 x 640 pixels, through the whole step."""
    rng = np.random.default_rng(12)
    shape, n, pixel = (576, 640), 10, 1.5
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    image = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * np.exp(-0.5 * (k / 0.08) ** 2), s=shape)
    coefficients = (0.2 * image / image.std()).astype(np.float32)
    spline_coefficients(coefficients)
    course = 1 - np.exp(-np.arange(n) / 3)
    course -= course[n // 2]

    def motion(t: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        v, u = np.meshgrid(y / shape[0] - 0.5, x / shape[1] - 0.5, indexing="ij")
        return course[t] * np.stack([8 * v + 3, -4 * u + 0 * v - 2])

    nodes = [SPACING * np.arange(node_count(length, SPACING)) for length in shape]
    frames = []
    for t in range(n):
        still = np.zeros((1, *shape), np.float32)
        warp_accumulate(
            coefficients, motion(t, *nodes).astype(np.float32), SPACING, np.ones(1, np.float32), still, fill=0.0
        )
        frames.append(rng.poisson(3 * np.maximum(1 + still[0], 0)).astype(np.uint8))
    write_movie(tmp_path / "bent.tif", iter(frames), pixel)
    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=pixel)
    rows = pd.DataFrame(
        {"rlnMicrographMovieName": [str(tmp_path / "bent.tif")], "rlnOpticsGroup": 1, "crpItem": ["bent"]}
    )
    write_table(tmp_path / "movies.star", StarTable("movies", optics, rows))
    write_image(tmp_path / "gain.mrc", np.ones(shape, np.float32), pixel)
    write_defects(tmp_path / "defects.tsv", np.zeros(shape, bool), np.zeros(shape, bool))
    inputs = {"movies": tmp_path / "movies.star", "gain": tmp_path / "gain.mrc", "defects": tmp_path / "defects.tsv"}
    row = run(tmp_path, inputs, patch_A=150.0).rows.iloc[0]
    assert row["crpLocalPatches"] == 6 * 7
    motion_file = Path(row["rlnMicrographMetadata"])
    model = read_polynomial(motion_file)
    assert model is not None
    at = np.linspace(-0.4, 0.4, 9)
    shifts = read_motion(motion_file).shifts_px
    found = shifts[:, :, None, None] + polynomial_field(model, np.arange(n), at, at)
    truth = np.stack([-motion(t, (at + 0.5) * shape[0], (at + 0.5) * shape[1]) for t in range(n)])
    rest = found - truth
    rest -= rest.mean(axis=0)  # RELION's model is zero in the first frame, ours in the middle one
    assert np.sqrt((rest**2).mean()) < 0.3 < 0.3 * truth.std()
    average, _ = read_image(Path(row["rlnMicrographName"]))
    weighted, _ = read_image(Path(row["crpMicrographNameDW"]))
    inner = slice(40, -40)
    for picture in (average, weighted):
        assert np.corrcoef(picture[inner, inner].ravel(), image[inner, inner].ravel())[0, 1] > 0.7
    assert {p.name for p in (tmp_path / "out" / "pictures").iterdir()} == {
        "bent_psd.png", "bent_shifts.png", "bent_micrograph.png",
    }  # fmt: skip


def test_the_aligned_average_is_sharper_than_the_unaligned_one(tmp_path: Path) -> None:
    inputs, _ = make_run(tmp_path, movies=1)
    camera = align_movies.load_camera(inputs["gain"], inputs["defects"])
    with open_movie(tmp_path / "m0.tif") as movie:
        result = align_movies.align_movie(
            movie,
            camera,
            AlignMovies(max_resolution_A=12.0),
            pixel_size_A=1.5,
            voltage_kV=300.0,
            frame_rng=np.random.default_rng,
        )
    inner = slice(10, -10)
    # the specimen varies by 4 counts, shot noise by 1.6 in the average; 5 px of motion blurs the former
    assert result.average[inner, inner].var() > 1.2 * result.unaligned[inner, inner].var()


def test_threads_cache_and_resuming_do_not_change_a_bit(tmp_path: Path) -> None:
    inputs, _ = make_run(tmp_path, movies=2)
    first = run(tmp_path, inputs)
    files = [Path(first.rows["crpMicrographNameDW"][0]), Path(first.rows["rlnMicrographMetadata"][1])]
    before = [f.read_bytes() for f in files]
    again = run(tmp_path, inputs)  # nothing is left to do
    pd.testing.assert_frame_equal(again.rows, first.rows)
    shutil.rmtree(tmp_path / "work")
    run(tmp_path, inputs, threads=1, frame_cache_GB=0.0)
    data = [f.read_bytes() for f in files]
    # the header's label may hold the time of writing
    assert data[0][1024:] == before[0][1024:]
    assert data[1] == before[1]


def test_a_broken_movie_is_quarantined_and_counted(tmp_path: Path) -> None:
    inputs, _ = make_run(tmp_path, broken=True)
    table = run(tmp_path, inputs)
    rejected = read_rejections(tmp_path / "out" / "rejected.tsv")
    assert list(table.rows["crpItem"]) == ["m1"]
    assert [(r.item, r.kind) for r in rejected] == [("m0", "quarantined")]


def test_a_movie_that_does_not_fit_the_gain_is_quarantined_and_the_others_go_on(tmp_path: Path) -> None:
    inputs, _ = make_run(tmp_path)
    frames = np.random.default_rng(10).poisson(20.0, (8, *SIZE[::-1])).astype(np.uint8)
    write_movie(tmp_path / "m0.tif", iter(frames), 1.5)
    assert list(run(tmp_path, inputs).rows["crpItem"]) == ["m1"]
    reason = read_rejections(tmp_path / "out" / "rejected.tsv")[0].reason
    assert f"frames have {SIZE[0]} x {SIZE[1]} pixels, but the gain has {SIZE[1]} x {SIZE[0]}" in reason


def test_a_frame_with_a_value_that_is_no_number_quarantines_its_movie(tmp_path: Path) -> None:
    inputs, _ = make_run(tmp_path)
    frames = np.random.default_rng(9).random((8, *SIZE)).astype(np.float32)
    frames[5, 20, 30] = np.nan
    table = read_table(inputs["movies"], "movies")
    write_movie(tmp_path / "m0.tif", iter(frames), 1.5)
    names = table.rows["rlnMicrographMovieName"].tolist()
    names[0] = str(tmp_path / "m0.tif")
    write_table(inputs["movies"], table.with_rows(table.rows.assign(rlnMicrographMovieName=names)))
    assert list(run(tmp_path, inputs).rows["crpItem"]) == ["m1"]
    assert "frame 6 has values that are not finite" in read_rejections(tmp_path / "out" / "rejected.tsv")[0].reason


def test_an_empty_batch_gives_an_empty_table(tmp_path: Path) -> None:
    inputs, _ = make_run(tmp_path, movies=1)
    table = read_table(inputs["movies"], "movies")
    write_table(inputs["movies"], table.with_rows(table.rows.iloc[:0]))
    result = run(tmp_path, inputs)
    assert len(result) == 0
    assert "rlnMicrographName" in result.rows


def test_without_an_exposure_there_is_one_average(tmp_path: Path) -> None:
    inputs, _ = make_run(tmp_path, movies=1)
    row = run(tmp_path, inputs, dose_per_frame_e_A2=None, binning=2).rows.iloc[0]
    assert row["crpMicrographNameDW"] == row["rlnMicrographName"]
    image, pixel = read_image(Path(row["rlnMicrographName"]))
    assert image.shape == (80, 96)
    assert pixel == pytest.approx(3.0)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_run_motioncorr") is None, reason="RELION is not installed")
def test_relion_finds_the_same_motion_with_the_same_sign(tmp_path: Path) -> None:
    inputs, track = make_run(tmp_path, movies=1)
    table = read_table(inputs["movies"], "movies")
    rows = table.rows.assign(rlnMicrographMovieName=[Path(p).name for p in table.rows["rlnMicrographMovieName"]])
    write_table(tmp_path / "in.star", table.with_rows(rows))
    gain = read_image(inputs["gain"])[0]
    # RELION flips TIFF rows on reading, its gain's rows too only if that is a TIFF
    write_image(tmp_path / "gain_relion.mrc", np.ascontiguousarray(gain[::-1]), 1.5)
    command = (
        "relion_run_motioncorr --use_own --i in.star --o relion/ --first_frame_sum 1 --last_frame_sum -1 "
        "--bin_factor 1 "
        "--bfactor 150 --dose_per_frame 1.5 --preexposure 0 --patch_x 1 --patch_y 1 --gainref gain_relion.mrc --j 1"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    theirs = read_motion(next((tmp_path / "relion").rglob("m0.star"))).shifts_px
    # rows are flipped in RELION's frame: y changes its sign
    theirs = (theirs - theirs[4]) * np.array([1.0, -1.0])
    np.testing.assert_allclose(theirs, -(track - track[4]), atol=0.4)  # RELION stops at 0.5 px rms
