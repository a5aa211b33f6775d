"""Smooth motion from noisy shifts. The shifts themselves decide, by their evidence, how smooth it is.

A track is an integrated random walk: its second differences are independent and normal. The spline coefficients of a
field have normal second differences along each axis. The variance of these is the only unknown of the prior. It gets
the value that makes the measured shifts most probable (their evidence; MacKay 1992, Neural Comput. 4:415,
doi:10.1162/neco.1992.4.3.415). So motion that is clear above the noise is followed closely, and faint motion little.
"""

from __future__ import annotations

import numpy as np

#: Precisions of the second differences that are tried, 1/px²: from a standard deviation of 100 px to 3e-4 px.
_PRECISIONS = 10.0 ** np.arange(-4.0, 7.01, 0.25)
#: A second, 1000 times wider part of the prior. It fixes what second differences leave open.
_RIDGE = 1e-6


def smooth_track(track: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the most probable track ``[n, 2]`` given noisy shifts, and how many numbers the data determine.

    Parameters
    ----------
    track : ndarray ``[n, 2]``
        Measured shifts (x, y), px. A constant in them is arbitrary and is kept.
    precision : ndarray ``[2]``
        1/variance of their errors in x and y, 1/px².
    """
    n = len(track)
    if n < 3:
        return track.copy(), 2.0 * (n - 1)
    values, vectors = np.linalg.eigh(second_differences(n))
    values[:2] = 0.0  # constant and linear motion, up to rounding
    parts = vectors.T @ track
    best, result, parameters = -np.inf, track, 0.0
    for smoothness in _PRECISIONS:
        prior = smoothness * values[:, None]
        kept = precision / (precision + prior)
        evidence = 0.5 * (np.log(1.0 - kept[2:]).sum() - (precision * (1.0 - kept) * parts**2).sum())
        if evidence > best:
            best, result = float(evidence), vectors @ (kept * parts)
            parameters = float(kept.sum()) - 2.0  # a constant is not motion
    return result, parameters


def fit_field(
    time: np.ndarray, space: np.ndarray, target: np.ndarray, precision: np.ndarray, sizes: tuple[int, int, int]
) -> tuple[np.ndarray, float]:
    """Fit the coefficients of a smooth field to the shifts of patches.

    Parameters
    ----------
    time : ndarray ``[n, lt]``
        Splines at the frames, minus their mean over the frames: a field that is constant in time is not motion.
    space : ndarray ``[p, ly lx]``
        Splines at the patches.
    target : ndarray ``[p, n, 2]``
        Measured shifts (x, y), px, in addition to the motion of the whole frame.
    precision : ndarray ``[p, 2]``
        1/variance of a patch's shifts in one frame.
    sizes : tuple of int
        (lt, ly, lx).

    Returns
    -------
    coefficients : ndarray ``[2, lt, ly, lx]``
        Of a field whose weighted mean over the patches is zero.
    parameters : float
        How many parameters the data determine, both axes together. It is 0 if they show no local motion.
    """
    whitener = np.linalg.inv(np.linalg.cholesky(_curvature(sizes)))
    share = precision / precision.sum(axis=0)
    projected, values, vectors = [], [], []
    for axis in range(2):
        centred = space - share[:, axis] @ space
        weighted = centred * precision[:, axis, None]
        matrix = whitener @ np.kron(time.T @ time, weighted.T @ centred) @ whitener.T
        eigenvalues, basis = np.linalg.eigh(matrix)
        right = (time.T @ np.einsum("pq,pt->tq", weighted, target[:, :, axis])).ravel()
        projected.append(basis.T @ (whitener @ right))
        values.append(np.maximum(eigenvalues, 0.0))
        vectors.append(whitener.T @ basis)
    value, part = np.array(values), np.array(projected)
    total = value[:, :, None] + _PRECISIONS
    evidence = 0.5 * (np.log(_PRECISIONS / total) + part[:, :, None] ** 2 / total).sum(axis=(0, 1))
    smoothness = _PRECISIONS[int(evidence.argmax())]
    coefficients = np.stack([v @ (p / (e + smoothness)) for v, p, e in zip(vectors, part, value, strict=True)])
    coefficients = coefficients.reshape(2, sizes[0], -1)
    # splines add up to one everywhere, so a constant subtracted from all coefficients of a time moves the whole frame
    mean = np.einsum("pa,pq,atq->at", share, space, coefficients)
    coefficients -= mean[:, :, None]
    return coefficients.reshape(2, *sizes), float((value / (value + smoothness)).sum())


def second_differences(n: int) -> np.ndarray:
    """Return the quadratic form [n, n] of the second differences of n values."""
    difference = np.diff(np.eye(n), n=2, axis=0)
    result: np.ndarray = difference.T @ difference
    return result


def _curvature(sizes: tuple[int, int, int]) -> np.ndarray:
    """Return the quadratic form of the second differences of coefficients along all three axes, and the ridge."""
    total = np.zeros((int(np.prod(sizes)),) * 2)
    for axis, size in enumerate(sizes):
        factors = [np.eye(s) for s in sizes]
        factors[axis] = second_differences(size)
        total += np.kron(np.kron(factors[0], factors[1]), factors[2])
    total += _RIDGE * np.trace(total) / len(total) * np.eye(len(total))
    return total
