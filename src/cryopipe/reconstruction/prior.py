"""The prior of a reconstruction: signal-to-noise ratio or variance by shell, and what it adds to the weights."""

from __future__ import annotations

import numpy as np

from cryopipe.errors import InputError


def ssnr_from_fsc(fsc: np.ndarray, *, joint: bool = False) -> np.ndarray:
    """Return the spectral signal-to-noise ratio FSC/(1 - FSC) by shell, float64.

    Parameters
    ----------
    fsc : ndarray [shells]
        FSC between half maps. It is limited to 0.001..0.999.
    joint : bool
        For the map of both halves together: FSC' = √(2 FSC/(1 + FSC)) is used instead of FSC.
    """
    curve = np.clip(np.asarray(fsc, np.float64), 0.001, 0.999)
    if joint:
        curve = np.clip(np.sqrt(2 * curve / (1 + curve)), 0.001, 0.999)
    return curve / (1 - curve)


def tau2_from_ssnr(ssnr: np.ndarray, shell_weight: np.ndarray, padding: int) -> np.ndarray:
    """Return τ² = SSNR / (p³ mean weight) by shell, float64: the other form of the same prior."""
    return np.asarray(ssnr, np.float64) / (float(padding) ** 3 * np.maximum(shell_weight, 1e-30))


def regulariser(tau2: np.ndarray | None, ssnr: np.ndarray | None, mean_weight: np.ndarray, padding: int) -> np.ndarray:
    """Return the summand 1/(p³ τ²) of the weights of each shell, float64 [radius + 1]. It is zero without a prior.

    Parameters
    ----------
    tau2, ssnr : ndarray [radius + 1], optional
        One of the two: variance of the map's Fourier coefficients, or signal-to-noise ratio, by shell.
    mean_weight : ndarray [radius + 1]
        Mean weight of the voxels of each shell.
    padding : int
        Sampling of the cubes.

    Raises
    ------
    InputError
        Both priors are given, or one does not reach the radius or is negative.
    """
    shells = len(mean_weight)
    if tau2 is not None and ssnr is not None:
        raise InputError("give either tau2 or ssnr to a reconstruction, not both.")
    prior = tau2 if tau2 is not None else ssnr
    if prior is None:
        return np.zeros(shells)
    prior = np.asarray(prior, np.float64)[:shells]
    if len(prior) < shells or np.isnan(prior).any() or prior.min() < 0:
        raise InputError(
            f"the prior has {len(prior)} shells and the least value {prior.min()}. Give {shells} values, none negative."
        )
    numerator = mean_weight if ssnr is not None else np.full(shells, float(padding) ** -3)
    # A shell without prior variance is removed: 1e30 works like infinity and is finite in float32.
    return np.minimum(numerator / np.maximum(prior, 1e-30), 1e30)
