"""Class averages from the sums of an M-step: pseudo-half FRC, Wiener division, mask, centring.

Each class is summed in two halves of its members. Both halves are aligned to the same references, so their ring
correlation serves to regularise and is not a resolution for publication: noise that both were aligned to correlates, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from cryopipe.classes2d.rotation import grid_shells

#: Weights below this share of their ring's mean are raised to it (RELION's floor against division by nothing).
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
        The signal-to-noise ratio is multiplied by it.

    Returns
    -------
    grids, frc : complex64 ``[classes, 2R+1, 2R+1]`` and float64 ``[classes, shells]``
        Fourier grids of the averages; ring correlation of the two halves.
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
    # a fair share of the ring's mean keeps cells that hardly any image reaches from dominating the correlation
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
    """Return for each curve ``[classes, shells]`` the resolution in Å where it first falls below ``threshold``.

    Linear interpolation between shells; ``box_A`` where it is below from the first shell on.
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
