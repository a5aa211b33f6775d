"""The potential is the sum over atoms that its definition says, whatever the grid."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from cryopipe.errors import InputError
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.symmetry import symmetrise_volume
from cryopipe.simulation.atoms import AtomicModel, apoferritin
from cryopipe.simulation.potential import (
    FORM_FACTOR_TO_VOLT_A2,
    PotentialSampler,
    form_factor,
    ice_potential_V,
    interaction_parameter,
)
from cryopipe.simulation.spreading import transform_2d, transform_3d


@pytest.mark.parametrize("box", [32, 90])
def test_spread_points_have_the_transform_of_points(box: int) -> None:
    rng = np.random.default_rng(0)
    places, weights = rng.uniform(-box, 2 * box, (200, 2)), rng.normal(size=(200, 3)).astype(np.float32)
    kx, ky = np.arange(box // 2 + 1), np.fft.fftfreq(box, 1 / box)
    phase = np.exp(-2j * np.pi * (places[:, 0, None, None] * kx + places[:, 1, None, None] * ky[:, None]) / box)
    direct = np.einsum("nc,nyx->cyx", weights, phase)
    error = np.abs(transform_2d(places, weights, box) - direct).max()
    # the kernel's error, exp(-pi w sqrt(1 - 1/sigma)) = 1.3e-5 of the summed weights an axis (Barnett et al. 2019)
    assert error < 2 * 1.3e-5 * np.abs(weights).sum(0).max()


def test_spread_points_in_a_volume_have_the_transform_of_points() -> None:
    rng = np.random.default_rng(1)
    box = 24
    places, weights = rng.uniform(0, box, (50, 3)), rng.normal(size=50).astype(np.float32)
    k = np.fft.fftfreq(box, 1 / box)
    half = np.arange(box // 2 + 1)
    waves = [np.exp(-2j * np.pi * np.outer(places[:, i], q) / box) for i, q in ((2, k), (1, k), (0, half))]
    direct = np.einsum("n,nz,ny,nx->zyx", weights, *waves)
    assert np.abs(transform_3d(places, weights, box) - direct).max() < 3 * 1.3e-5 * np.abs(weights).sum()


@pytest.mark.parametrize(("pixel_size_A", "box"), [(2.0, 80), (1.0, 160)])
def test_a_projection_is_the_sum_over_atoms(pixel_size_A: float, box: int) -> None:
    model = apoferritin()
    rotation = random_rotations(np.random.default_rng(2), 1)[0]
    spectrum = PotentialSampler(model, pixel_size_A).projection(rotation, box)
    rng = np.random.default_rng(3)
    radius, angle = rng.uniform(0, box / 2 - 1, 100), rng.uniform(-np.pi / 2, np.pi / 2, 100)
    kx, ky = np.rint(radius * np.cos(angle)).astype(int), np.rint(radius * np.sin(angle)).astype(int)
    k = np.hypot(kx, ky) / (box * pixel_size_A)
    seen = model.positions_A @ rotation[:2].T
    direct = np.zeros(100, np.complex128)
    for element in np.unique(model.elements):
        mine = model.elements == element
        turns = (np.outer(kx, seen[mine, 0]) + np.outer(ky, seen[mine, 1])) / (box * pixel_size_A)
        fading = np.exp(-model.b_factors_A2[mine] * k[:, None] ** 2 / 4)
        direct += form_factor(str(element), k) * (np.exp(-2j * np.pi * turns) * fading).sum(1)
    direct *= FORM_FACTOR_TO_VOLT_A2 / pixel_size_A**2
    # measured 4e-4 and 2e-4 of the rms amplitude; the design asks for less than 1e-3
    assert np.abs(spectrum[ky, kx] - direct).max() < 1e-3 * np.sqrt((np.abs(direct) ** 2).mean())


def test_the_map_summed_along_z_is_the_projection_of_the_identity(sampler: PotentialSampler) -> None:
    volume = sampler.volume(100)
    projection = np.fft.fftshift(scipy.fft.irfft2(sampler.projection(np.eye(3), 100), s=(100, 100)))
    # both are float32 sums of the same terms
    np.testing.assert_allclose(volume.sum(0) * 2.0, projection, atol=1e-4 * projection.std())


def test_the_apoferritin_map_has_octahedral_symmetry_in_relions_setting(sampler: PotentialSampler) -> None:
    volume = sampler.volume(100)
    residual = np.abs(symmetrise_volume(volume, "O") - volume).max()
    # float32 sums over 32,592 atoms
    assert residual < 1e-3 * volume.std()
    assert np.abs(volume[::-1] - volume).max() > volume.std(), "the map must have a hand"


def test_protein_is_denser_than_ice_and_its_shell_has_the_known_size(sampler: PotentialSampler) -> None:
    volume = sampler.volume(100)
    z, y, x = np.indices(volume.shape) - 50
    radius = 2.0 * np.sqrt(z**2 + y**2 + x**2)
    shell, cavity = (radius > 42) & (radius < 58), radius < 34
    # mean inner potentials: ice 4.6 V with neutral atoms; protein above it by a few V (packing included)
    assert 1.0 < volume[shell].mean() < 4.0
    assert abs(volume[cavity].mean()) < 0.1
    assert sampler.model.diameter_A == pytest.approx(134.2, abs=0.5)  # farthest atoms of 6Z6U, 67.1 Å out


def test_constants_of_the_interaction_have_their_textbook_values() -> None:
    # Kirkland, Advanced Computing in Electron Microscopy, table of sigma in rad/(kV Å): 0.6526 at 300, 0.7288 at 200
    assert interaction_parameter(300.0) == pytest.approx(0.6526e-3, rel=1e-3)
    assert interaction_parameter(200.0) == pytest.approx(0.7288e-3, rel=1e-3)
    assert 4.3 < ice_potential_V() < 4.9


def test_an_element_without_a_known_volume_is_refused_with_its_name() -> None:
    model = AtomicModel(np.array(["U"]), np.zeros((1, 3)), np.full(1, 20.0), np.ones(1))
    with pytest.raises(InputError, match=r"element U: .* Remove these atoms"):
        PotentialSampler(model, 1.0)
