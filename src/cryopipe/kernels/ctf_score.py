"""Score of an amplitude spectrum against thousands of CTF candidates: the objective of CTFFIND4 [1]_.

    score = sum w A |CTF| / sqrt(sum w A^2  sum w CTF^2)        (not mean-subtracted)

over the listed pixels, with A the background-free amplitude and CTF = -sin(chi),

    chi = pi lambda k^2 (D(angle) - lambda^2 k^2 Cs / 2) + phase shift + asin(amplitude contrast),
    D(angle) = (U + V) / 2 + (U - V) / 2 cos(2 (angle - astigmatism angle)).

Phases are counted in half turns, the period of |sin|. What all candidates share (Cs, the middle defocus) is reduced to
one period in float64, the rest is float32: the error of |CTF| is about 1e-6 times the half turns between a candidate
and the middle.

References
----------
.. [1] A. Rohou, N. Grigorieff, CTFFIND4: fast and accurate defocus estimation from electron micrographs, J. Struct.
   Biol. 192 (2015) 216-221, doi:10.1016/j.jsb.2015.08.008.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels._dispatch import Array, backend_of, check, contiguous, library


def ctf_score(
    amplitude: Array,
    k2: Array,
    cos2: Array,
    sin2: Array,
    candidates: Array,
    *,
    wavelength_A: float,
    cs_mm: float,
    amplitude_contrast: float,
    phase_shift_deg: Array | float = 0.0,
    weights: Array | None = None,
) -> Array:
    """Return the score of each candidate.

    Parameters
    ----------
    amplitude : float32 [K] or [b, K]
        Background-free amplitude of the listed pixels, of one spectrum or of a batch with the same pixel list.
    k2 : float32 [K]
        Squared spatial frequency in 1/Å^2.
    cos2, sin2 : float32 [K]
        Cosine and sine of twice the pixel's angle, from x to y.
    candidates : float [m, 3] or [b, m, 3]
        Defocus U and V in Å (positive = underfocus) and the angle of the U axis from x in degrees.
    wavelength_A : float
        Electron wavelength in Å.
    cs_mm : float
        Spherical aberration in mm.
    amplitude_contrast : float
        Fraction in [0, 1).
    phase_shift_deg : float, or float [m] or [b, m]
        Additional phase shift (phase plate) in degrees.
    weights : float32 [K], optional
        Weight w >= 0 of each pixel; 1 where absent.

    Returns
    -------
    float64 [m] or [b, m]
        In [0, 1]; 0 for a spectrum without amplitude or a CTF without energy.

    Raises
    ------
    TypeError
        Wrong dtype, or NumPy and CuPy arrays mixed.
    ValueError
        Wrong shape, or amplitude contrast outside [0, 1).
    """
    shift: Array = None if isinstance(phase_shift_deg, float | int) else phase_shift_deg
    backend = backend_of(
        amplitude=amplitude, k2=k2, cos2=cos2, sin2=sin2, candidates=candidates, phase_shift_deg=shift, weights=weights
    )
    single = amplitude.ndim == 1
    check("amplitude", amplitude, np.float32, (None,) * (1 if single else 2))
    for name, array in (("k2", k2), ("cos2", cos2), ("sin2", sin2), ("weights", weights)):
        if array is not None:
            check(name, array, np.float32, (amplitude.shape[-1],))
    if not 0 <= amplitude_contrast < 1:
        raise ValueError(f"amplitude_contrast must lie in [0, 1), not {amplitude_contrast}.")
    wanted = (*amplitude.shape[:-1], candidates.shape[-2] if candidates.ndim > 1 else 0, 3)
    if tuple(candidates.shape) != wanted:
        raise ValueError(f"candidates must have shape {wanted}, not {tuple(candidates.shape)}.")
    if shift is not None and tuple(shift.shape) != wanted[:-1]:
        raise ValueError(f"phase_shift_deg must be a number or have shape {wanted[:-1]}, not {tuple(shift.shape)}.")
    xp = library(backend)
    rows = amplitude.reshape(-1, amplitude.shape[-1])
    lists = candidates.reshape(rows.shape[0], -1, 3)
    middle, base = _shared_phase(xp, k2, lists, wavelength_A, cs_mm, amplitude_contrast)
    turns = xp.zeros(lists.shape[:2]) + (phase_shift_deg if shift is None else shift.reshape(lists.shape[:2])) / 180.0
    own = _own_phase(xp, lists, middle, turns)
    weight = xp.ones_like(k2) if weights is None else weights
    norm = (rows.astype(xp.float64) ** 2 * weight).sum(axis=1)
    out = xp.zeros(own.shape[:2])
    if out.size and k2.size:
        _implementation(backend).ctf_score(
            contiguous(rows * weight, np.float32), contiguous(weight, np.float32), base,
            (wavelength_A * k2.astype(xp.float64)).astype(xp.float32), contiguous(cos2, np.float32),
            contiguous(sin2, np.float32), own, norm, out,
        )  # fmt: skip
    return out[0] if single else out


def _shared_phase(
    xp: Any, k2: Array, candidates: Array, wavelength_A: float, cs_mm: float, amplitude_contrast: float
) -> tuple[Array, Array]:
    """Return the middle defocus [b] and the phase all candidates share, float32 [b, K], in half turns within +-1/2."""
    mean = candidates[..., :2].astype(xp.float64).mean(axis=-1)
    middle = (mean.max(axis=1) + mean.min(axis=1)) / 2 if mean.size else xp.zeros(mean.shape[0])
    k2 = k2.astype(xp.float64)
    turns = wavelength_A * k2 * (middle[:, None] - 0.5 * wavelength_A**2 * (cs_mm * 1e7) * k2)
    turns += float(np.arcsin(amplitude_contrast)) / np.pi
    return middle, (turns - xp.rint(turns)).astype(xp.float32)


def _own_phase(xp: Any, candidates: Array, middle: Array, turns: Array) -> Array:
    """Return float32 [b, m, 4]: mean defocus off the middle, astigmatism as (a, b), phase shift in half turns."""
    u, v, angle = (candidates[..., i].astype(xp.float64) for i in range(3))
    half = (u - v) / 2
    twice = xp.deg2rad(2 * angle)
    parts = [(u + v) / 2 - middle[:, None], half * xp.cos(twice), half * xp.sin(twice), turns]
    return xp.ascontiguousarray(xp.stack(parts, axis=-1).astype(xp.float32))


def _implementation(backend: str) -> Any:
    if backend == "cuda":
        from cryopipe.kernels.cuda import ctf_score as cuda

        return cuda
    from cryopipe.kernels.cpu import ctf_score as cpu

    return cpu
