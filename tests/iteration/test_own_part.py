"""What an image's own part in a reference adds to its likelihood is predicted; measured on noise, where there is nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.masks import soft_sphere
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.iteration.exchange import Shared, low_shells
from cryopipe.iteration.gold_standard import own_part_nats
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap, reference_cube
from cryopipe.reconstruction.reconstruct import Reconstruction

BOX, RADIUS = 32, 10


def half_map(images: ParticleSpectra, rotations: np.ndarray, symmetry: str) -> np.ndarray:
    sums = Reconstruction.empty(BOX, RADIUS, symmetry=symmetry, expected_slices=len(images))
    sums.insert(images, rotations, np.zeros((len(images), 2)), np.ones(RADIUS + 1))
    return sums.solve(ssnr=np.full(RADIUS + 1, 1e6))


@pytest.mark.parametrize(("symmetry", "count", "joined"), [("O", 30, 0), ("O", 60, 0), ("D2", 120, 0), ("O", 30, 7)])
def test_noise_prefers_the_pose_at_which_it_entered_the_map_by_the_predicted_amount(
    symmetry: str, count: int, joined: int
) -> None:
    rng = np.random.default_rng(1)
    pixels, operators = half_plane(BOX, RADIUS), len(symmetry_operators(symmetry))
    mask = soft_sphere(BOX, 9.0, edge_px=2.0)
    gains, predicted = [], 0.0
    for _ in range(1200 // count):
        noise = rng.normal(size=(2 * count, len(pixels), 2)).view(np.complex128)[..., 0].astype(np.complex64)
        images = ParticleSpectra(pixels, noise, np.ones(noise.shape, np.float32), BOX, 4.0, np.ones(len(noise), int))
        rotations = random_rotations(rng, 2 * count)
        own, other = (half_map(images.subset(i), rotations[i], symmetry) for i in (slice(count), slice(count, None)))
        if joined:  # shells up to it are the mean of both halves
            own = own + low_shells(0.5 * (other - own), joined)
        reference = ReferenceMap(reference_cube((own * mask).astype(np.float32), RADIUS))
        for poses, sign in ((rotations[:count], 1), (random_rotations(rng, count), -1)):
            gains.append(
                sign * np.real(np.sum(np.conj(noise[:count]) * reference.slices(poses, pixels), axis=1)).mean()
            )
        shared = Shared(np.ones(RADIUS + 1), float(RADIUS), own, joined, True)
        predicted = own_part_nats(shared, own * (mask > 0.5), operators=operators, particles=count)
    # the mask's edge and the interpolation; measured 0.88 to 1.01
    assert 2 * np.mean(gains) == pytest.approx(predicted, rel=0.25)
