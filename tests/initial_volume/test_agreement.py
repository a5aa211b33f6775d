"""Maps of one particle in any frame and hand agree, and maps that share nothing but their radial profile do not."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.imaging.fourier import irfftn_centred, rfftn_centred
from cryopipe.imaging.fsc import fourier_shell_correlation
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.imaging.transform import invert_hand, rotate_volume
from cryopipe.initial_volume.agreement import agreement, without_profile
from cryopipe.initial_volume.contest import AGREEMENT
from cryopipe.simulation.particle_images import density, random_shell

BOX, PIXEL_A = 28, 8.0


def shell(seed: int, symmetry: str) -> np.ndarray:
    """Return a hollow particle of 125 Å whose radial profile does not depend on the seed in the mean."""
    rng = np.random.default_rng(seed)
    operators = symmetry_operators(symmetry)
    unit = random_shell(rng, blobs=480 // len(operators), outer_radius_A=60, inner_radius_A=38, sigma_A=(7.0, 8.0))
    return density(unit.copies(operators), box=BOX, pixel_size_A=PIXEL_A)


def noisy(volume: np.ndarray, seed: int) -> np.ndarray:
    """Return a map with smooth noise of the spectrum of its anisotropic part, at a sixteenth of its power."""
    noise = np.random.default_rng(seed).normal(size=volume.shape)
    own = without_profile(volume)
    spectrum = np.abs(rfftn_centred(own)) * rfftn_centred(noise) / np.sqrt(noise.size)
    smooth = irfftn_centred(spectrum, BOX)
    return (volume + 0.25 * smooth * own.std() / smooth.std()).astype(np.float32)


@pytest.mark.parametrize("symmetry", ["O", "D2", "C1"])
def test_one_particle_in_another_frame_and_hand_agrees_and_another_particle_does_not(symmetry: str) -> None:
    first, other = shell(1, symmetry), shell(2, symmetry)
    # the frames that a map of the group can have: of O one, of D2 any order of its axes
    turn = {"O": np.eye(3), "D2": np.eye(3)[[1, 2, 0]], "C1": random_rotations(np.random.default_rng(0), 1)[0]}[
        symmetry
    ]
    second = invert_hand(rotate_volume(first, turn)) if symmetry != "O" else invert_hand(first)
    settings = {"pixel_size_A": PIXEL_A, "resolution_A": 28.0, "symmetry": symmetry}
    assert agreement(noisy(first, 3), noisy(second, 4), **settings) > AGREEMENT
    assert agreement(noisy(other, 5), noisy(second, 6), **settings) < 0.5
    # with their profile they would: the coarse shells are all profile
    assert fourier_shell_correlation(first, other)[1:4].min() > 0.9


def test_a_spherical_map_has_nothing_left_without_its_profile() -> None:
    axis = np.arange(BOX) - BOX // 2
    radius = np.sqrt(sum(np.square(a) for a in np.meshgrid(axis, axis, axis)))
    ball = np.exp(-((radius / 7) ** 2)).astype(np.float32)
    assert without_profile(ball).std() < 0.1 * ball.std()
