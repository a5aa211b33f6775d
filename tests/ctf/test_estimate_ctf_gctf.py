"""Step estimate_ctf_gctf and its parts against CTFs that are known (acceptance tests of the method's card)."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.ctf import EstimateCtfCtffind, EstimateCtfGctf
from cryopipe.context import Context
from cryopipe.ctf import estimate_ctf_ctffind, estimate_ctf_gctf, log_fit, log_spectrum
from cryopipe.ctf.estimate_ctf_gctf import diagnostic_image, estimate_ctf
from cryopipe.ctf.log_fit import describe, pixels_of
from cryopipe.ctf.model import Defocus, Microscope, from_uv
from cryopipe.errors import InputError
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, make_optics, read_rejections, read_table, write_table

SCOPE = Microscope(300.0, 2.7, 0.1)
REALDATA = Path(__file__).resolve().parents[3] / "shared" / "realdata"


def micrograph(truth: Defocus, *, side: int = 1536, pixel: float = 1.4, seed: int = 3, b: float = 100.0) -> np.ndarray:
    """White object seen through the CTF, under white noise."""
    rng = np.random.default_rng(seed)
    kx, ky = np.fft.rfftfreq(side, pixel)[None, :], np.fft.fftfreq(side, pixel)[:, None]
    optics = CtfParameters(truth.u_A, truth.v_A, truth.angle_deg, 300.0, 2.7, 0.1)
    transfer = ctf(kx + 0 * ky, ky + 0 * kx, optics) * np.exp(-b * (kx**2 + ky**2) / 4)
    signal = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * transfer, s=(side, side))
    return (100 + 10 * (signal + 1.5 * rng.standard_normal((side, side)))).astype(np.float32)


def test_defocus_and_astigmatism_of_simulated_micrographs_are_within_the_cards_limits() -> None:
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(100 + seed)
        v, half = rng.uniform(8000, 22000), rng.uniform(0, 250)
        truth = from_uv(v + 2 * half, v, rng.uniform(-90, 90))
        found = estimate_ctf(micrograph(truth, seed=seed), 1.4, SCOPE, EstimateCtfGctf())[0].defocus
        errors.append((abs(found.mean_A - truth.mean_A), float(np.hypot(found.a_A - truth.a_A, found.b_A - truth.b_A))))
    mean, astigmatism = np.array(errors).T
    assert np.median(mean) <= 60.0
    assert np.percentile(mean, 95) <= 200.0
    assert np.median(astigmatism) <= 60.0


def test_the_fit_reaches_as_far_as_the_envelope_lets_rings_be_seen() -> None:
    truth = from_uv(14000, 13800, 20.0)
    reached = [
        estimate_ctf(micrograph(truth, b=b), 1.4, SCOPE, EstimateCtfGctf())[0].resolution_A for b in (50, 200, 500)
    ]
    assert reached[0] < reached[1] < reached[2]


def test_a_wrong_ring_is_less_consistent_than_the_right_one() -> None:
    truth = from_uv(14000, 13800, 20.0)
    fit, spectrum = estimate_ctf(micrograph(truth), 1.4, SCOPE, EstimateCtfGctf())
    wrong = Defocus(fit.defocus.mean_A + 1500.0, fit.defocus.a_A, fit.defocus.b_A)
    other = describe(pixels_of(spectrum), wrong, spectrum, SCOPE, coarse_A=30.0, fine_A=4.0, b_factor_A2=150.0)
    assert fit.validation > 0.8
    assert other.validation < 0.5


def test_no_code_but_the_ctf_itself_is_shared_with_the_other_estimator() -> None:
    def used(*modules: object) -> set[str]:
        trees = [ast.parse(Path(str(m.__file__)).read_text()) for m in modules]  # type: ignore[attr-defined]
        nodes = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        return {str(n.module) for n in nodes if str(n.module).startswith("cryopipe.ctf")}

    mine = used(estimate_ctf_gctf, log_fit, log_spectrum)
    assert mine & used(estimate_ctf_ctffind) == {"cryopipe.ctf.model"}
    own = {"cryopipe.ctf.log_fit", "cryopipe.ctf.log_spectrum"}
    assert mine == own | {"cryopipe.ctf.model", "cryopipe.ctf.windows"}  # the latter says how large a window fits


def test_the_halves_of_the_diagnostic_image_show_the_same_rings() -> None:
    fit, spectrum = estimate_ctf(micrograph(from_uv(14000, 12500, 30.0)), 1.4, SCOPE, EstimateCtfGctf())
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
            "room for windows of 126 pixels only, estimate_ctf_gctf needs 128",
        ),
        (rng.random((1024, 1024)).astype(np.float32), 14.0, "no band to fit"),
    ):
        with pytest.raises(InputError, match=message):
            estimate_ctf(image, pixel, SCOPE, EstimateCtfGctf())


def run(folder: Path, images: dict[str, np.ndarray]) -> StarTable:
    rows = []
    for item, image in images.items():
        write_image(folder / f"{item}.mrc", image, 1.4)
        rows.append({"rlnMicrographName": str(folder / f"{item}.mrc"), "rlnOpticsGroup": 1, "crpItem": item})
    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, micrograph_pixel_size_A=1.4)
    frame = pd.DataFrame(rows, columns=["rlnMicrographName", "rlnOpticsGroup", "crpItem"])
    write_table(folder / "in.star", StarTable("micrographs", optics, frame))
    outputs = {"micrographs": folder / "out" / "ctf.star", "rejected": folder / "out" / "rejected.tsv"}
    log = logging.getLogger("test")
    context = Context(step="estimate_ctf_gctf", work_dir=folder / "work", max_failed_fraction=0.6, log=log)
    estimate_ctf_gctf.main({"micrographs": folder / "in.star"}, outputs, EstimateCtfGctf(), context)
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


def test_an_empty_batch_keeps_its_columns(tmp_path: Path) -> None:
    assert {"rlnDefocusU", "rlnCtfValidationScore"} <= set(run(tmp_path, {}).rows.columns)


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason=f"no real data at {REALDATA}")
def test_two_estimators_agree_on_real_micrographs() -> None:
    scope = Microscope(300.0, 0.001, 0.07)
    for name in ("May08_03_05_02", "May08_06_30_43"):
        image, _ = read_image(REALDATA / "empiar-10146" / f"{name}.mrc")
        first = estimate_ctf(image, 1.5, scope, EstimateCtfGctf())[0].defocus
        second = estimate_ctf_ctffind.estimate_ctf(image, 1.5, scope, EstimateCtfCtffind()).fit.defocus
        assert abs(first.mean_A - second.mean_A) < 150.0  # the card's limit
