"""CTFs with a changing defocus: the phase in Fourier pixels, and the factor of its sine.

The model of an image is ``C = factor sin(chi)``. For plain images the factor is the envelope. A phase-flipped image is
``X' = sign(C_old) X``, where ``C_old`` is the CTF with which it was flipped. Its model at a new defocus is therefore
``sign(C_old) C_new`` with the derivative ``sign(C_old) dC_new``, and not ``|C_new|``. Between an old and a new zero these
two differ in sign, and the image has its information on the true position of the zeros there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.imaging.optics import (
    CtfParameters,
    ctf_stack,
    electron_wavelength_A,
    normalise_defocus,
    phase_coefficients,
)
from cryopipe.projection.particle_spectra import ParticleSpectra

#: largest relative rms deviation of an image's CTF from its parameters. That of ctf_stack in float32 is 1e-6
_SAME = 1e-3


def phase_terms(parameters: CtfParameters, *, box: int, pixel_size_A: float) -> tuple[np.ndarray, np.ndarray]:
    """Return chi's coefficients float64 [n, 5] over Fourier pixels (see `cryopipe.kernels.poses`), and per_A [n].

    ``per_A`` = pi lambda / (box pixel size)^2 is the change of chi per Å of defocus and squared Fourier pixel.
    """
    per_pixel = 1 / (box * pixel_size_A)
    terms = np.array(phase_coefficients(parameters), np.float64).reshape(-1, 5)
    terms[:, 1:4] *= per_pixel**2
    terms[:, 4] *= per_pixel**4
    wavelength = np.broadcast_to(electron_wavelength_A(parameters.voltage_kV), (len(terms),))
    return terms, np.pi * wavelength * per_pixel**2


def ctf_factor(images: ParticleSpectra, parameters: CtfParameters) -> Any:
    """Return the factor of the sine in the images' CTFs, float32 [n, K]: envelope, scale, and the signs of a flip.

    The CTF of a phase-flipped image is an absolute value, which shows that the image is phase-flipped.

    Raises
    ------
    InputError
        A defocus is zero. The number of parameters and images differs. The CTFs are neither those of the parameters nor
        their absolute values.
    """
    scale, sign = _compare(images, parameters)
    n, xp = len(images), array_module(images.ctf)
    scale = scale * xp.asarray(np.broadcast_to(np.asarray(parameters.scale, np.float32), (n,))[:, None])
    damping = np.broadcast_to(np.asarray(parameters.b_factor_A2, np.float64), (n,))
    if damping.any():
        kx, ky = images.pixels.kx.astype(np.float64), images.pixels.ky.astype(np.float64)
        k2 = (kx**2 + ky**2) / (images.box * images.pixel_size_A) ** 2
        sign = sign * xp.asarray(np.exp(-0.25 * damping[:, None] * k2).astype(np.float32))
    return xp.ascontiguousarray(scale * sign, dtype=np.float32)


def with_defocus_change(images: ParticleSpectra, parameters: CtfParameters, change_A: np.ndarray) -> ParticleSpectra:
    """Return the images with the CTFs of a changed defocus. Those of phase-flipped images keep the signs of the flip.

    Parameters
    ----------
    images : ParticleSpectra
        Images whose CTFs are those of ``parameters`` (or their absolute values, if phase-flipped), up to a scale.
    parameters : CtfParameters
        One row for each image.
    change_A : ndarray [n] or [n, 3]
        In Å. Change of the mean defocus, and of the astigmatism's tensor (see `changed_parameters`).

    Raises
    ------
    InputError
        As for `ctf_factor`.
    """
    if not np.any(change_A):
        return images
    scale, sign = _compare(images, parameters)
    return replace(images, ctf=_ctf(images, changed_parameters(parameters, change_A)) * scale * sign)


def changed_parameters(parameters: CtfParameters, change_A: np.ndarray) -> CtfParameters:
    """Return the CTFs after a change in Å of mean defocus [n] or of (mean, (U-V)/2 cos 2a, (U-V)/2 sin 2a) [n, 3]."""
    change = np.asarray(change_A, np.float64)
    if change.ndim == 1:
        return parameters.with_defocus_offset(change)
    u, v = (np.asarray(d, np.float64) for d in (parameters.defocus_u_A, parameters.defocus_v_A))
    angle = 2 * np.deg2rad(np.asarray(parameters.defocus_angle_deg, np.float64))
    along = (u - v) / 2 * np.cos(angle) + change[:, 1]
    across = (u - v) / 2 * np.sin(angle) + change[:, 2]
    mean, half = (u + v) / 2 + change[:, 0], np.hypot(along, across)
    turned = np.rad2deg(np.arctan2(across, along)) / 2
    new_u, new_v, new_angle = normalise_defocus(mean + half, mean - half, turned)
    return replace(parameters, defocus_u_A=new_u, defocus_v_A=new_v, defocus_angle_deg=new_angle)


def _ctf(images: ParticleSpectra, parameters: CtfParameters) -> Any:
    xp, pixels = array_module(images.ctf), images.pixels
    per_pixel = 1 / (images.box * images.pixel_size_A)
    return ctf_stack(xp.asarray(pixels.kx) * per_pixel, xp.asarray(pixels.ky) * per_pixel, parameters)


def _compare(images: ParticleSpectra, parameters: CtfParameters) -> tuple[Any, Any]:
    """Return the scale [n, 1] and the signs [n, K] that turn the parameters' CTFs into the images'."""
    n = len(images)
    if parameters.count != n:
        raise InputError(f"{n} images have CTF parameters of {parameters.count}. Give one row for each image.")
    defocus = np.broadcast_to(np.add(parameters.defocus_u_A, parameters.defocus_v_A), (n,))
    if np.any(defocus == 0):
        bad = int(np.flatnonzero(defocus == 0)[0])
        raise InputError(f"image {bad + 1} has defocus 0 Å. Estimate its CTF before its defocus is refined.")
    xp, given, signed = array_module(images.ctf), images.ctf, _ctf(images, parameters)
    power = xp.maximum((signed * signed).sum(axis=1, keepdims=True), 1e-30)
    product = given * signed
    flat, tilted = (p.sum(axis=1, keepdims=True) / power for p in (product, abs(product)))
    misfit = xp.sqrt(((given - flat * signed) ** 2).sum(axis=1, keepdims=True) / power) / xp.maximum(abs(flat), 1e-30)
    rest = given - tilted * abs(signed)
    misfit_flipped = xp.sqrt((rest**2).sum(axis=1, keepdims=True) / power) / xp.maximum(abs(tilted), 1e-30)
    flipped = misfit_flipped < misfit
    worst = float(xp.minimum(misfit, misfit_flipped).max())
    if not worst < _SAME:
        bad = int(xp.minimum(misfit, misfit_flipped).argmax())
        raise InputError(
            f"the CTF of image {bad + 1} deviates by {worst:.1%} from that of its parameters. Give the parameters with "
            f"which the images were loaded, and check the pixel size ({images.pixel_size_A:g} Å)."
        )
    one = xp.float32(1)
    return xp.where(flipped, tilted, flat), xp.where(flipped & (signed < 0), -one, one)
