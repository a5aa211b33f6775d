"""Particles of micrographs: each level has a spread of its own."""

from __future__ import annotations

import numpy as np

from cryopipe.iteration.priors.evidence import Evidence
from cryopipe.iteration.priors.levels import learn_levels

REACH = 2000.0
A_MICROGRAPH = 25


def particles(
    rng: np.random.Generator, *, micrographs: int, between: float, within: float, error: float
) -> tuple[Evidence, np.ndarray, np.ndarray]:
    """Return evidence, true values and micrographs of particles."""
    number = np.repeat(np.arange(micrographs), A_MICROGRAPH)
    truth = rng.normal(0, between, micrographs)[number] + rng.normal(0, within, len(number))
    estimate = truth[:, None] + error * rng.normal(size=(len(number), 2))
    return Evidence(estimate, np.full((len(number), 2), error**-2.0), REACH), truth, number


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def test_both_spreads_are_found_and_errors_are_calibrated() -> None:
    evidence, truth, number = particles(np.random.default_rng(0), micrographs=40, between=120, within=60, error=80)
    found = learn_levels(evidence, number)
    means = truth.reshape(40, -1).mean(axis=1)
    assert 0.8 * rms(means) < found.micrographs.width < 1.25 * rms(means)
    assert 45 < found.particles.width < 80
    # the mean of a micrograph is told to 60 / 5 and 80 / 7 Å, a particle about it to 41 Å
    assert rms(found.value - truth) < 50
    assert 0.85 < rms((found.value - truth) / found.error) < 1.15


def test_particles_tell_their_micrographs_mean_together_where_none_tells_its_own() -> None:
    evidence, truth, number = particles(np.random.default_rng(1), micrographs=40, between=100, within=10, error=300)
    found = learn_levels(evidence, number)
    assert found.particles.width == 0
    assert 60 < found.micrographs.width < 160
    assert len(np.unique(found.value)) == 40
    # a mean is told to 300 / 7 Å; one particle alone would be told to 210 Å
    assert rms(found.value - truth) < 0.6 * rms(truth)
    assert 0.8 < rms((found.value - truth) / found.error) < 1.25


def test_without_micrographs_particles_spread_about_zero() -> None:
    evidence, truth, _ = particles(np.random.default_rng(2), micrographs=20, between=0, within=100, error=60)
    found = learn_levels(evidence, None)
    assert found.micrographs.width == 0
    assert 80 < found.particles.width < 125
    assert rms(found.value - truth) < 45


def test_nothing_moves_where_neither_level_has_a_spread() -> None:
    for seed in range(8):
        evidence, _, number = particles(np.random.default_rng(seed), micrographs=12, between=0, within=0, error=60)
        found = learn_levels(evidence, number)
        assert found.micrographs.width == found.particles.width == 0
        np.testing.assert_array_equal(found.value, 0)


def test_a_known_width_is_that_of_the_particles_about_zero() -> None:
    evidence, truth, number = particles(np.random.default_rng(3), micrographs=10, between=0, within=70, error=60)
    held, learned = learn_levels(evidence, number, width=70.0), learn_levels(evidence, number)
    assert (held.particles.width, held.micrographs.width) == (70.0, 0.0)
    assert abs(rms(held.value - truth) - rms(learned.value - truth)) < 4
    assert 0.85 < rms((held.value - truth) / held.error) < 1.15
