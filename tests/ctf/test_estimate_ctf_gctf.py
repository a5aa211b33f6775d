"""Step estimate_ctf_gctf and its parts against CTFs that are known (the method's acceptance tests)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.ctf import EstimateCtfGctf
from cryopipe.context import Context
from cryopipe.ctf import estimate_ctf_gctf
from cryopipe.ctf.defocus import Defocus, Microscope, from_uv
from cryopipe.ctf.estimate_ctf_gctf import ctf_by_log_amplitudes, diagnostic_image
from cryopipe.ctf.gctf.fit import (
    LogFit,
    describe,
    fit_log_spectrum,
    mean_defocus_scores,
    refine,
)
from cryopipe.ctf.gctf.points import pixels_of, polar_cells
from cryopipe.ctf.gctf.spectrum import LogSpectrum
from cryopipe.ctf.gctf.validation import LEAST_VALIDATION, validation_score
from cryopipe.errors import InputError
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, make_optics, read_rejections, read_table, write_table

SCOPE = Microscope(300.0, 2.7, 0.1)
BAND = {"coarse_A": 30.0, "fine_A": 4.0, "b_factor_A2": 150.0}
DEFOCI_A = np.arange(3000.0, 50001.0, 100.0)
REALDATA = Path(__file__).resolve().parents[3] / "shared" / "realdata"


def micrograph(truth: Defocus, *, side: int = 1536, pixel: float = 1.4, seed: int = 3, b: float = 100.0) -> np.ndarray:
    """White object seen through the CTF, under white noise."""
    rng = np.random.default_rng(seed)
    kx, ky = np.fft.rfftfreq(side, pixel)[None, :], np.fft.fftfreq(side, pixel)[:, None]
    optics = CtfParameters(truth.u_A, truth.v_A, truth.angle_deg, 300.0, 2.7, 0.1)
    transfer = ctf(kx + 0 * ky, ky + 0 * kx, optics) * np.exp(-b * (kx**2 + ky**2) / 4)
    signal = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * transfer, s=(side, side))
    return (100 + 10 * (signal + 1.5 * rng.standard_normal((side, side)))).astype(np.float32)


def test_right_fits_validate_and_fits_on_wrong_rings_do_not(simulate: Callable[..., np.ndarray]) -> None:
    right, wrong = [], []
    for seed in range(20):
        rng = np.random.default_rng(300 + seed)
        v = rng.uniform(8000, 22000)
        truth = from_uv(v + rng.uniform(0, 600), v, rng.uniform(-90, 90))
        b_factor, noise = (50.0, 100.0, 200.0)[seed % 3], (1.0, 1.5)[seed % 2]
        image = simulate(truth, side=1280, seed=seed, b_factor_A2=b_factor, noise=noise)
        fit, spectrum = ctf_by_log_amplitudes(image, 1.4, SCOPE, EstimateCtfGctf())
        assert abs(fit.defocus.mean_A - truth.mean_A) < 250.0
        right.append(validation_score(spectrum, fit, SCOPE, **BAND))
        wrong += [validation_score(spectrum, other, SCOPE, **BAND) for other in next_rings(fit, spectrum)]
    assert np.mean(np.array(right) >= LEAST_VALIDATION) >= 0.95  # the method's limits
    assert np.mean(np.array(wrong) < LEAST_VALIDATION) >= 0.90
    assert len(wrong) >= 30


def next_rings(fit: LogFit, spectrum: LogSpectrum) -> list[LogFit]:
    """Return the fits at the nearest local maxima of the score on both sides of a fit."""
    points = pixels_of(spectrum.values, spectrum.pixel_size_A)
    cells = polar_cells(points.within(30.0, 4.0), 1.0 / (spectrum.box * spectrum.pixel_size_A))
    means = fit.defocus.mean_A + np.arange(-5000.0, 5001.0, 100.0)
    scores = mean_defocus_scores(cells, fit.defocus, means, np.zeros(1), SCOPE, 150.0)[0]
    peaks = [i for i in range(1, 100) if scores[i] > max(scores[i - 1], scores[i + 1])]
    # a ring at 4 Å is 800 Å of defocus wide
    sides = [[i for i in peaks if i < 42][-1:], [i for i in peaks if i > 58][:1]]
    chosen = [Defocus(float(means[i]), fit.defocus.a_A, fit.defocus.b_A) for side in sides for i in side]
    moved = [refine(cells, d, SCOPE, 150.0, 60.0) for d in chosen]
    away = [d for d in moved if abs(d.mean_A - fit.defocus.mean_A) > 700.0]
    return [describe(points, d, spectrum, SCOPE, **BAND) for d in away]


def test_the_equiphase_average_is_followed_further_than_the_rotational_one(simulate: Callable[..., np.ndarray]) -> None:
    truth = from_uv(15750, 14250, 30.0)
    fit, spectrum = ctf_by_log_amplitudes(simulate(truth, seed=10, b_factor_A2=60.0), 1.4, SCOPE, EstimateCtfGctf())
    points = pixels_of(spectrum.values, spectrum.pixel_size_A)
    rotational = describe(points, Defocus(fit.defocus.mean_A), spectrum, SCOPE, **BAND)
    assert fit.resolution_A <= rotational.resolution_A - 0.3  # the method's limit


def test_a_strong_background_at_low_frequencies_does_not_lead_the_fit_astray(
    simulate: Callable[..., np.ndarray],
) -> None:
    logarithmic, plain = [], []
    for seed in range(8):
        v = np.random.default_rng(400 + seed).uniform(9000, 22000)
        image = simulate(from_uv(v + 200, v, 10.0), side=1280, seed=seed, background=50.0)
        fit, spectrum = ctf_by_log_amplitudes(image, 1.4, SCOPE, EstimateCtfGctf())
        logarithmic.append(abs(fit.defocus.mean_A - v - 100) > 500)
        amplitude = amplitudes(image, spectrum.box)
        linear = fit_log_spectrum(
            LogSpectrum(amplitude, spectrum.regions, 1.4),
            SCOPE,
            defoci_A=DEFOCI_A,
            astigmatism_A=1000.0,
            coarse_A=30.0,
            fine_A=4.0,
            b_factor_A2=150.0,
        )
        plain.append(abs(linear.defocus.mean_A - v - 100) > 500)
    assert np.mean(logarithmic) < 0.02  # the method's limits
    assert np.mean(plain) > 0.20


@pytest.mark.parametrize("seed", [0, 3])
def test_pure_noise_is_not_fitted_and_does_not_validate(seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal((1280, 1280)).astype(np.float32)
    fit, spectrum = ctf_by_log_amplitudes(noise, 1.4, SCOPE, EstimateCtfGctf())
    assert fit.resolution_A >= 15.0  # the method's limit
    assert validation_score(spectrum, fit, SCOPE, **BAND) < LEAST_VALIDATION


def amplitudes(image: np.ndarray, box: int) -> np.ndarray:
    """Return the mean amplitude of windows with their background."""
    corners = range(0, image.shape[0] - box + 1, box // 2)
    taper = np.outer(np.hanning(box), np.hanning(box))
    windows = [image[y : y + box, x : x + box] - 100.0 for y in corners for x in corners]
    return np.mean([np.abs(np.fft.rfft2(w * taper)) for w in windows], axis=0).astype(np.float32)


def test_the_halves_of_the_diagnostic_image_show_the_same_rings() -> None:
    fit, spectrum = ctf_by_log_amplitudes(micrograph(from_uv(14000, 12500, 30.0)), 1.4, SCOPE, EstimateCtfGctf())
    image = diagnostic_image(fit, spectrum, SCOPE)
    # (x, y) and (-x, -y) are the same frequency
    right = image[1:, 256 + 2 : 512][::-1, ::-1]
    left = image[1:, 1 : 1 + right.shape[1]]
    y, x = np.mgrid[-255:256, -255 : -255 + right.shape[1]]
    shown = (np.hypot(x, y) > 40) & (np.hypot(x, y) < 100)
    assert np.corrcoef(left[shown], right[shown])[0, 1] > 0.3  # mirrored, the correlation is near 0


def test_flat_small_and_coarse_micrographs_are_refused() -> None:
    rng = np.random.default_rng(0)
    for image, pixel, message in (
        (np.ones((1024, 1024), np.float32), 1.4, "flat"),
        (
            rng.random((600, 190)).astype(np.float32),
            1.4,
            "room only for windows of 126 pixels, but estimate_ctf_gctf needs 128",
        ),
        (rng.random((1024, 1024)).astype(np.float32), 14.0, "no band to fit"),
    ):
        with pytest.raises(InputError, match=message):
            ctf_by_log_amplitudes(image, pixel, SCOPE, EstimateCtfGctf())


def run(folder: Path, images: dict[str, np.ndarray], *, voltage_kV: float = 300.0, **options: bool) -> StarTable:
    rows = []
    for item, image in images.items():
        write_image(folder / f"{item}.mrc", image, 1.4)
        rows.append({"rlnMicrographName": str(folder / f"{item}.mrc"), "rlnOpticsGroup": 1, "crpItem": item})
    optics = make_optics(voltage_kV=voltage_kV, cs_mm=2.7, amplitude_contrast=0.1, micrograph_pixel_size_A=1.4)
    frame = pd.DataFrame(rows, columns=["rlnMicrographName", "rlnOpticsGroup", "crpItem"])
    write_table(folder / "in.star", StarTable("micrographs", optics, frame))
    outputs = {"micrographs": folder / "out" / "ctf.star", "rejected": folder / "out" / "rejected.tsv"}
    log = logging.getLogger("test")
    context = Context(step="estimate_ctf_gctf", work_dir=folder / "work", max_failed_fraction=0.6, log=log)
    estimate_ctf_gctf.main({"micrographs": folder / "in.star"}, outputs, EstimateCtfGctf(**options), context)
    return read_table(outputs["micrographs"], "micrographs")


def test_the_step_writes_columns_and_pictures_and_quarantines_what_fails(tmp_path: Path) -> None:
    images = {"flat": np.ones((1024, 1024), np.float32), "a": micrograph(from_uv(15000, 14600, 30.0))}
    result = run(tmp_path, images)
    row = result.rows.iloc[0]
    assert list(result.rows["crpItem"]) == ["a"]
    assert 0.5 * (row["rlnDefocusU"] + row["rlnDefocusV"]) == pytest.approx(14800, abs=100)
    assert 0.8 < row["rlnCtfValidationScore"] <= 1.0
    assert read_image(Path(row["rlnCtfImage"]))[0].shape == (512, 512)
    assert (tmp_path / "out" / "diagnostics" / "a_EPA.log").read_text().startswith("Resolution |CTF| EPA CC")
    assert [(r.item, r.kind) for r in read_rejections(tmp_path / "out" / "rejected.tsv")] == [("flat", "quarantined")]


def test_a_mistyped_voltage_that_is_corrected_gives_the_defocus_of_the_right_one(tmp_path: Path) -> None:
    images = {"a": micrograph(from_uv(15000, 14600, 30.0))}
    mean = [
        run(tmp_path, images, voltage_kV=kV).rows[["rlnDefocusU", "rlnDefocusV"]].mean(axis=1)[0] for kV in (200, 300)
    ]
    assert mean[1] == pytest.approx(14800, abs=100)
    # rings at the same frequencies: the defocus goes with the inverse of the wavelength
    assert mean[1] / mean[0] == pytest.approx(Microscope(200, 2.7, 0.1).wavelength_A / SCOPE.wavelength_A, rel=0.03)


def test_the_step_reports_the_phase_shift_in_degrees(tmp_path: Path, simulate: Callable[..., np.ndarray]) -> None:
    image = simulate(from_uv(11000.0, 10800.0, 20.0, 70.0), side=1280, seed=4, noise=0.7)
    row = run(tmp_path, {"a": image}, find_phase_shift=True).rows.iloc[0]
    assert row["rlnPhaseShift"] == pytest.approx(70.0, abs=5.0)  # the method's limit


def test_an_empty_batch_keeps_its_columns(tmp_path: Path) -> None:
    assert {"rlnDefocusU", "rlnCtfValidationScore"} <= set(run(tmp_path, {}).rows.columns)
