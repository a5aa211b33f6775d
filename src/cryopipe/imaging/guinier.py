"""Guinier plot of a map: the B factor by which its amplitudes fall, fitted in the range in which it is defined.

ln⟨|F|⟩ against 1/d² is a straight line of slope -B/4 at resolutions finer than about 10 Å. At lower resolutions the
molecule's shape and the solvent dominate.

References
----------
Rosenthal & Henderson 2003, doi:10.1016/j.jmb.2003.07.013.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike

from cryopipe.errors import InputError
from cryopipe.imaging.filters import fsc_weight
from cryopipe.imaging.frequencies import shell_mean

# With fewer shells the line depends more on their noise than on the decay.
_FEWEST_SHELLS = 5


@dataclass(frozen=True)
class GuinierFit:
    """The plot (per fitted shell) and its straight line ``intercept + slope / d²``.

    Attributes
    ----------
    b_factor_A2 : float
        The map's B factor, -4 · slope. It is positive if amplitudes fall. ``apply_b_factor(map, pixel, -b_factor_A2)``
        sharpens the map.
    correlation : float
        Correlation of the fitted points. It is near -1 for a good line.
    """

    inverse_d2: np.ndarray
    log_amplitude: np.ndarray
    slope: float
    intercept: float
    correlation: float

    @property
    def b_factor_A2(self) -> float:
        """Return -4 · slope in Å²."""
        return -4.0 * self.slope


def fit_guinier(
    volume: np.ndarray,
    pixel_size_A: float,
    resolution_A: float,
    *,
    low_resolution_A: float = 10.0,
    fsc: ArrayLike | None = None,
    threads: int = 1,
) -> GuinierFit:
    """Fit the B factor of a map between ``low_resolution_A`` and its resolution.

    Parameters
    ----------
    volume : array ``[z, y, x]``
        The unsharpened map (better masked), or an image.
    pixel_size_A : float
        Å per voxel.
    resolution_A : float
        Resolution at which the map's FSC falls below 0.143.
    fsc : array ``[n // 2 + 1]``, optional
        FSC of the half maps. Amplitudes are multiplied by √(2 FSC / (1 + FSC)), the share that is signal.

    Raises
    ------
    InputError
        The resolution is not finer than ``low_resolution_A``, or fewer than five shells are between them. No line is
        fitted then.
    """
    shape = tuple(volume.shape)
    box = max(shape)
    spectrum = scipy.fft.rfftn(np.asarray(volume, dtype=np.float32), norm="ortho", workers=threads)
    mean = shell_mean(np.abs(spectrum), shape)
    if fsc is not None:
        mean = mean * fsc_weight(fsc)
    k = np.arange(len(mean)) / (box * pixel_size_A)
    use = (k >= 1.0 / low_resolution_A) & (k <= 1.0 / resolution_A) & (mean > 0.0)
    if use.sum() < _FEWEST_SHELLS:
        raise InputError(
            f"no B factor can be fitted between {low_resolution_A:g} and {resolution_A:g} Å ({int(use.sum())} shells). "
            "The fit needs a map finer than 10 Å. Give a B factor instead, or do not sharpen."
        )
    x, y = np.square(k[use]), np.log(mean[use])
    slope, intercept = np.polyfit(x, y, 1)
    return GuinierFit(x, y, float(slope), float(intercept), float(np.corrcoef(x, y)[0, 1]))
