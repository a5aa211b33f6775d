from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from cryopipe.imaging.fourier import frequency_grid
from cryopipe.imaging.optics import ctf
from cryopipe.picking.working_image import foreign_bodies, shot_noise_variance
from tests.picking.phantoms import OPTICS


def test_a_strong_particle_is_no_foreign_body():
    y, x = np.mgrid[:200, :200]
    image = (np.hypot(x - 100, y - 100) < 6).astype(np.float32) * 10
    image += np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
    assert not foreign_bodies(image, 12.0).any()
    image[:, :40] += 30
    assert foreign_bodies(image, 12.0)[:, :40].all()
    assert not foreign_bodies(image, 12.0)[:, 60:].any()


def test_the_shot_noise_is_read_off_between_the_rings():
    rng = np.random.default_rng(0)
    shape = (1024, 1024)
    kx, ky = frequency_grid(shape, 1.5)
    signal = scipy.fft.irfft2(
        scipy.fft.rfft2(rng.standard_normal(shape)) * 3 * ctf(kx, ky, OPTICS) * np.exp(-np.hypot(kx, ky) * 8), s=shape
    )
    image = (signal + rng.standard_normal(shape) * 2).astype(np.float32)
    # 10 %: the lower quartile of rings still has some signal
    assert shot_noise_variance(image, 1.5) == pytest.approx(4.0, rel=0.1)
