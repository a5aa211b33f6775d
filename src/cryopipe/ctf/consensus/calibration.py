"""Calibration of estimators by a batch of micrographs: their offsets, their correlation, and the scale of their errors.

In a run the true defocus is not known, only differences of estimates are. Three things follow from them:

- *Errors.* The error on one micrograph is known to some 16 %. If the errors of an estimator scatter no more than that, all
  micrographs get the same error (empirical Bayes on the logarithms; James & Stein 1961).
- *Offsets.* An estimator may be wrong by the same amount on all micrographs (because of its model of the background, or its
  band). Its mean difference from the others shows this offset. The part that the scatter explains is subtracted. An offset that
  all estimators share cannot be seen.
- *Correlation.* Estimators use the same spectrum, so their differences are smaller than their errors. If the differences are
  larger, the errors are scaled up.

Correlation and scale start from values of the simulation (`benchmarks/ctf/ctf.py`), which count as much as twenty pairs. A single
micrograph gets mostly these values, and a hundred micrographs get mostly their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize

from cryopipe.ctf.consensus.weights import Member
from cryopipe.ctf.defocus import Defocus
from cryopipe.ctf.sector_errors import SECTORS

#: Correlation of the errors of two estimators on simulated micrographs, mean of the three pairs (0.43, 0.45, 0.56).
_CORRELATION = 0.5
#: A starting value counts as much as this number of pairs. A choice: about one batch of seven micrographs and three estimators.
_PRIOR_PAIRS = 20.0
#: Bounds of the correlation. Single pairs had 0.2 to 0.6. If differences need a correlation below the bound, errors are larger.
_CORRELATIONS = (0.3, 0.9)
#: Variance of the logarithm of an error from the scatter of sectors, 1 / (2 degrees of freedom).
_LOG_VARIANCE = 0.5 / (SECTORS - 3.0)
#: A difference counts as at most so many standard deviations, so that one outlier does not widen all errors.
_CLIPPED_SD = 5.0
_PARTS = ("mean_A", "a_A", "b_A")


@dataclass(frozen=True)
class Calibration:
    """Result of :func:`calibrate`.

    Attributes
    ----------
    correlations : (float, float)
        Correlation of the errors of any two estimators, in the mean defocus and in the components of the astigmatism.
    scales : (float, float)
        Factors of all errors of the two kinds, at least 1.
    offsets : dict
        ``{estimator: (z, a, b)}``: offset of each estimator from the mean of all, Å.
    common_A : float
        Standard deviation of the offset that remains in the mean of the estimators, Å.
    keep : dict
        ``{(estimator, component): (mean of the logarithms of its errors, share of a deviation from it that is real)}``.
    """

    correlations: tuple[float, float] = (_CORRELATION, _CORRELATION)
    scales: tuple[float, float] = (1.0, 1.0)
    offsets: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    common_A: float = 0.0
    keep: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def apply(self, name: str, member: Member) -> Member:
        """Return the estimate of estimator ``name`` without its offset, with corrected errors."""
        z, a, b = self.offsets.get(name, (0.0, 0.0, 0.0))
        d = member.defocus
        return Member(
            Defocus(d.mean_A - z, d.a_A - a, d.b_A - b, d.phase_shift_rad),
            self.scales[0] * self._error(name, "mean", member.mean_error_A),
            self.scales[1] * self._error(name, "astigmatism", member.astigmatism_error_A),
        )

    def _error(self, name: str, component: str, error_A: float) -> float:
        middle, share = self.keep.get((name, component), (0.0, 1.0))
        return error_A if share == 1.0 else math.exp(middle + share * (math.log(error_A) - middle))


def calibrate(micrographs: Sequence[Mapping[str, Member]]) -> Calibration:
    """Calibrate by the estimates that agree on each micrograph of a batch. Their order does not matter."""
    names = sorted({name for members in micrographs for name in members})
    keep = {}
    for name in names:
        of_one = [members[name] for members in micrographs if name in members]
        for component in ("mean", "astigmatism"):
            errors = np.sort([getattr(member, f"{component}_error_A") for member in of_one])
            keep[name, component] = _shrinkage(np.log(errors))
    found = Calibration(keep=keep)
    offsets, common_A = _offsets([{n: found.apply(n, m) for n, m in members.items()} for members in micrographs], names)
    found = Calibration(keep=keep, offsets=offsets, common_A=common_A)
    corrected = [{n: found.apply(n, m) for n, m in ms.items()} for ms in micrographs]
    (mean, mean_scale), (parts, scale) = (
        _correlation(corrected, "mean_error_A", ("mean_A",)),
        _correlation(corrected, "astigmatism_error_A", ("a_A", "b_A")),
    )
    return Calibration((mean, parts), (mean_scale, scale), offsets, common_A, keep)


def _shrinkage(logarithms: np.ndarray) -> tuple[float, float]:
    n = len(logarithms)
    variance = float(logarithms.var(ddof=1)) if n > 3 else 0.0
    share = 1.0 if variance == 0 else max(0.0, 1.0 - (n - 3.0) / (n - 1.0) * _LOG_VARIANCE / variance)
    return float(np.mean(logarithms)), share


def _offsets(
    micrographs: Sequence[Mapping[str, Member]], names: Sequence[str]
) -> tuple[dict[str, tuple[float, float, float]], float]:
    """Return the offsets of each estimator from the mean of all, and the sd of the offset that remains in this mean."""
    whole = [members for members in micrographs if len(members) == len(names)]
    if len(names) < 2 or len(whole) < 3:  # a scatter needs three
        return {}, 0.0
    found, common_A = np.zeros((len(names), len(_PARTS))), 0.0
    for p, part in enumerate(_PARTS):
        values = np.array([[getattr(ms[n].defocus, part) for n in names] for ms in whole])  # [micrograph, estimator]
        values = values[np.lexsort(values.T)]  # sums in an order that is not that of the rows
        error = "mean_error_A" if part == "mean_A" else "astigmatism_error_A"
        errors2 = np.median([[getattr(ms[n], error) ** 2 for n in names] for ms in whole], axis=0)
        tau2 = 0.0
        for _ in range(2):  # weights first from the noise alone, then from noise and offsets
            weights = 1.0 / (errors2 + tau2)
            weights /= weights.sum()
            apart = values - (values @ weights)[:, None]
            middle = np.median(apart, axis=0)
            # a median of normal values has π/2 times the variance of their mean
            noise2 = 0.5 * np.pi * apart.var(axis=0, ddof=1) / len(whole)
            tau2 = _excess(middle, noise2)
        found[:, p] = middle * tau2 / np.maximum(tau2 + noise2, 1e-12)
        if part == "mean_A":
            common_A = float(np.sqrt(tau2 * (weights**2).sum()))
    result = {name: (float(o[0]), float(o[1]), float(o[2])) for name, o in zip(names, found, strict=True)}
    return result, common_A


def _excess(means: np.ndarray, noise2: np.ndarray) -> float:
    """Return the variance of offsets that explains the scatter of ``means`` beyond their noise (Paule & Mandel 1982)."""

    def surplus(tau2: float) -> float:
        return float((means**2 / np.maximum(noise2 + tau2, 1e-12)).sum()) - (len(means) - 1.0)

    largest = float((means**2).sum())
    return 0.0 if surplus(0.0) <= 0 or largest == 0 else float(optimize.brentq(surplus, 0.0, largest))


def _correlation(micrographs: Sequence[Mapping[str, Member]], error: str, parts: Sequence[str]) -> tuple[float, float]:
    """Return the correlation of the errors of two estimators, and the factor by which errors are too small, at least 1."""
    rows = []
    for members in micrographs:
        for a, b in itertools.combinations(members.values(), 2):
            first, second = getattr(a, error), getattr(b, error)
            limit = _CLIPPED_SD**2 * (first**2 + second**2)
            for part in parts:
                difference2 = (getattr(a.defocus, part) - getattr(b.defocus, part)) ** 2
                rows.append((min(difference2, limit), first**2 + second**2, first * second))
    if not rows:
        return _CORRELATION, 1.0
    differences2, squares, products = np.array(rows).T
    n, shares = len(rows), np.sort(differences2 / squares)
    # the weight of a pair is how well it determines a correlation, not the size of its errors
    alike = 2.0 * products / squares
    seen = float(np.sort(alike * (1.0 - differences2 / squares)).sum() / np.sort(alike**2).sum())
    correlation = (_PRIOR_PAIRS * _CORRELATION + n * seen) / (_PRIOR_PAIRS + n)
    correlation = float(np.clip(correlation, *_CORRELATIONS))
    ratio = float(shares.sum() / n) / (1.0 - correlation * float(np.sort(alike).sum()) / n)
    scale2 = (_PRIOR_PAIRS + n * ratio) / (_PRIOR_PAIRS + n)
    return correlation, math.sqrt(max(1.0, scale2))
