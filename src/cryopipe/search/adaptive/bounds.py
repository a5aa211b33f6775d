"""What a pruned search may throw away, and with which guarantee.

Let LL(s) be the log-likelihood of a state s (pose and shift) inside a radius, relative to noise alone, 0 the true pose
of an image (not on any grid), and the image the model's: X = C Y(0) + noise of variance σ². Three facts carry the
search; norms are over the pixels inside the radius, weighted by 1/σ²:

*Cells.* For the centre c of the cell that holds the true pose, D = C (Y(0) - Y(c)),
LL(0) - LL(c) = ½|D|² + ⟨noise, D⟩, a Gaussian of mean ½|D|² and variance |D|². `cell_losses` gives what it exceeds with
a stated probability, for a true pose anywhere in its cell.

*Competitors.* The likelihood ratio of any fixed state to the truth has expectation 1 over the noise, hence so has every
average E = Σ w exp(LL(s)) / exp(LL(0)) with Σ w = 1, and by Markov's inequality LL(0) >= log Σ w exp(LL(s)) - log(1/p)
with probability 1 - p. Together: the cell of the truth has LL(c) >= log evidence - log(1/p) - loss; states below are
pruned, and the truth's cell is among them with probability 2p at most, whatever the signal and however coarse the
resolution. No bound on higher frequencies is needed, since the statement is about the truth and not about the optimum.

*Higher frequencies* (branch and bound after Punjani 2017, doi:10.1038/nmeth.4169, with a bound on all states at once):
what the pixels beyond the radius can add is H(s) = ⟨X, C Y(s)⟩ - ½|C Y(s)|² <= ½ P + κ sqrt(P) for all of M states with
probability 1 - p, P the largest |C Y|² of any view there and κ the normal quantile of p / M. A state whose LL inside
the radius plus this bound does not reach the full log-likelihood of a state already known, less log(1/share), is no
significant state of the exhaustive search: `high_band_bound`.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from cryopipe.errors import InputError


def cell_losses(difference_power: np.ndarray, miss: float) -> np.ndarray:
    """Return what LL(truth) - LL(centre of its cell) exceeds with probability ``miss``, float64 ``[n]``.

    Parameters
    ----------
    difference_power : ndarray [n, j]
        |C (Y(pose) - Y(centre))|² / σ² summed over the pixels, of n images and j poses spread evenly over cells.
    miss : float
        Probability, 0 to 1.

    Raises
    ------
    InputError
        ``miss`` lies outside (0, 0.5).
    """
    if not 0 < miss < 0.5:
        raise InputError(f"probability {miss} of a miss: it must lie between 0 and 0.5")
    power = np.asarray(difference_power, np.float64)
    spread = np.sqrt(np.maximum(power, 1e-12))
    low = np.zeros(len(power))
    high = (0.5 * power - ndtri(miss) * spread).max(axis=1)
    for _ in range(40):
        middle = 0.5 * (low + high)
        above = ndtr((0.5 * power - middle[:, None]) / spread).mean(axis=1)
        low, high = np.where(above > miss, middle, low), np.where(above > miss, high, middle)
    return high


def high_band_bound(power: np.ndarray, n_states: float, miss: float) -> np.ndarray:
    """Return what pixels beyond a radius can add to the log-likelihood of any state: ½ P + κ sqrt(P), float64 ``[n]``.

    Parameters
    ----------
    power : ndarray [n]
        Largest |C Y|² / σ² of any view in those pixels.
    n_states : float
        Number of states that the statement is to hold for at once.
    miss : float
        Probability that it fails for one of them.
    """
    if not 0 < miss < 1 or n_states < 1:
        raise InputError(f"a bound for {n_states} states that fails with probability {miss}: 0 < probability < 1")
    quantile = -ndtri(miss / n_states)
    power = np.asarray(power, np.float64)
    return 0.5 * power + quantile * np.sqrt(power)
