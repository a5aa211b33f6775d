"""Matched filter with the projection of a hollow (or solid) ball under the CTF of the micrograph. It needs no template.

The Fourier transform of a ball is known, and so is the CTF. Since shot noise is white, their product is the matched filter. On
uneven ice it finds particles that the Laplacian of Gaussian confuses with ice, because only a particle has the rings of the
CTF. Division by the power spectrum of the micrograph would be wrong: in a crowded micrograph most of that power comes from
the particles (measured on EMPIAR-10146: F1 falls from 0.97 to 0.87). Known limit: particles with a shape far from a ball.
"""

from __future__ import annotations

import numpy as np
import scipy.fft

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import frequency_grid
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.imaging.statistics import robust_sd
from cryopipe.picking.blobs import Response, padded_by_reflection, transfer_norm


def ball_transform(frequency: np.ndarray, radius_A: float) -> np.ndarray:
    """Return the Fourier transform of a ball of unit density, in Å³, at frequencies in 1/Å (float64)."""
    x = 2.0 * np.pi * radius_A * np.asarray(frequency, dtype=np.float64)
    # below x = 0.1 the closed form suffers from cancellation; its series is exact to 1e-7 there
    small = x < 0.1
    safe = np.where(small, 1.0, x)
    shape = np.where(small, 1.0 / 3.0 - x**2 / 30.0, (np.sin(safe) - safe * np.cos(safe)) / safe**3)
    return 4.0 * np.pi * radius_A**3 * shape


def shell_response(
    image: np.ndarray,
    pixel_size_A: float,
    *,
    outer_diameter_A: float,
    inner_diameter_A: float,
    optics: CtfParameters,
    white_noise_sd: float = 0.0,
    usable: np.ndarray | None = None,
    threads: int = 1,
) -> Response:
    """Filter an image with the template of a shell. The merit is in standard deviations (by median absolute deviation).

    Parameters
    ----------
    image : float32 ``[y, x]``
        Image with bright particles and mean 0.
    outer_diameter_A, inner_diameter_A : float
        Diameters of the particle and its cavity (0 for a solid particle).
    optics : CtfParameters
        CTF of the micrograph.
    white_noise_sd : float
        Standard deviation of the white noise in ``image``.
    usable : bool ``[y, x]``, optional
        Pixels from which statistics are taken. Nothing is found elsewhere.
    """
    if not 0 <= inner_diameter_A < outer_diameter_A:
        raise InputError(
            f"inner_diameter_A {inner_diameter_A:g} must be between 0 and the particle's diameter {outer_diameter_A:g}."
        )
    padded, crop = padded_by_reflection(image, round(outer_diameter_A / pixel_size_A))
    spectrum = scipy.fft.rfft2(padded, workers=threads)
    kx, ky = frequency_grid(padded.shape, pixel_size_A)
    frequency = np.hypot(kx, ky)
    template = ball_transform(frequency, outer_diameter_A / 2) - ball_transform(frequency, inner_diameter_A / 2)
    template *= ctf(kx, ky, optics)
    template[0, 0] = 0.0
    answer = scipy.fft.irfft2(spectrum * template, s=padded.shape, workers=threads)[crop].astype(np.float32)
    valid = np.ones(image.shape, dtype=bool) if usable is None else usable
    answer -= np.median(answer[valid])
    spread = robust_sd(answer[valid], 0.0)
    noise = white_noise_sd * transfer_norm(template, padded.shape) / spread
    full = np.full(image.shape, noise, dtype=np.float32)
    return Response(answer / np.float32(spread), full, valid)
