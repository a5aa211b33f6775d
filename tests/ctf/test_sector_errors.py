"""The stated error of a defocus: from the scatter of sectors, against fits whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.ctf.defocus import Defocus, Microscope, phase
from cryopipe.ctf.gctf.fit import refine
from cryopipe.ctf.gctf.points import Points
from cryopipe.ctf.sector_errors import MISSING, DefocusError, defocus_error, error_columns, influences, sector_of

SCOPE = Microscope(300.0, 2.7, 0.1)
TRUTH = Defocus(12000.0, 80.0, -50.0)
REPEATS = 24


def spectrum(rng: np.random.Generator, noise: float, background: float = 0.0) -> Points:
    """Return |CTF| of `TRUTH` on a polar grid between 30 and 4 Å, with noise and a background that no azimuth changes."""
    k, theta = (f.ravel() for f in np.meshgrid(np.linspace(1 / 30, 1 / 4, 80), np.pi * (np.arange(48) + 0.5) / 48))
    cos2, sin2 = np.cos(2 * theta), np.sin(2 * theta)
    chi = phase(k**2, TRUTH.mean_A + TRUTH.a_A * cos2 + TRUTH.b_A * sin2, SCOPE)
    values = np.abs(np.sin(chi)) + noise * rng.standard_normal(len(k)) + background * np.cos(150.0 * k)
    return Points(k**2, cos2, sin2, values, np.ones(len(k)))


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_stated_error_is_the_scatter_of_fits_about_the_truth(noise: float) -> None:
    off, stated = [], []
    for seed in range(REPEATS):
        points = spectrum(np.random.default_rng(seed), noise)
        d = refine(points, TRUTH, SCOPE, 0.0, 40.0)
        error = defocus_error(points.influences(d, SCOPE, 0.0, free=3), d)
        assert error is not None
        off.append([d.mean_A - TRUTH.mean_A, d.a_A - TRUTH.a_A, d.b_A - TRUTH.b_A])
        stated.append([error.mean_A, error.astigmatism_A, error.astigmatism_A])
    z = np.array(off) / np.array(stated)
    # rms of 24 normal values: 1 ± 0.14; of the 48 of the astigmatism: 1 ± 0.10
    assert np.sqrt((z[:, 0] ** 2).mean()) == pytest.approx(1.0, abs=0.35)
    assert np.sqrt((z[:, 1:] ** 2).mean()) == pytest.approx(1.0, abs=0.3)


def test_a_background_that_all_azimuths_share_is_a_bias_and_no_error() -> None:
    """The pulls of its rings cancel inside each sector. A scatter over rings instead of sectors would count them."""
    points = spectrum(np.random.default_rng(5), 0.05)
    rings = spectrum(np.random.default_rng(5), 0.05, background=0.5)
    stated, off = [], []
    for seen in (points, rings):
        d = refine(seen, TRUTH, SCOPE, 0.0, 40.0)
        error = defocus_error(seen.influences(d, SCOPE, 0.0, free=3), d)
        assert error is not None
        stated.append(error.mean_A)
        off.append(abs(d.mean_A - TRUTH.mean_A))
    assert off[1] > 3.0 * stated[0]  # the background does move the fit
    assert stated[1] < 3.5 * stated[0]  # the standard deviation of single points grew to 7 times


def test_u_and_v_have_the_errors_of_the_mean_and_of_the_astigmatism_along_their_axis() -> None:
    rng = np.random.default_rng(2)
    moves = rng.standard_normal((24, 3)) * [4.0, 2.0, 2.0]
    moves -= moves.mean(axis=0)
    covariance = moves.T @ moves * 24 / 21
    error = defocus_error(moves, Defocus(12000.0, 0.0, 100.0))  # U lies at 45°: b alone moves U against V
    assert error is not None
    assert error.u_A**2 == pytest.approx(covariance[0, 0] + 2 * covariance[0, 2] + covariance[2, 2])
    assert error.v_A**2 == pytest.approx(covariance[0, 0] - 2 * covariance[0, 2] + covariance[2, 2])
    assert error.angle_deg == pytest.approx(np.degrees(0.5 * error.astigmatism_A / 100.0))
    round_one = defocus_error(moves, Defocus(12000.0))
    assert round_one is not None
    assert round_one.angle_deg == pytest.approx(180 / np.sqrt(12))  # an angle that does not exist


def test_a_score_without_a_maximum_states_no_error() -> None:
    assert influences(np.ones((24, 3)), np.diag([1.0, 1.0, -1.0])) is None
    assert defocus_error(None, TRUTH) is None
    assert set(error_columns(None).values()) == {MISSING}
    values = error_columns(DefocusError(1.0, 2.0, 3.0, 4.0, 5.0))
    assert (values["crpCtfDefocusAngleError"], values["crpCtfDefocusMeanError"]) == (3.0, 4.0)


def test_sectors_are_counted_from_x_over_half_a_turn() -> None:
    theta = np.radians([0.1, 7.4, 7.6, 90.1, 179.9, 187.4])
    assert sector_of(np.cos(2 * theta), np.sin(2 * theta)).tolist() == [0, 0, 1, 12, 23, 0]
