"""The three CTF estimators on the same micrographs: against the truth where it is simulated, against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from cryopipe.config.ctf import EstimateCtfCtffind, EstimateCtfGctf, EstimateCtfXmipp
from cryopipe.ctf import estimate_ctf_ctffind, estimate_ctf_gctf
from cryopipe.ctf.defocus import Defocus, Microscope, from_uv
from cryopipe.ctf.xmipp import estimate as spectrum_estimate
from cryopipe.io.mrc import read_image

ESTIMATORS = ("ctffind", "gctf", "xmipp")
SCOPE = Microscope(300.0, 2.7, 0.1)
REALDATA = Path(__file__).resolve().parents[3] / "shared" / "realdata"
B_FACTORS_A2 = (50.0, 200.0, 450.0)
EMPIAR = ("May08_03_05_02", "May08_05_31_00", "May08_07_30_46")


def estimate(
    estimator: str, image: np.ndarray, pixel_A: float, scope: Microscope, phase_shift: bool = False
) -> tuple[Defocus, float]:
    """Return defocus and fit resolution, each estimator with its defaults and from nothing."""
    if estimator == "ctffind":
        found = estimate_ctf_ctffind.ctf_by_amplitudes(
            image, pixel_A, scope, EstimateCtfCtffind(find_phase_shift=phase_shift)
        )
        return found.fit.defocus, found.resolution_A
    if estimator == "gctf":
        params = EstimateCtfGctf(find_phase_shift=phase_shift)
        fit, _ = estimate_ctf_gctf.ctf_by_log_amplitudes(image, pixel_A, scope, params)
        return fit.defocus, fit.resolution_A
    spectrum = spectrum_estimate.ctf_by_power_spectrum(
        image, pixel_A, scope, EstimateCtfXmipp(find_phase_shift=phase_shift)
    )
    return spectrum.fit.defocus, spectrum.resolution_A


@dataclass(frozen=True)
class Case:
    """A simulated micrograph: its truth and what every estimator says."""

    truth: Defocus
    found: dict[str, Defocus]


@pytest.fixture(scope="module")
def cases(simulate: Callable[..., np.ndarray]) -> list[Case]:
    result = []
    with threadpool_limits(1):
        for seed in range(9):
            rng = np.random.default_rng(500 + seed)
            v, astigmatism = rng.uniform(6000, 24000), rng.uniform(0, 700)
            truth = from_uv(v + astigmatism, v, rng.uniform(-90, 90))
            image = simulate(truth, seed=seed, b_factor_A2=(60.0, 120.0, 180.0)[seed % 3])
            result.append(Case(truth, {e: estimate(e, image, 1.4, SCOPE)[0] for e in ESTIMATORS}))
    return result


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_defocus_and_astigmatism_are_within_the_methods_limits(estimator: str, cases: list[Case]) -> None:
    mean = [abs(c.found[estimator].mean_A - c.truth.mean_A) for c in cases]
    tensor = [
        np.hypot(c.found[estimator].a_A - c.truth.a_A, c.found[estimator].b_A - c.truth.b_A) for c in cases
    ]  # half of U - V along each of the two axes of the tensor
    assert np.median(mean) <= 60.0
    assert np.percentile(mean, 95) <= 200.0
    assert np.median(tensor) <= 60.0


@pytest.mark.parametrize(("one", "other"), [("ctffind", "gctf"), ("ctffind", "xmipp"), ("gctf", "xmipp")])
def test_two_estimators_differ_by_less_than_the_allowed_median(one: str, other: str, cases: list[Case]) -> None:
    assert np.median([abs(c.found[one].mean_A - c.found[other].mean_A) for c in cases]) <= 60.0


@pytest.fixture(scope="module")
def damped(simulate: Callable[..., np.ndarray]) -> list[np.ndarray]:
    return [simulate(from_uv(14000.0, 13800.0, 20.0), seed=3, b_factor_A2=b) for b in B_FACTORS_A2]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_fit_resolution_follows_the_envelope(estimator: str, damped: list[np.ndarray]) -> None:
    with threadpool_limits(1):
        reached = [estimate(estimator, image, 1.4, SCOPE)[1] for image in damped]
    assert reached[0] < reached[1] < reached[2]


@pytest.mark.parametrize("estimator", ["ctffind", "gctf"])
def test_a_fit_that_follows_the_rings_is_nearer_to_the_truth_and_says_so(
    estimator: str, simulate: Callable[..., np.ndarray]
) -> None:
    """Of three micrographs with rings to 3 Å; at 6 Å the phase depends on the defocus a quarter as much as at 3 Å."""
    off: dict[float | None, list[float]] = {None: [], 6.0: []}
    stated: dict[float | None, list[float]] = {None: [], 6.0: []}
    with threadpool_limits(1):
        for seed in range(3):
            truth = from_uv(11000.0 + 900.0 * seed, 10900.0 + 900.0 * seed, 30.0)
            image = simulate(truth, side=1024, seed=seed, b_factor_A2=20.0, noise=2.0)
            for limit in off:
                if estimator == "ctffind":
                    found = estimate_ctf_ctffind.ctf_by_amplitudes(
                        image, 1.4, SCOPE, EstimateCtfCtffind(max_resolution_A=limit)
                    )
                    defocus, error = found.fit.defocus, found.error
                else:
                    fit, _ = estimate_ctf_gctf.ctf_by_log_amplitudes(
                        image, 1.4, SCOPE, EstimateCtfGctf(max_resolution_A=limit)
                    )
                    defocus, error = fit.defocus, fit.error
                assert error is not None
                off[limit].append(defocus.mean_A - truth.mean_A)
                stated[limit].append(error.mean_A)
    assert np.mean(stated[None]) < 0.6 * np.mean(stated[6.0])
    for limit, errors in off.items():
        assert np.sqrt(np.mean(np.square(errors))) < 2.5 * np.mean(stated[limit])  # 3 normal values: 1 in 1000 is more


@pytest.fixture(scope="module")
def phase_plate(simulate: Callable[..., np.ndarray]) -> tuple[Defocus, np.ndarray]:
    truth = from_uv(11000.0, 10700.0, 35.0, 70.0)
    return truth, simulate(truth, side=1800, seed=11)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_phase_shift_of_a_phase_plate_is_found_with_the_defocus(
    estimator: str, phase_plate: tuple[Defocus, np.ndarray]
) -> None:
    truth, image = phase_plate
    with threadpool_limits(1):
        d, _ = estimate(estimator, image, 1.4, SCOPE, phase_shift=True)
    assert np.degrees(d.phase_shift_rad) % 180.0 == pytest.approx(70.0, abs=5.0)  # the method's limits
    assert abs(d.mean_A - truth.mean_A) < 150.0


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason=f"no real data at {REALDATA}")
@pytest.mark.parametrize("name", ["micrographs/fei-extended", *(f"empiar-10146/{name}" for name in EMPIAR)])
def test_the_estimators_agree_on_real_micrographs(name: str) -> None:
    image, _ = read_image(REALDATA / f"{name}.mrc")
    krios = name.startswith("micrographs")
    scope, pixel_A = (SCOPE, 0.85378) if krios else (Microscope(300.0, 0.001, 0.07), 1.5)
    with threadpool_limits(1):
        means = {e: estimate(e, image, pixel_A, scope)[0].mean_A for e in ESTIMATORS}
    low, high = (4000, 14000) if krios else (14000, 27000)  # about 0.8 and 1.6-2.5 µm are stated
    assert all(low < mean < high for mean in means.values()), means
    assert max(means.values()) - min(means.values()) < 150.0, means
