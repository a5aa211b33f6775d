"""The best linear combination of correlated estimates of one micrograph's defocus, with its error.

Each estimator states an error. All estimators use the same spectrum, so their errors are correlated. The weights that give the
smallest variance are C⁻¹1 / (1ᵀC⁻¹1) (Aitken 1935; for correlated measurements Lyons et al. 1988,
doi:10.1016/0168-9002(88)90018-6). The covariance C is from the stated errors and one correlation for all pairs. Weights below
zero are set to zero, because they would extrapolate from a small difference of two estimates. Errors, correlation and offsets
are from :mod:`cryopipe.ctf.consensus.calibration`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cryopipe.ctf.defocus import Defocus
from cryopipe.ctf.sector_errors import DefocusError, error_of

#: An estimate is out-voted if it differs by more standard deviations from the others. With correct errors this is one in 2e6.
_OUT_VOTED_SD = 5.0


@dataclass(frozen=True)
class Member:
    """An estimate that takes part: its defocus and the standard deviations of z and of each of a and b, Å."""

    defocus: Defocus
    mean_error_A: float
    astigmatism_error_A: float


@dataclass(frozen=True)
class Combination:
    """A combined defocus.

    Attributes
    ----------
    defocus : Defocus
        Weighted mean of the tensors.
    error : DefocusError
        Its standard deviations.
    weights : dict
        ``{name: weight of its mean defocus}``. The sum is 1.
    out_voted : tuple of str
        Members with weight 0 because they contradict the others.
    """

    defocus: Defocus
    error: DefocusError
    weights: dict[str, float]
    out_voted: tuple[str, ...] = ()


def best_weights(errors: np.ndarray, correlation: float) -> tuple[np.ndarray, float]:
    """Return the weights ``[n]`` >= 0 that give the smallest variance, and the standard deviation of the combination.

    Parameters
    ----------
    errors : ndarray ``[n]``
        Standard deviations.
    correlation : float
        Correlation of the errors of any two, at least 0 and less than 1.
    """
    weights, used = np.zeros(len(errors)), np.arange(len(errors))
    while True:
        solved = np.linalg.solve(_covariance(errors[used], correlation), np.ones(len(used)))
        if solved.min() >= 0:
            break
        used = np.delete(used, solved.argmin())
    weights[used] = solved / solved.sum()
    return weights, float(solved.sum() ** -0.5)


def _same_weights(errors: np.ndarray, correlation: float) -> tuple[np.ndarray, float]:
    weights = np.full(len(errors), 1.0 / len(errors))
    return weights, float(np.sqrt(weights @ _covariance(errors, correlation) @ weights))


def _covariance(errors: np.ndarray, correlation: float) -> np.ndarray:
    return np.outer(errors, errors) * np.where(np.eye(len(errors)) > 0, 1.0, correlation)


def combine(
    members: Mapping[str, Member], correlations: tuple[float, float], common_A: float = 0.0, *, weighted: bool = True
) -> Combination:
    """Combine estimates. The result does not depend on the order of ``members``.

    If there are three or more, the one that contradicts the others most is out-voted if it is more than five standard
    deviations from their combination. Then the rest is combined again.

    Parameters
    ----------
    members : mapping
        ``{name: estimate}``, at least one.
    correlations : (float, float)
        Correlation of the errors of any two, in the mean defocus and in the components of the astigmatism.
    common_A : float
        Additional standard deviation, Å, of an offset that all micrographs share. The mean of estimators with offsets has an
        offset, too.
    weighted : bool
        False: all have the same weight, and none is out-voted.
    """
    kept, out = dict(sorted(members.items())), []
    while weighted and len(kept) > 2:
        apart = {name: _contradiction(name, kept, correlations) for name in kept}
        worst = max(apart, key=lambda name: apart[name])
        if apart[worst] <= _OUT_VOTED_SD:
            break
        out.append(worst)
        del kept[worst]
    found = _combined(kept, correlations, common_A, weighted=weighted)
    return replace(found, weights=found.weights | dict.fromkeys(out, 0.0), out_voted=tuple(sorted(out)))


def _combined(
    members: Mapping[str, Member], correlations: tuple[float, float], common_A: float = 0.0, *, weighted: bool = True
) -> Combination:
    defoci = [m.defocus for m in members.values()]
    errors = np.array([(m.mean_error_A, m.astigmatism_error_A) for m in members.values()])
    weigh = best_weights if weighted else _same_weights
    (of_mean, mean_sd), (of_astigmatism, sd) = (
        weigh(column, correlation) for column, correlation in zip(errors.T, correlations, strict=True)
    )
    z = math.fsum(float(w) * d.mean_A for w, d in zip(of_mean, defoci, strict=True))
    a, b = (
        math.fsum(float(w) * getattr(d, name) for w, d in zip(of_astigmatism, defoci, strict=True))
        for name in ("a_A", "b_A")
    )
    # a phase shift has the period 180°
    cosine, sine = (
        math.fsum(float(w) * f(2.0 * d.phase_shift_rad) for w, d in zip(of_mean, defoci, strict=True))
        for f in (math.cos, math.sin)
    )
    defocus = Defocus(z, a, b, 0.5 * math.atan2(sine, cosine) % math.pi)
    variances = np.array([mean_sd**2 + common_A**2, sd**2, sd**2])
    return Combination(
        defocus, error_of(np.diag(variances), defocus), dict(zip(members, map(float, of_mean), strict=True))
    )


def _contradiction(name: str, members: Mapping[str, Member], correlations: tuple[float, float]) -> float:
    """Return the difference of the estimate ``name`` from the combined others, in standard deviations of the difference."""
    own = members[name]
    others = _combined({n: m for n, m in members.items() if n != name}, correlations)
    sizes = []
    for parts, mine, theirs, correlation in (
        (("mean_A",), own.mean_error_A, others.error.mean_A, correlations[0]),
        (("a_A", "b_A"), own.astigmatism_error_A, others.error.astigmatism_A, correlations[1]),
    ):
        squares = sum((getattr(own.defocus, p) - getattr(others.defocus, p)) ** 2 for p in parts) / len(parts)
        sizes.append(math.sqrt(squares / (mine**2 + theirs**2 - 2.0 * correlation * mine * theirs)))
    return max(sizes)
