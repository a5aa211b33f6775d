"""Temperatures, which flatten posteriors so that early iterations do not decide too soon."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from cryopipe.errors import InputError


def effective_states(
    log_likelihood: np.ndarray, inverse_temperature: float, log_prior: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return exp(entropy) of the posterior of each image, float64 ``[n]``.

    Parameters
    ----------
    log_likelihood : ndarray [n, ...]
        Log-likelihoods of all states (`cryopipe.search.exhaustive.search.log_likelihoods`).
    inverse_temperature : float
        Factor of the log-likelihood.
    log_prior : array broadcastable to ``log_likelihood``
    """
    value = inverse_temperature * np.asarray(log_likelihood, np.float64) + log_prior
    value = value.reshape(len(value), -1)
    value = value - logsumexp(value, axis=1, keepdims=True)
    return np.exp(-(np.exp(value) * np.maximum(value, -745.0)).sum(axis=1))


def temperature_for_spread(
    log_likelihood: np.ndarray, fraction: float, *, log_prior: np.ndarray | float = 0.0, tolerance: float = 1e-3
) -> float:
    """Return the largest inverse temperature, at most 1, at which posteriors spread over a share of the states.

    Parameters
    ----------
    log_likelihood : ndarray [n, ...]
        A sample of images (tens suffice).
    fraction : float
        Least mean over images of the effective number of states, divided by the number of states (0 < fraction < 1).
    log_prior : array broadcastable to ``log_likelihood``
    tolerance : float
        Relative precision of the result.

    Raises
    ------
    InputError
        ``fraction`` is outside (0, 1), or there is no image.
    """
    if not 0 < fraction < 1 or len(log_likelihood) == 0:
        raise InputError(
            f"a spread over {fraction} of the states of {len(log_likelihood)} images is not possible. Give 0 < fraction < 1 "
            "and at least one image."
        )
    wanted = fraction * np.prod(np.shape(log_likelihood)[1:])

    def spread(inverse_temperature: float) -> float:
        return float(effective_states(log_likelihood, inverse_temperature, log_prior).mean())

    if spread(1.0) >= wanted:
        return 1.0
    low, high = 1e-9, 1.0
    while high > low * (1 + tolerance):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if spread(middle) >= wanted else (low, middle)
    return float(low)
