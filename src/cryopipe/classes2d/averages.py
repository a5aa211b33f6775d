"""Class averages from the sums of an M-step: pseudo-half FRC, Wiener division, mask, centring.

Each class is summed in two halves of its particles. Both halves are aligned to the same references. So their ring
correlation is used for regularisation only. It is not a resolution for publication, because noise to which both were aligned
correlates, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from cryopipe.classes2d.rotation import grid_shells

#: Least weight as a share of the mean of its ring (as in RELION, against division by nearly zero).
WEIGHT_FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class ClassSums:
    """Sums of one half of the images on the padded grids ``[classes, 2R+1, 2R+1]``: Σ γ C X / σ² and Σ γ C² / σ²."""

    numerator: np.ndarray
    weight: np.ndarray


def solve_averages(halves: tuple[ClassSums, ClassSums], *, tau_fudge: float) -> tuple[np.ndarray, np.ndarray]:
    """Divide the sums with a Wiener filter made from the FRC of the halves.

    Parameters
    ----------
    halves : (ClassSums, ClassSums)
        The two halves of the images.
    tau_fudge : float
        Factor of the signal-to-noise ratio.

    Returns
    -------
    grids, frc : complex64 ``[classes, 2R+1, 2R+1]`` and float64 ``[classes, shells]``
        Fourier grids of the averages, and ring correlation of the two halves.
    """
    classes, edge, _ = halves[0].numerator.shape
    shells = grid_shells(edge // 2)
    n_shells = int(shells.max()) + 1
    flat = shells.ravel()
    count = np.bincount(flat, minlength=n_shells)
    grids = np.zeros((classes, edge, edge), dtype=np.complex64)
    curves = np.zeros((classes, n_shells))
    for c in range(classes):
        means = [_divide(h.numerator[c], h.weight[c], flat, count) for h in halves]
        curves[c] = _ring_correlation(means[0], means[1], flat, n_shells)
        numerator = halves[0].numerator[c] + halves[1].numerator[c]
        weight = halves[0].weight[c] + halves[1].weight[c]
        ring_mean = np.bincount(flat, weights=weight.ravel(), minlength=n_shells) / count
        joint = np.clip(curves[c], 1e-3, 0.999)
        joint = 2 * joint / (1 + joint)  # of the full set
        regular = ring_mean * (1 - joint) / (joint * tau_fudge)
        floor = np.maximum(WEIGHT_FLOOR * ring_mean, 1e-12)
        grids[c] = numerator / np.maximum(weight + regular[shells], floor[shells])
    return grids, curves


def _divide(numerator: np.ndarray, weight: np.ndarray, flat: np.ndarray, count: np.ndarray) -> np.ndarray:
    ring_mean = np.bincount(flat, weights=weight.ravel(), minlength=len(count)) / count
    # adding a share of the mean of the ring prevents that cells with hardly any image dominate the correlation
    floor = np.maximum(0.1 * ring_mean, 1e-12)[flat].reshape(weight.shape)
    return numerator / (weight + floor)


def _ring_correlation(one: np.ndarray, two: np.ndarray, flat: np.ndarray, n_shells: int) -> np.ndarray:
    def ring(values: np.ndarray) -> np.ndarray:
        return np.bincount(flat, weights=values.ravel(), minlength=n_shells)

    cross = ring((one * np.conj(two)).real)
    power = np.sqrt(ring(np.square(np.abs(one))) * ring(np.square(np.abs(two))))
    curve = np.where(power > 0, cross / np.maximum(power, 1e-30), 0.0)
    smooth = scipy.ndimage.uniform_filter1d(curve, 3, mode="nearest")
    smooth[:2] = curve[:2]
    return smooth


def resolution_of(frc: np.ndarray, box_A: float, *, threshold: float = 0.5) -> np.ndarray:
    """Return for each curve ``[classes, shells]`` the resolution in Å at which it first falls below ``threshold``.

    It is interpolated linearly between shells. It is ``box_A`` if the curve is below from the first shell on.
    """
    result = np.empty(len(frc))
    for c, curve in enumerate(frc):
        below = np.flatnonzero(curve[1:] < threshold)
        if below.size == 0:
            result[c] = box_A / (len(curve) - 1)
            continue
        s = int(below[0]) + 1
        before = curve[s - 1] if s > 1 else 1.0
        shell = s - 1 + (before - threshold) / max(before - curve[s], 1e-12)
        result[c] = box_A / max(shell, 1.0)
    return result
