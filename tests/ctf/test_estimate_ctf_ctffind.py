"""Step estimate_ctf_ctffind and its parts against CTFs that are known (the method's acceptance tests)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.ctf import EstimateCtfCtffind
from cryopipe.context import Context
from cryopipe.ctf import estimate_ctf_ctffind
from cryopipe.ctf.ctffind.diagnostics import fit_resolution_A, make_profiles
from cryopipe.ctf.ctffind.fit import Band, Fit, SearchRange, fit_ctf, score_and_gradient
from cryopipe.ctf.ctffind.spectrum import Spectrum, flattened_spectrum, make_spectrum
from cryopipe.ctf.ctffind.tile_spectra import Tiles, common_spectrum
from cryopipe.ctf.defocus import Defocus, Microscope, equivalent_k2, from_uv, phase
from cryopipe.ctf.estimate_ctf_ctffind import ctf_by_amplitudes
from cryopipe.errors import InputError
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, make_optics, read_rejections, read_table, write_table

SCOPE = Microscope(300.0, 2.7, 0.1)
LIMITS = SearchRange(3000.0, 50000.0, 100.0, 3000.0, 30.0, 5.0)
REALDATA = Path(__file__).resolve().parents[3] / "shared" / "realdata"


def power(
    truth: Defocus, *, depth: float, box: int, pixel: float, b_factor: float = 100.0, cut_A: float | None = None
) -> np.ndarray:
    """Return the power spectrum [box, box]: noise 1 plus rings of the given modulation depth."""
    axis = (np.arange(box) - box // 2) / (box * pixel)
    kx, ky = axis[None, :], axis[:, None]
    parameters = CtfParameters(
        truth.u_A, truth.v_A, truth.angle_deg, 300.0, 2.7, 0.1, float(np.degrees(truth.phase_shift_rad))
    )
    k2 = kx**2 + ky**2
    envelope = np.exp(-b_factor * k2 / 2)
    if cut_A is not None:
        envelope = envelope * (k2 < 1 / cut_A**2)
    return 1.0 + 2.0 * depth * envelope * ctf(kx + 0 * ky, ky + 0 * kx, parameters) ** 2


def simulated(
    truth: Defocus, *, depth: float, seed: int, averages: float = 21.0, box: int = 512, **options: float
) -> Spectrum:
    """Spectrum of a 14-megapixel micrograph: each of the 512² pixels is the mean of 21 exponential powers (speckle)."""
    expected = power(truth, depth=depth, box=box, pixel=1.4, **options)
    rng = np.random.default_rng(seed)
    half = np.sqrt(expected * rng.gamma(averages, 1.0 / averages, expected.shape))
    half[1:, 1:] = np.where(np.arange(1, box)[None, :] < box // 2, half[1:, 1:], half[1:, 1:][::-1, ::-1])  # Friedel
    return flattened_spectrum(half, 1.4, min_resolution_A=30.0)


def errors(fit: Fit, truth: Defocus) -> tuple[float, float]:
    d = fit.defocus
    return abs(d.mean_A - truth.mean_A), float(np.hypot(d.a_A - truth.a_A, d.b_A - truth.b_A))


def test_the_phase_is_that_of_the_common_ctf() -> None:
    truth = from_uv(12000, 11000, 30.0, 20.0)
    kx, ky = np.random.default_rng(0).uniform(-0.4, 0.4, (2, 50))
    theta = np.arctan2(ky, kx)
    local = truth.mean_A + truth.a_A * np.cos(2 * theta) + truth.b_A * np.sin(2 * theta)
    expected = ctf(kx, ky, CtfParameters(12000, 11000, 30.0, 300.0, 2.7, 0.1, 20.0))
    np.testing.assert_allclose(np.sin(phase(kx**2 + ky**2, local, SCOPE, truth.phase_shift_rad)), expected, atol=1e-6)


def test_parameters_survive_the_way_to_the_tensor_and_back() -> None:
    d = from_uv(12000.0, 11000.0, 150.0)
    assert (d.u_A, d.v_A, d.angle_deg) == pytest.approx((12000.0, 11000.0, -30.0))
    swapped = from_uv(11000.0, 12000.0, 60.0)
    assert (swapped.u_A, swapped.v_A, swapped.angle_deg) == pytest.approx((12000.0, 11000.0, -30.0))


def test_the_equivalent_frequency_has_the_phase_of_the_mean_defocus() -> None:
    d = from_uv(9000.0, 7000.0, 10.0, 30.0)
    k2 = np.linspace(0.001, 0.1, 40)
    chi = phase(k2, d.mean_A, SCOPE, d.phase_shift_rad)
    np.testing.assert_allclose(equivalent_k2(chi, d, SCOPE), k2, rtol=1e-9)
    assert np.isnan(equivalent_k2(np.array([1e4]), d, SCOPE)[0])  # beyond the turning point
    flat = Microscope(300.0, 0.0, 0.1)
    np.testing.assert_allclose(equivalent_k2(phase(k2, d.mean_A, flat), Defocus(d.mean_A), flat), k2, rtol=1e-9)


def test_the_analytic_gradient_is_the_numerical_one() -> None:
    band = Band(simulated(from_uv(12000, 11500, 20), depth=0.2, seed=1, box=128), 30.0, 5.0)
    point = np.array([11900.0, 180.0, -120.0, 0.1])
    _, gradient = score_and_gradient(band, Defocus(*point), SCOPE)
    for i, h in enumerate((0.01, 0.01, 0.01, 1e-6)):
        step = np.eye(4)[i] * h
        up, down = (score_and_gradient(band, Defocus(*(point + s)), SCOPE)[0] for s in (step, -step))
        assert (up - down) / (2 * h) == pytest.approx(gradient[i], rel=1e-3)  # |sin| has kinks between the points


@pytest.mark.parametrize(("u", "v", "angle", "tolerance_deg"), [(12150, 11850, 40, 1.0), (9000, 7900, -70, 0.2)])
def test_noise_free_rings_give_the_exact_parameters(u: float, v: float, angle: float, tolerance_deg: float) -> None:
    truth = from_uv(u, v, angle)
    amplitude = np.sqrt(power(truth, depth=0.2, box=512, pixel=1.4, b_factor=0.0))
    d = fit_ctf(flattened_spectrum(amplitude, 1.4, min_resolution_A=30.0), SCOPE, LIMITS).defocus
    assert (d.u_A, d.v_A) == pytest.approx((u, v), abs=3.0)
    assert d.angle_deg == pytest.approx(angle, abs=tolerance_deg)


def test_defocus_is_as_exact_as_asked_at_two_ring_contrasts() -> None:
    truth = from_uv(12075, 11925, 25.0)
    strong = np.array([errors(fit_ctf(simulated(truth, depth=0.2, seed=s), SCOPE, LIMITS), truth) for s in range(5)])
    weak = np.array([errors(fit_ctf(simulated(truth, depth=0.05, seed=s), SCOPE, LIMITS), truth) for s in range(5)])
    assert np.sqrt((strong[:, 0] ** 2).mean()) <= 30.0
    assert np.sqrt((strong[:, 1] ** 2).mean()) <= 50.0
    assert np.sqrt((weak[:, 0] ** 2).mean()) <= 150.0
    assert np.all(weak[:, 0] <= 500.0)  # none on a wrong ring: at 5 Å they are 1270 Å apart


@pytest.mark.parametrize(("mean", "astigmatism"), [(5000, 300), (27000, 200), (15000, 2500)])
def test_the_search_finds_low_high_and_strongly_astigmatic_defocus(mean: float, astigmatism: float) -> None:
    truth = from_uv(mean + astigmatism / 2, mean - astigmatism / 2, -35.0)
    dz, da = errors(fit_ctf(simulated(truth, depth=0.2, seed=5), SCOPE, LIMITS), truth)
    assert dz <= 60.0
    assert da <= 100.0


def test_a_phase_plate_is_found_with_its_defocus() -> None:
    truth = from_uv(10000, 9900, 0.0, 70.0)
    limits = SearchRange(5000.0, 20000.0, 100.0, 600.0, 30.0, 4.0, find_phase_shift=True)
    fit = fit_ctf(simulated(truth, depth=0.3, seed=6), SCOPE, limits)
    assert np.degrees(fit.defocus.phase_shift_rad) == pytest.approx(70.0, abs=5.0)  # the method's limits
    assert abs(fit.defocus.mean_A - truth.mean_A) < 150.0


def test_an_astigmatism_tolerance_pulls_towards_round_rings() -> None:
    truth = from_uv(12000, 12000, 0.0)
    spectrum = simulated(truth, depth=0.02, seed=7)
    free = fit_ctf(spectrum, SCOPE, LIMITS).defocus
    held = fit_ctf(spectrum, SCOPE, SearchRange(3000, 50000, 100, 3000, 30, 5, astigmatism_tolerance_A=5.0)).defocus
    assert held.u_A - held.v_A < 0.5 * (free.u_A - free.v_A)


def test_the_fit_limit_is_where_the_rings_end() -> None:
    truth = from_uv(12100, 11900, 30.0)
    spectrum = simulated(truth, depth=0.3, seed=8, b_factor=0.0, cut_A=4.0)
    profiles = make_profiles(spectrum, truth, SCOPE, 30.0)
    assert 3.6 <= fit_resolution_A(profiles, 30.0) <= 4.6  # the method's limits


@pytest.mark.parametrize(("seed", "find_tilt"), [(9, False), (3, True)])
def test_pure_noise_is_not_fitted_at_all(seed: int, find_tilt: bool) -> None:
    noise = np.random.default_rng(seed).standard_normal((1280, 1280)).astype(np.float32)
    estimate = ctf_by_amplitudes(noise, 1.4, SCOPE, EstimateCtfCtffind(find_tilt=find_tilt))
    assert estimate.resolution_A >= 15.0


def test_the_equiphase_average_keeps_the_rings_that_astigmatism_smears() -> None:
    truth = from_uv(15750, 14250, 30.0)
    spectrum = simulated(truth, depth=0.3, seed=10, b_factor=0.0)
    profiles = make_profiles(spectrum, truth, SCOPE, 30.0)
    shells = (profiles.k > 1 / 5.3) & (profiles.k < 1 / 4.7)
    equiphase, radial = (
        np.corrcoef(p[shells], profiles.model[shells])[0, 1] for p in (profiles.equiphase, profiles.radial)
    )
    # phases differ by ±1.85 rad at 5 Å, so that the mean over azimuths is J0(3.7) = -0.4 times the rings
    assert equiphase > 0.9
    assert radial < -0.5


def micrograph(truth: Defocus, shape: tuple[int, int], pixel: float, seed: int = 0) -> np.ndarray:
    """White specimen under a CTF, plus white noise of ten times its power."""
    rng = np.random.default_rng(seed)
    ky, kx = np.fft.fftfreq(shape[0], pixel)[:, None], np.fft.rfftfreq(shape[1], pixel)[None]
    optics = CtfParameters(truth.u_A, truth.v_A, truth.angle_deg, 300.0, 2.7, 0.1)
    transfer = ctf(kx + 0 * ky, ky + 0 * kx, optics) * np.exp(-100 * (kx**2 + ky**2) / 4)
    signal = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * transfer, s=shape)
    return (100 + 10 * (signal + 1.5 * rng.standard_normal(shape))).astype(np.float32)


@pytest.mark.parametrize(("shape", "pixel"), [((1024, 1024), 1.0), ((1200, 1240), 1.5), ((900, 1100), 1.9)])
def test_micrographs_of_any_shape_and_sampling_give_the_angle_in_the_frame_of_the_image(
    shape: tuple[int, int], pixel: float
) -> None:
    truth = from_uv(15000, 14000, 30.0)
    image = micrograph(truth, shape, pixel)
    estimate = ctf_by_amplitudes(image, pixel, SCOPE, EstimateCtfCtffind())
    dz, da = errors(estimate.fit, truth)
    assert dz < 60.0
    assert da < 120.0
    flipped = ctf_by_amplitudes(np.ascontiguousarray(image[::-1]), pixel, SCOPE, EstimateCtfCtffind())
    # an image turned upside down has the mirrored angle
    assert errors(flipped.fit, from_uv(15000, 14000, -30.0))[1] < 120.0


def test_the_resampled_spectrum_keeps_the_frequency_of_a_wave() -> None:
    y, x = np.mgrid[:1000, :1100]
    wave = np.cos(2 * np.pi * (x / 9.0 + y / 14.0)) + 0.01 * np.random.default_rng(1).standard_normal((1000, 1100))
    spectrum = make_spectrum(wave.astype(np.float32), 1.0, box=256)
    peak = np.unravel_index(int(spectrum.amplitude[:, 128:].argmax()), (256, 128))
    unit = 1.0 / (256 * spectrum.pixel_size_A)
    assert (peak[1] * unit, (peak[0] - 128) * unit) == pytest.approx((1 / 9.0, 1 / 14.0), abs=unit)
    assert spectrum.pixel_size_A == pytest.approx(1.4, rel=0.01)


def test_too_small_and_flat_micrographs_are_refused_with_a_remedy() -> None:
    with pytest.raises(InputError, match=r"300 x 200 pixels is too small.*Set estimate_ctf_ctffind.box to \d+"):
        make_spectrum(np.random.default_rng(0).random((200, 300)).astype(np.float32), 1.0)
    with pytest.raises(InputError, match="flat"):
        make_spectrum(np.ones((1024, 1024), np.float32), 1.0)
    with pytest.raises(InputError, match="no band to fit"):
        ctf_by_amplitudes(np.ones((64, 64), np.float32), 14.0, SCOPE, EstimateCtfCtffind())


def make_table(folder: Path, images: dict[str, np.ndarray], pixel: float) -> Path:
    rows = []
    for item, image in images.items():
        write_image(folder / f"{item}.mrc", image, pixel)
        rows.append({"rlnMicrographName": str(folder / f"{item}.mrc"), "rlnOpticsGroup": 1, "crpItem": item})
    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, micrograph_pixel_size_A=pixel)
    frame = pd.DataFrame(rows, columns=["rlnMicrographName", "rlnOpticsGroup", "crpItem"])
    write_table(folder / "in.star", StarTable("micrographs", optics, frame))
    return folder / "in.star"


def run(folder: Path, table: Path, threads: int = 1, **options: Any) -> StarTable:
    outputs = {"micrographs": folder / "out" / "ctf.star", "rejected": folder / "out" / "rejected.tsv"}
    context = Context(
        step="estimate_ctf_ctffind",
        work_dir=folder / f"work{threads}",
        threads=threads,
        max_failed_fraction=0.6,
        log=logging.getLogger("test"),
    )
    estimate_ctf_ctffind.main({"micrographs": table}, outputs, EstimateCtfCtffind(**({"box": 256} | options)), context)
    return read_table(outputs["micrographs"], "micrographs")


def test_the_step_writes_columns_pictures_and_profiles_and_quarantines_what_fails(tmp_path: Path) -> None:
    truth = from_uv(15000, 14600, 30.0)
    images = {"flat": np.ones((512, 512), np.float32), "a": micrograph(truth, (512, 512), 1.4)}
    table = make_table(tmp_path, images, 1.4)
    result = run(tmp_path, table)
    row = result.rows.iloc[0]
    assert list(result.rows["crpItem"]) == ["a"]
    assert row["rlnDefocusU"] >= row["rlnDefocusV"]
    assert 0.5 * (row["rlnDefocusU"] + row["rlnDefocusV"]) == pytest.approx(14800, abs=150)  # 0.26 Mpx only
    assert row["rlnCtfMaxResolution"] < 8
    image, _ = read_image(Path(row["rlnCtfImage"]))
    assert image.shape == (256, 256)
    lines = (tmp_path / "out" / "diagnostics" / "a_avrot.txt").read_text().splitlines()
    assert [len(line.split()) for line in lines[2:]] == [128] * 6
    assert {p.name for p in (tmp_path / "out" / "pictures").iterdir()} == {"a_ctf.png", "a_epa.png"}
    assert [(r.item, r.kind) for r in read_rejections(tmp_path / "out" / "rejected.tsv")] == [("flat", "quarantined")]
    pd.testing.assert_frame_equal(run(tmp_path, table, threads=2).rows, result.rows)


@pytest.mark.parametrize("tilt", [(30.0, -110.0), (50.0, 170.0)])
def test_the_tilt_of_a_specimen_is_found_and_its_rings_reach_further(
    tilt: tuple[float, float], simulate: Callable[..., np.ndarray]
) -> None:
    truth = from_uv(16000, 15700, 25.0)
    image = simulate(truth, side=1800, seed=21, tilt_deg=tilt[0], axis_deg=tilt[1])
    flat = ctf_by_amplitudes(image, 1.4, SCOPE, EstimateCtfCtffind())
    found = ctf_by_amplitudes(image, 1.4, SCOPE, EstimateCtfCtffind(find_tilt=True))
    assert found.tilt is not None
    assert found.tilt.tilt_deg == pytest.approx(tilt[0], abs=3.0)  # the method's limits
    assert abs((found.tilt.axis_deg - tilt[1] + 180.0) % 360.0 - 180.0) < 10.0
    assert found.resolution_A < flat.resolution_A - 0.3
    assert errors(found.fit, truth)[0] < 60.0
    assert errors(found.fit, truth)[1] < 60.0


def test_tiles_of_one_plane_are_stretched_to_the_phase_of_the_centre() -> None:
    centre = from_uv(12000.0, 11000.0, 30.0)
    offsets = np.linspace(-3500.0, 3500.0, 21)
    tiles = [
        power(Defocus(12000.0 - 500.0 + o, centre.a_A, centre.b_A), depth=0.3, box=256, pixel=1.4) for o in offsets
    ]
    half = np.stack([np.sqrt(np.fft.ifftshift(t))[:, :129] for t in tiles]).astype(np.float32)
    stack = Tiles(half, np.zeros(21), np.zeros(21), 1.4)
    common = common_spectrum(stack, offsets, centre, SCOPE, min_resolution_A=30.0)
    expected = flattened_spectrum(np.sqrt(power(centre, depth=0.3, box=256, pixel=1.4)), 1.4, min_resolution_A=30.0)
    band = [Band(s, 30.0, 5.0).values for s in (common, expected)]
    # 0.95: what linear interpolation between pixels leaves; without the stretch it is below 0.5
    assert np.corrcoef(*band)[0, 1] > 0.95
    unmoved = common_spectrum(stack, np.zeros(21), centre, SCOPE, min_resolution_A=30.0)
    assert np.corrcoef(Band(unmoved, 30.0, 5.0).values, band[1])[0, 1] < 0.5


def test_a_micrograph_too_small_for_tiles_is_refused_with_a_remedy() -> None:
    image = np.random.default_rng(0).random((600, 700)).astype(np.float32)
    with pytest.raises(InputError, match=r"a tilt needs 3\. Set estimate_ctf_ctffind.box to"):
        ctf_by_amplitudes(image, 1.4, SCOPE, EstimateCtfCtffind(find_tilt=True, box=512))


def test_tilt_and_phase_shift_are_columns_of_the_table(tmp_path: Path, simulate: Callable[..., np.ndarray]) -> None:
    image = simulate(from_uv(11000.0, 10700.0, 35.0, 70.0), side=1280, seed=12, noise=0.7, tilt_deg=30.0, axis_deg=60.0)
    result = run(tmp_path, make_table(tmp_path, {"a": image}, 1.4), box=512, find_tilt=True, find_phase_shift=True)
    row = result.rows.iloc[0]
    assert row["rlnPhaseShift"] == pytest.approx(70.0, abs=5.0)
    assert row["crpCtfTilt"] == pytest.approx(30.0, abs=3.0)
    assert row["crpCtfTiltAxis"] == pytest.approx(60.0, abs=10.0)
    assert 0.5 * (row["rlnDefocusU"] + row["rlnDefocusV"]) == pytest.approx(10850.0, abs=150.0)


def test_an_empty_batch_keeps_its_columns(tmp_path: Path) -> None:
    result = run(tmp_path, make_table(tmp_path, {}, 1.4))
    assert len(result) == 0
    assert {"rlnDefocusU", "rlnCtfMaxResolution", "rlnMicrographName"} <= set(result.rows.columns)


def test_a_header_that_contradicts_the_table_is_quarantined(tmp_path: Path) -> None:
    image = np.random.default_rng(2).standard_normal((512, 512)).astype(np.float32)
    table = make_table(tmp_path, {"a": image}, 1.4)
    write_image(tmp_path / "a.mrc", image, 1.5)
    assert len(run(tmp_path, table)) == 0
    assert "the header has 1.5" in read_rejections(tmp_path / "out" / "rejected.tsv")[0].reason


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason=f"no real data at {REALDATA}")
def test_real_micrographs_have_the_defocus_their_data_set_states() -> None:
    scope = Microscope(300.0, 0.001, 0.07)
    for name in ("May08_03_05_02", "May08_06_30_43"):
        image, _ = read_image(REALDATA / "empiar-10146" / f"{name}.mrc")
        estimate = ctf_by_amplitudes(image, 1.5, scope, EstimateCtfCtffind())
        assert 15000 < estimate.fit.defocus.mean_A < 26000  # 1.6-2.5 µm
        assert estimate.fit.defocus.u_A - estimate.fit.defocus.v_A < 1000
        assert estimate.resolution_A < 5.0
