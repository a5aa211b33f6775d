"""The score, candidate by candidate, in float64."""

from __future__ import annotations

import numpy as np


def ctf_score(
    amplitude, k2, cos2, sin2, candidates, *, wavelength_A, cs_mm, amplitude_contrast, phase_shift_deg=0.0, weights=None
):
    w = np.ones(len(k2)) if weights is None else weights.astype(np.float64)
    spectra = np.atleast_2d(amplitude).astype(np.float64)
    lists = candidates.reshape(len(spectra), -1, 3)
    shifts = np.broadcast_to(phase_shift_deg, candidates.shape[:-1]).reshape(lists.shape[:2])
    k2 = k2.astype(np.float64)
    out = np.zeros(lists.shape[:2])
    for b, m in np.ndindex(out.shape):
        u, v, angle = lists[b, m]
        twice = np.radians(2 * angle)
        defocus = (u + v) / 2 + (u - v) / 2 * (np.cos(twice) * cos2.astype(float) + np.sin(twice) * sin2.astype(float))
        chi = np.pi * wavelength_A * k2 * (defocus - 0.5 * wavelength_A**2 * k2 * cs_mm * 1e7)
        ctf = np.abs(np.sin(chi + np.radians(shifts[b, m]) + np.arcsin(amplitude_contrast)))
        size = np.sqrt((w * spectra[b] ** 2).sum() * (w * ctf**2).sum())
        out[b, m] = (w * spectra[b] * ctf).sum() / size if size > 0 else 0
    return out.reshape(candidates.shape[:-1])
