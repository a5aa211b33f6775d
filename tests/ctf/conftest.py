"""Simulated micrographs whose CTF, tilt and envelope are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cryopipe.ctf.defocus import Defocus
from cryopipe.imaging.optics import CtfParameters, ctf

#: Defoci of a tilted specimen are simulated in steps: 0.4 rad of phase at 4 Å, blended linearly.
_LEVEL_A = 100.0


def simulate_micrograph(
    truth: Defocus,
    *,
    side: int = 1536,
    pixel: float = 1.4,
    seed: int = 3,
    b_factor_A2: float = 100.0,
    noise: float = 1.5,
    tilt_deg: float = 0.0,
    axis_deg: float = 0.0,
    background: float = 0.0,
) -> np.ndarray:
    """Return a white object under a CTF (300 kV, Cs 2.7 mm, w 0.1) and envelope, plus white noise of relative sd ``noise``.

    ``background`` is the power, in units of the noise's, of further noise that falls with the frequency (1/e at 25 Å).
    The defocus grows on the side of ``axis_deg`` + 90° (from x towards y).
    """
    rng = np.random.default_rng(seed)
    kx, ky = np.meshgrid(np.fft.rfftfreq(side, pixel), np.fft.fftfreq(side, pixel))
    k2 = kx**2 + ky**2
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * np.exp(-b_factor_A2 * k2 / 4)
    place = (np.arange(side) - side // 2) * pixel
    axis = np.radians(axis_deg)
    height = np.tan(np.radians(tilt_deg)) * (place[:, None] * np.cos(axis) - place[None, :] * np.sin(axis))
    level = height / _LEVEL_A
    signal = np.zeros((side, side))
    shift = float(np.degrees(truth.phase_shift_rad))
    for n in range(int(np.floor(level.min())), int(np.ceil(level.max())) + 1):
        u, v = truth.u_A + n * _LEVEL_A, truth.v_A + n * _LEVEL_A
        transfer = ctf(kx, ky, CtfParameters(u, v, truth.angle_deg, 300.0, 2.7, 0.1, shift))
        signal += np.maximum(0.0, 1.0 - np.abs(level - n)) * np.fft.irfft2(spectrum * transfer, s=(side, side))
    grain = noise * rng.standard_normal((side, side))
    if background:
        grain = np.fft.irfft2(np.fft.rfft2(grain) * np.sqrt(1.0 + background * np.exp(-625.0 * k2)), s=(side, side))
    return (100 + 10 * (signal + grain)).astype(np.float32)


@pytest.fixture(scope="session")
def simulate() -> Callable[..., np.ndarray]:
    """Return the function that makes a micrograph, :func:`simulate_micrograph`."""
    return simulate_micrograph
