"""Checks of the kernels that shift and weigh spectra of images."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels.spectra import phases, weighting
from cryopipe.selftest.row import Check, Mover


def _pixels(radius: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ky, kx = (a.ravel().astype(np.int32) for a in np.mgrid[-radius : radius + 1, 0 : radius + 1])
    inside = kx**2 + ky**2 <= radius**2
    return kx[inside], ky[inside], np.rint(np.hypot(kx, ky)[inside]).astype(np.int32)


def _shifts_error(move: Mover) -> float:
    rng, (kx, ky, _) = np.random.default_rng(31), _pixels(20)
    values = rng.standard_normal((4, kx.size, 2)).astype(np.float32).view(np.complex64)[..., 0]
    turns = rng.uniform(-0.2, 0.2, (4, 2))
    expected = values * np.exp(-2j * np.pi * (turns[:, :1] * kx + turns[:, 1:] * ky))
    in_place = values.copy()
    phases.shift_spectra(in_place, turns, kx, ky, 20, out=in_place)
    found = np.stack([phases.shift_spectra(values, turns, kx, ky, 20), in_place])
    return float(np.abs(found - expected).max() / np.abs(values).max())


def _weights_error(move: Mover) -> float:
    """Compare with the formula, by shell and by pixel; an image with one NaN has to be noticed."""
    rng, (kx, ky, shell) = np.random.default_rng(32), _pixels(20)
    values = rng.standard_normal((5, kx.size, 2)).astype(np.float32).view(np.complex64)[..., 0]
    ctf, factor = rng.uniform(-1, 1, (5, kx.size)).astype(np.float32), rng.random((3, 21)).astype(np.float32)
    rows, order, turns = np.array([4, 0, 2]), rng.permutation(kx.size), rng.uniform(-0.2, 0.2, (3, 2))
    by_pixel = rng.random((3, kx.size)).astype(np.float32)
    moved = values[rows] * np.exp(-2j * np.pi * (turns[:, :1] * kx + turns[:, 1:] * ky))
    errors = []
    for extra in (None, by_pixel):
        weight = ctf[rows] * factor[:, shell] * (1.0 if extra is None else extra)
        found = weighting.weigh(
            values, ctf, rows, turns=turns, by_shell=factor, by_pixel=extra, pixels=(kx, ky, shell), order=order
        )
        errors.append(np.abs(found[0] - (moved * weight)[:, order]).max() / np.abs(values).max())
        errors.append(np.abs(found[1] - (weight * ctf[rows])[:, order]).max())
    broken = values.copy()
    broken[0, 7] = np.nan
    finite = weighting.weigh(
        broken, ctf, rows, turns=turns, by_shell=factor, by_pixel=None, pixels=(kx, ky, shell), order=order
    )[2]
    errors.append(float(finite.tolist() != [True, False, True]))
    return float(max(errors))


CHECKS = (
    Check("spectra.phases", "shifts", _shifts_error, 1e-5, on_gpu=False),
    Check("spectra.weighting", "values and weights", _weights_error, 1e-5, on_gpu=False),
)
