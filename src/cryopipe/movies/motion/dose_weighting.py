"""Exposure filter: how much signal of each spatial frequency a frame still carries.

Grant & Grigorieff 2015, eLife 4:e06980, doi:10.7554/eLife.06980: the critical exposure, after which the signal at
frequency k (1/Å) has fallen to 1/e in power, is N_e(k) = 0.245 k^-1.665 + 2.81 e/Å² at 300 kV.
"""

from __future__ import annotations

import numpy as np

from cryopipe.errors import InputError

#: Grant & Grigorieff 2015, fitted to the fading of reconstructions of rotavirus at 300 kV: N_e(k) = A k^B + C.
_A, _B, _C = 0.245, -1.665, 2.81
#: Relative critical exposure at 100, 200 and 300 kV (unblur, cisTEM); linear in between, constant outside.
_VOLTAGES_KV, _FACTORS = (100.0, 200.0, 300.0), (0.532, 0.8, 1.0)


def critical_exposure_e_A2(k: np.ndarray, voltage_kV: float) -> np.ndarray:
    """Return the critical exposure (e/Å²) at frequencies ``k`` (1/Å); infinite at zero frequency."""
    frequency = np.asarray(k, dtype=np.float64)
    positive = frequency > 0
    values = _A * np.where(positive, frequency, 1.0) ** _B + _C
    return np.where(positive, values * np.interp(voltage_kV, _VOLTAGES_KV, _FACTORS), np.inf)


def frame_weight(k: np.ndarray, exposure_e_A2: float, voltage_kV: float) -> np.ndarray:
    """Return the amplitude weight exp(-N / 2 N_e(k)) of a frame whose exposure at its END is ``exposure_e_A2``.

    Raises
    ------
    InputError
        The exposure is negative.
    """
    if exposure_e_A2 < 0:
        raise InputError(
            f"an exposure of {exposure_e_A2} e/Å² is negative; check dose_per_frame_e_A2 and pre_exposure_e_A2."
        )
    return np.exp(-0.5 * exposure_e_A2 / critical_exposure_e_A2(k, voltage_kV))
