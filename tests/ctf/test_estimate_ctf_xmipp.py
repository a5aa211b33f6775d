"""Step estimate_ctf_xmipp against spectra and micrographs whose CTF is known (the method's acceptance tests)."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from cryopipe.config.ctf import EstimateCtfCtffind, EstimateCtfGctf, EstimateCtfXmipp
from cryopipe.context import Context
from cryopipe.ctf import estimate_ctf_ctffind, estimate_ctf_gctf, estimate_ctf_xmipp
from cryopipe.ctf.defocus import Defocus, Microscope, from_uv, phase
from cryopipe.ctf.estimate_ctf_xmipp import previous_ctfs
from cryopipe.ctf.xmipp import estimate as spectrum_estimate
from cryopipe.ctf.xmipp.background import Background, Hill
from cryopipe.ctf.xmipp.envelope import Envelope, envelope_b_factor_A2
from cryopipe.ctf.xmipp.estimate import CRITERIA, PreviousCtf, ctf_by_power_spectrum, fit_periodogram, passes
from cryopipe.ctf.xmipp.files import diagnostic_pictures
from cryopipe.ctf.xmipp.initial_defocus import fast_defocus
from cryopipe.ctf.xmipp.periodogram import Periodogram
from cryopipe.ctf.xmipp.polar_average import polar_cells, ring_cells
from cryopipe.ctf.xmipp.stages import Settings, Start
from cryopipe.errors import InputError
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, make_optics, read_rejections, read_table, write_table
from cryopipe.io.star_blocks import read_blocks

SCOPE = Microscope(300.0, 2.7, 0.1)
REALDATA = Path(__file__).resolve().parents[3] / "shared" / "realdata"
DEFOCI_A = np.arange(2000.0, 50001.0, 100.0)
SETTINGS = Settings(0.05, 0.35, DEFOCI_A, 3000.0, False)
PIXEL_A = 1.75
#: The full model, with a power of 1.2 at the coarse end of the band and rings 0.6 to 0.1 deep at its fine end.
ENVELOPE = Envelope(amplitude=1.1, energy_spread_eV=1.0, convergence_mrad=0.1, transversal_A=1.0, linear_A=-0.5)
BACKGROUND = Background(
    base=0.8,
    root=40.0,
    slope=22.0,
    slope_a=0.0,
    slope_b=0.0,
    rise=0.15,
    first=Hill(0.08, 600.0),
    fall=0.05,
    second=Hill(0.15, 900.0),
    polynomial=(-0.3, 0.2, 0.0),
)
STEEP = Background(1.0, 30.0, 22.0, 0.0, 0.0, 0.0, None, 0.0, None, (0.0, 0.0, 0.0))


def rings_of_depth(depth: float, mean_A: float, b_factor_A2: float = 100.0) -> Envelope:
    """Envelope of the height K² = depth and the given B-factor: π² α² Δ² u² = B u² / 4."""
    return Envelope(amplitude=depth**0.5, convergence_mrad=1e3 * np.sqrt(b_factor_A2 / 4) / (np.pi * mean_A))


def synthetic(
    truth: Defocus,
    envelope: Envelope = ENVELOPE,
    background: Background = BACKGROUND,
    *,
    seed: int,
    windows: int = 100,
    box: int = 512,
) -> Periodogram:
    """Spectrum of the model with the noise of so many windows: the mean of exponential powers."""
    ky, kx = np.fft.fftfreq(box, PIXEL_A)[:, None], np.arange(box // 2 + 1)[None, :] / (box * PIXEL_A)
    k2 = kx**2 + ky**2
    safe = np.where(k2 > 0, k2, 1.0)
    cos2, sin2, u = (kx**2 - ky**2) / safe, 2.0 * kx * ky / safe, np.sqrt(k2)
    local = truth.mean_A + truth.a_A * cos2 + truth.b_A * sin2
    rings = np.sin(phase(k2, local, SCOPE, truth.phase_shift_rad)) ** 2
    power = background.at(u, cos2, sin2) + (envelope.amplitude * envelope.at(u, local, SCOPE)) ** 2 * rings
    rng = np.random.default_rng(seed)
    noisy = power * rng.gamma(windows, 1.0 / windows, power.shape)
    return Periodogram(noisy, power, rng.standard_normal((30, 20)), float(windows), np.ones(box), PIXEL_A)


def micrograph(truth: Defocus, *, side: int = 1536, pixel: float = 1.4, seed: int = 3, b: float = 100.0) -> np.ndarray:
    """White object seen through the CTF, under white noise."""
    rng = np.random.default_rng(seed)
    kx, ky = np.fft.rfftfreq(side, pixel)[None, :], np.fft.fftfreq(side, pixel)[:, None]
    shift = float(np.degrees(truth.phase_shift_rad))
    optics = CtfParameters(truth.u_A, truth.v_A, truth.angle_deg, 300.0, 2.7, 0.1, shift)
    transfer = ctf(kx + 0 * ky, ky + 0 * kx, optics) * np.exp(-b * (kx**2 + ky**2) / 4)
    signal = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * transfer, s=(side, side))
    return (100 + 10 * (signal + 1.5 * rng.standard_normal((side, side)))).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_the_full_model_is_found_again_in_a_synthetic_spectrum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    v = rng.uniform(8000.0, 22000.0)
    truth = from_uv(v + 800.0, v, rng.uniform(-90.0, 90.0))
    found = fit_periodogram(synthetic(truth, seed=seed), SCOPE, SETTINGS)
    d = found.fit.defocus
    assert (d.u_A, d.v_A) == pytest.approx((truth.u_A, truth.v_A), abs=50.0)  # these limits are the method's
    assert abs((d.angle_deg - truth.angle_deg + 90.0) % 180.0 - 90.0) <= 3.0
    at_5A = [e.amplitude * float(e.at(np.array(0.2), truth.mean_A, SCOPE)) for e in (found.envelope, ENVELOPE)]
    assert at_5A[0] == pytest.approx(at_5A[1], rel=0.10)
    cells = found.fit.cells
    floor = found.background.at(cells.u, cells.cos2, cells.sin2)
    np.testing.assert_allclose(floor, BACKGROUND.at(cells.u), rtol=0.03)
    assert found.fit.solution.cost == pytest.approx(1.0, abs=0.06)  # noise is all that is left
    assert found.criteria["crpCtfFittingScore"] == found.fit.solution.cost


def test_fast_defocus_is_within_5_percent_on_100_random_defoci() -> None:
    errors = []
    for seed in range(100):
        mean = np.random.default_rng(1000 + seed).uniform(4000.0, 30000.0)
        spectrum = synthetic(Defocus(mean), rings_of_depth(0.3, mean), STEEP, seed=seed)
        rings = ring_cells(polar_cells(spectrum).within(0.05 / PIXEL_A, 0.35 / PIXEL_A))
        errors.append(fast_defocus(rings.u, rings.power, SCOPE, DEFOCI_A) / mean - 1.0)
    assert np.abs(errors).max() <= 0.05


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_previous_ctf_that_is_5_percent_off_returns_to_the_truth(factor: float) -> None:
    truth = from_uv(15000.0, 14200.0, 35.0)
    start = Start(from_uv(truth.u_A * factor, truth.v_A * factor, 45.0), 0.1 * truth.u_A)
    d = fit_periodogram(synthetic(truth, seed=5), SCOPE, SETTINGS, start).fit.defocus
    assert (d.u_A, d.v_A) == pytest.approx((truth.u_A, truth.v_A), abs=50.0)


def test_a_previous_ctf_is_left_by_no_more_than_the_allowed_share() -> None:
    image = micrograph(from_uv(15000.0, 14800.0, 20.0), side=1024)
    wrong = PreviousCtf(12000.0, 12000.0, 0.0)
    d = ctf_by_power_spectrum(image, 1.4, SCOPE, EstimateCtfXmipp(previous_change=0.1), wrong).fit.defocus
    assert abs(d.mean_A - 12000.0) <= 1200.0 + 1e-6


def test_rings_are_told_from_noise_by_the_correlation_between_the_first_and_third_zero() -> None:
    for seed in range(3):
        seen = fit_periodogram(
            synthetic(Defocus(15000.0), rings_of_depth(0.3, 15000.0), STEEP, seed=seed), SCOPE, SETTINGS
        )
        noise = fit_periodogram(
            synthetic(Defocus(15000.0), Envelope(amplitude=1e-9), STEEP, seed=seed), SCOPE, SETTINGS
        )
        assert seen.criteria["crpCtfCorr13"] > 0.5
        assert noise.criteria["crpCtfCorr13"] < 0.1
        assert passes(seen.criteria | {"crpCtfHistogramNormality": 0.0})
        assert not passes(noise.criteria)
        assert noise.resolution_A > 30.0


def test_defocus_and_astigmatism_of_simulated_micrographs_are_within_the_methods_limits() -> None:
    errors = []
    for seed in range(8):
        rng = np.random.default_rng(100 + seed)
        v, half = rng.uniform(8000, 22000), rng.uniform(0, 250)
        truth = from_uv(v + 2 * half, v, rng.uniform(-90, 90))
        d = ctf_by_power_spectrum(micrograph(truth, seed=seed), 1.4, SCOPE, EstimateCtfXmipp()).fit.defocus
        errors.append((abs(d.mean_A - truth.mean_A), float(np.hypot(d.a_A - truth.a_A, d.b_A - truth.b_A))))
    mean, astigmatism = np.array(errors).T
    assert np.median(mean) <= 60.0
    assert np.percentile(mean, 95) <= 200.0
    assert np.median(astigmatism) <= 60.0


def test_resolution_and_envelope_follow_the_b_factor_of_the_micrograph() -> None:
    truth = from_uv(14000, 13800, 20.0)
    found = [
        ctf_by_power_spectrum(micrograph(truth, b=b), 1.4, SCOPE, EstimateCtfXmipp()) for b in (50.0, 200.0, 500.0)
    ]
    assert found[0].resolution_A < found[1].resolution_A < found[2].resolution_A
    ends = [f.criteria["crpCtfEnvelopeResolution"] for f in found]
    assert ends[0] < ends[1] < ends[2]
    b_factors = [envelope_b_factor_A2(f.envelope, 13900.0, SCOPE, (0.03, 0.2)) for f in found[:2]]
    assert b_factors == pytest.approx([50.0, 200.0], rel=0.2)


@pytest.mark.parametrize(("mean", "astigmatism"), [(5000, 300), (27000, 200), (15000, 2500)])
def test_low_high_and_strongly_astigmatic_defocus_is_found_from_nothing(mean: float, astigmatism: float) -> None:
    truth = from_uv(mean + astigmatism / 2, mean - astigmatism / 2, -35.0)
    d = ctf_by_power_spectrum(micrograph(truth, side=1800), 1.4, SCOPE, EstimateCtfXmipp()).fit.defocus
    assert abs(d.mean_A - truth.mean_A) <= 60.0
    assert np.hypot(d.a_A - truth.a_A, d.b_A - truth.b_A) <= 100.0


def test_a_phase_plate_is_found_with_its_defocus() -> None:
    truth = from_uv(10000, 9800, 10.0, 70.0)
    params = EstimateCtfXmipp(find_phase_shift=True, max_defocus_A=30000)
    d = ctf_by_power_spectrum(micrograph(truth, side=2048), 1.4, SCOPE, params).fit.defocus
    assert np.degrees(d.phase_shift_rad) % 180.0 == pytest.approx(70.0, abs=5.0)
    assert abs(d.mean_A - truth.mean_A) < 150.0


def test_the_angle_is_that_of_the_frame_of_the_image() -> None:
    image = micrograph(from_uv(15000, 14000, 30.0), side=1024)
    d = ctf_by_power_spectrum(np.ascontiguousarray(image[::-1]), 1.4, SCOPE, EstimateCtfXmipp()).fit.defocus
    mirrored = from_uv(15000, 14000, -30.0)
    assert np.hypot(d.a_A - mirrored.a_A, d.b_A - mirrored.b_A) < 120.0


def test_downsampling_goes_on_to_the_next_pixel_size_only_where_the_criteria_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = micrograph(from_uv(15000, 14800, 20.0), side=1400, pixel=1.0, b=50.0)
    first = ctf_by_power_spectrum(image, 1.0, SCOPE, EstimateCtfXmipp())
    assert first.downsampling == pytest.approx(1.75, rel=1e-3)
    own = ctf_by_power_spectrum(image, 1.0, SCOPE, EstimateCtfXmipp(downsample=False))
    assert own.downsampling == 1.0
    tried: list[float] = []
    fit = spectrum_estimate.fit_periodogram

    def watched(periodogram: Periodogram, *others: Any) -> Any:
        tried.append(periodogram.pixel_size_A)
        return fit(periodogram, *others)

    monkeypatch.setattr(spectrum_estimate, "fit_periodogram", watched)
    noise = np.random.default_rng(1).standard_normal((900, 900)).astype(np.float32)
    found = ctf_by_power_spectrum(noise, 1.0, SCOPE, EstimateCtfXmipp(window=256))
    assert tried == pytest.approx([1.75, 2.75, 1.0], rel=3e-3)
    assert found.resolution_A == pytest.approx(20.0 * found.periodogram.pixel_size_A)  # the coarse end: no rings


def test_the_parts_of_the_diagnostic_pictures_show_the_same_rings() -> None:
    truth = from_uv(14000, 12500, 30.0)
    found = ctf_by_power_spectrum(micrograph(truth), 1.4, SCOPE, EstimateCtfXmipp())
    half, quadrant = diagnostic_pictures(found.enhanced, found.fit.defocus, SCOPE, found.resolution_A)
    assert half.min() >= 0.0
    assert half.max() <= 1.0
    y, x = np.mgrid[-255:256, 1:256]
    shown = (np.hypot(x, y) > 40) & (np.hypot(x, y) < 100)
    # (x, y) and (-x, -y) are the same frequency
    model, data = half[256 + y, 256 + x], half[256 - y, 256 - x]
    assert np.corrcoef(model[shown], data[shown])[0, 1] > 0.6  # mirrored, the correlation is near 0
    upper = shown & (y < 0)
    np.testing.assert_array_equal(quadrant[256 + y, 256 + x][upper], model[upper])
    lower = shown & (y > 0)
    assert np.corrcoef(quadrant[256 + y, 256 + x][lower], model[lower])[0, 1] > 0.6


def test_flat_small_coarse_and_startless_micrographs_are_refused_with_a_remedy() -> None:
    rng = np.random.default_rng(0)
    noise = rng.random((512, 512)).astype(np.float32)
    for image, pixel, params, message in (
        (np.ones((1024, 1024), np.float32), 1.4, EstimateCtfXmipp(), "flat"),
        (
            noise[:180, :300],
            1.4,
            EstimateCtfXmipp(),
            "300 x 180 pixels of 1.4 Å has room only for windows of 120 pixels",
        ),
        (noise, 6.0, EstimateCtfXmipp(), "it must reach 12 Å. Use less binned"),
        (noise, 1.4, EstimateCtfXmipp(border_windows=2), "Set estimate_ctf_xmipp.border_windows to 0"),
        (noise, 1.4, EstimateCtfXmipp(fix_previous=True), "set estimate_ctf_xmipp.fix_previous to false"),
    ):
        with pytest.raises(InputError, match=message):
            ctf_by_power_spectrum(image, pixel, SCOPE, params)
    with pytest.raises(InputError, match="the previous CTF has the defoci -9999 and -9999 Å"):
        ctf_by_power_spectrum(noise, 1.4, SCOPE, EstimateCtfXmipp(), PreviousCtf(-9999.0, -9999.0, -9999.0))
    with pytest.raises(ValidationError, match="use_previous must be true"):
        EstimateCtfXmipp(fix_previous=True, use_previous=False)


def make_table(folder: Path, images: dict[str, np.ndarray], **columns: list[float]) -> Path:
    rows = []
    for item, image in images.items():
        write_image(folder / f"{item}.mrc", image, 1.4)
        rows.append({"rlnMicrographName": str(folder / f"{item}.mrc"), "rlnOpticsGroup": 1, "crpItem": item})
    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, micrograph_pixel_size_A=1.4)
    frame = pd.DataFrame(rows, columns=["rlnMicrographName", "rlnOpticsGroup", "crpItem"]).assign(**columns)
    write_table(folder / "in.star", StarTable("micrographs", optics, frame))
    return folder / "in.star"


def run(
    folder: Path,
    inputs: dict[str, Path],
    params: EstimateCtfXmipp | None = None,
    *,
    threads: int = 1,
    name: str = "out",
) -> StarTable:
    outputs = {"micrographs": folder / name / "ctf.star", "rejected": folder / name / "rejected.tsv"}
    context = Context(
        step="estimate_ctf_xmipp",
        work_dir=folder / f"work_{name}",
        threads=threads,
        max_failed_fraction=0.6,
        log=logging.getLogger("test"),
    )
    estimate_ctf_xmipp.main(inputs, outputs, params or EstimateCtfXmipp(), context)
    return read_table(outputs["micrographs"], "micrographs")


def test_the_step_writes_criteria_pictures_and_the_model_and_quarantines_what_fails(tmp_path: Path) -> None:
    truth = from_uv(15000, 14600, 30.0)
    images = {"flat": np.ones((1024, 1024), np.float32), "a": micrograph(truth, side=1024)}
    table = make_table(tmp_path, images)
    result = run(tmp_path, {"micrographs": table})
    row = result.rows.iloc[0]
    assert list(result.rows["crpItem"]) == ["a"]
    assert 0.5 * (row["rlnDefocusU"] + row["rlnDefocusV"]) == pytest.approx(14800, abs=100)
    assert row["crpCtfFirstZero"] == pytest.approx(
        1 / np.sqrt((1 - SCOPE.offset / np.pi) / (SCOPE.wavelength_A * 14800)), 0.01
    )
    assert row["crpCtfDownsampling"] == pytest.approx(1.25, rel=2e-3)
    assert row["crpCtfEnvelopeBFactor"] == pytest.approx(100.0, abs=40.0)  # 1 Mpx
    assert row["crpCtfHistogramNormality"] < 0.05
    assert row["crpCtfStartKind"] == "search"
    assert set(CRITERIA) <= set(result.rows.columns)
    assert np.isfinite(result.rows.select_dtypes("number").to_numpy()).all()
    pictures = {p.name for p in (tmp_path / "out" / "pictures").iterdir()}
    assert pictures == {"a_ctf_halfplane.png", "a_ctf_quadrant.png"}
    assert read_image(Path(row["rlnCtfImage"]))[0].shape == (512, 512)
    assert [(r.item, r.kind) for r in read_rejections(tmp_path / "out" / "rejected.tsv")] == [("flat", "quarantined")]
    again = run(tmp_path, {"micrographs": table}, threads=2, name="two")
    paths = ["rlnCtfImage", "crpCtfModelFile"]
    pd.testing.assert_frame_equal(again.rows.drop(columns=paths), result.rows.drop(columns=paths), check_exact=True)


def test_the_model_file_holds_all_parameters_and_the_curves_that_they_make(tmp_path: Path) -> None:
    truth = from_uv(15000, 14600, 30.0)
    row = run(tmp_path, {"micrographs": make_table(tmp_path, {"a": micrograph(truth, side=1024)})}).rows.iloc[0]
    blocks = read_blocks(Path(row["crpCtfModelFile"]))
    p, curves = blocks["ctf_model"].iloc[0], blocks["ctf_radial"]
    assert p["rlnDefocusU"] == row["rlnDefocusU"]
    u = curves["crpFrequency"].to_numpy()
    envelope = Envelope(
        p["crpCtfK"],
        p["crpCtfChromaticAberration"],
        p["crpCtfEnergySpread"],
        p["crpCtfLensInstability"],
        p["crpCtfConvergence"],
        p["crpCtfLongitudinalDrift"],
        p["crpCtfTransversalDrift"],
        p["crpCtfEnvelopeR1"],
        p["crpCtfEnvelopeR2"],
    )
    mean = 0.5 * (p["rlnDefocusU"] + p["rlnDefocusV"])
    np.testing.assert_allclose(curves["crpPsdEnvelope"], p["crpCtfK"] * envelope.at(u, mean, SCOPE), rtol=1e-9)
    inside = (u > 0.05 / 1.75) & (u < 0.35 / 1.75)
    # a ring of 1 Mpx: some 5 independent windows, 100 pixels and more
    np.testing.assert_allclose(curves["crpPsdModel"][inside], curves["crpPsdData"][inside], rtol=0.25)
    assert np.all(curves["crpPsdBackground"] <= curves["crpPsdModel"] + 1e-12)


def test_a_fixed_ctf_is_unchanged_to_the_last_digit(tmp_path: Path) -> None:
    known = {"rlnDefocusU": [15012.3], "rlnDefocusV": [14587.1], "rlnDefocusAngle": [123.4], "rlnPhaseShift": [0.25]}
    image = micrograph(from_uv(15000, 14600, -60.0), side=1024)
    table = make_table(tmp_path, {"a": image}, **known)
    row = run(tmp_path, {"micrographs": table}, EstimateCtfXmipp(fix_previous=True)).rows.iloc[0]
    assert {name: [row[name]] for name in known} == known
    assert row["crpCtfCorr13"] > 0.2  # envelope and background are fitted all the same
    assert row["crpCtfStartKind"] == "previous"


def test_a_previous_table_is_joined_by_item_and_what_it_lacks_is_searched(tmp_path: Path) -> None:
    images = {
        "a": micrograph(from_uv(15000, 14600, 30.0), side=1024),
        "b": micrograph(from_uv(9000, 8800, 0.0), side=1024),
    }
    table = make_table(tmp_path, images)
    (tmp_path / "old").mkdir()
    old = make_table(
        tmp_path / "old", {"b": images["b"]}, rlnDefocusU=[9100.0], rlnDefocusV=[8900.0], rlnDefocusAngle=[0.0]
    )
    rows = run(tmp_path, {"micrographs": table, "previous": old}).rows
    assert list(rows["crpCtfStartKind"]) == ["search", "previous"]
    means = 0.5 * (rows["rlnDefocusU"] + rows["rlnDefocusV"])
    assert list(means) == pytest.approx([14800, 8900], abs=100)
    unused = run(tmp_path, {"micrographs": old}, EstimateCtfXmipp(use_previous=False), name="unused").rows
    assert list(unused["crpCtfStartKind"]) == ["search"]


def test_a_table_of_previous_ctfs_without_them_or_with_an_item_twice_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    bare = read_table(make_table(tmp_path, {"a": noise}), "micrographs")
    assert previous_ctfs(bare, None) == {}
    with pytest.raises(InputError, match="lacks rlnDefocusU"):
        previous_ctfs(bare, bare)
    full = bare.rows.assign(rlnDefocusU=2e4, rlnDefocusV=1e4, rlnDefocusAngle=0.0)
    with pytest.raises(InputError, match="a occurs twice"):
        previous_ctfs(bare, bare.with_rows(pd.concat([full, full])))


def test_an_empty_batch_keeps_its_columns(tmp_path: Path) -> None:
    result = run(tmp_path, {"micrographs": make_table(tmp_path, {})})
    assert len(result) == 0
    assert {"rlnDefocusU", "crpCtfCorr13", "crpCtfModelFile", "rlnMicrographName"} <= set(result.rows.columns)


def test_a_micrograph_of_14_megapixels_takes_at_most_6_seconds_of_one_core() -> None:
    tile = micrograph(from_uv(15000, 14600, 20.0), side=1920, pixel=1.5)
    image = np.tile(tile, (2, 2))[:3838, :3710].copy()
    with threadpool_limits(1):
        start = time.process_time()
        d = ctf_by_power_spectrum(image, 1.5, SCOPE, EstimateCtfXmipp()).fit.defocus
        spent = time.process_time() - start
    assert spent <= 6.0  # 1.7 s were measured
    assert abs(d.mean_A - 14800.0) < 100.0


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason=f"no real data at {REALDATA}")
@pytest.mark.parametrize(
    "path",
    [*sorted((REALDATA / "empiar-10146").glob("*.mrc")), REALDATA / "micrographs" / "fei-extended.mrc"],
    ids=lambda p: p.stem,
)
def test_three_estimators_agree_on_real_micrographs_with_and_without_a_previous_ctf(path: Path) -> None:
    extended = path.stem == "fei-extended"
    scope = Microscope(300.0, 2.7, 0.1) if extended else Microscope(300.0, 0.001, 0.07)
    pixel = 0.85378 if extended else 1.5
    image, _ = read_image(path)
    first = estimate_ctf_ctffind.ctf_by_amplitudes(image, pixel, scope, EstimateCtfCtffind()).fit.defocus
    second = estimate_ctf_gctf.ctf_by_log_amplitudes(image, pixel, scope, EstimateCtfGctf())[0].defocus
    previous = PreviousCtf(first.u_A, first.v_A, first.angle_deg)
    for start in (None, previous):
        mine = ctf_by_power_spectrum(image, pixel, scope, EstimateCtfXmipp(), start)
        assert abs(mine.fit.defocus.mean_A - first.mean_A) < 150.0  # the method's limit
        assert abs(mine.fit.defocus.mean_A - second.mean_A) < 150.0
        assert mine.resolution_A < 6.0
        assert passes(mine.criteria)
