"""The contest of seeds: which map is used further, when to stop, and whether the map can be trusted.

If two runs from independent starts end in the same map, they have found the particle, because chance does not find a map twice
(`cryopipe.initial_volume.agreement`). If no two runs agree, one run can still be clearly better than the others by the
likelihood of particles that none has used. Otherwise the best map cannot be distinguished from the others, and the message is
a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["agreed", "alone", "none", "single"]
#: Two maps are the same if their mean FSC without the profile is at least this. Runs use the same particles, so runs that end
#: in the same maximum also share its noise. Right maps have 0.97 or more with each other (EMPIAR-10146, and simulated particles
#: without symmetry). Unfinished runs have at most 0.75 with right maps. Wrong maps have at most 0.35, or 0.56 if their shape is
#: right (D2).
AGREEMENT = 0.8
#: A run is clearly best if its evidence is this many standard deviations above the median of the others. The standard deviation
#: is estimated from the median absolute deviation. The best of eight draws from a normal distribution exceeds this limit once in
#: fifty times ...
STANDS_OUT = 9.0
#: ... and less often with more other runs. With fewer than this number the spread cannot be estimated.
_FEWEST_OTHERS = 7
#: standard deviation of a normal distribution over its median absolute deviation
_MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class Standing:
    """State of a contest.

    Attributes
    ----------
    best : int
        Index of the run whose map is used further.
    partner : int or None
        Index of the run that agrees best with it, or None if no run agrees.
    verdict : {"agreed", "alone", "none", "single"}
        "agreed": another run found the map of the best run. "alone": no other run did, but the evidence of the best run is
        clearly best. "none": neither is true. "single": there is no other run.
    """

    best: int
    partner: int | None
    verdict: Verdict


def standing(evidence: NDArray[np.float64], with_best: NDArray[np.float64]) -> Standing:
    """Judge finished runs.

    Parameters
    ----------
    evidence : array [n]
        Mean log evidence per held-out particle.
    with_best : array [n]
        Agreement of each map with the map of the largest evidence. The entry of this map itself is ignored.
    """
    best, n = int(np.argmax(evidence)), len(evidence)
    if n == 1:
        return Standing(best, None, "single")
    others = np.where(np.arange(n) == best, -np.inf, with_best)
    partner = int(np.argmax(others))
    if others[partner] >= AGREEMENT:
        return Standing(best, partner, "agreed")
    return Standing(best, None, "alone" if stands_out(np.delete(evidence, best), float(evidence[best])) else "none")


def stands_out(others: NDArray[np.float64], best: float) -> bool:
    """Return whether an evidence is far above the distribution of the others."""
    if len(others) < _FEWEST_OTHERS:
        return False
    middle = float(np.median(others))
    spread = _MAD_TO_SD * float(np.median(np.abs(others - middle)))
    return best - middle > STANDS_OUT * max(spread, 1e-9)


def goes_on(verdict: Verdict, done: int, *, seeds: int, max_seeds: int) -> bool:
    """Return whether another seed is run.

    No further seed is run if two agree, if one is clearly best after ``seeds`` runs, or after ``max_seeds`` runs.

    Parameters
    ----------
    verdict : str
        Verdict so far.
    done : int
        Number of finished runs.
    seeds, max_seeds : int
        Number of runs after which a clearly best run is enough, and largest number of runs.
    """
    if verdict == "agreed" or done >= max_seeds:
        return False
    return done < seeds or verdict != "alone"


def message(found: Standing, count: int, with_best: NDArray[np.float64]) -> tuple[str, bool]:
    """Return a sentence on how a contest of ``count`` seeds ended, and whether it is a warning. Seeds are counted from 1."""
    best = found.best + 1
    if found.verdict == "agreed" and found.partner is not None:
        value = with_best[found.partner]
        return f"seeds {best} and {found.partner + 1} found the same map (correlation {value:.2f}).", False
    if found.verdict == "single":
        return (
            "the initial map is from a single seed, so it is unknown whether another seed would find the same map.",
            True,
        )
    if found.verdict == "alone":
        return (
            f"seed {best} explains held-out particles clearly best, but no other of {count} seeds found its map. "
            "Look at the map before you trust the next steps.",
            True,
        )
    return (
        f"no other of {count} seeds found the map of seed {best}, and it is not clearly best. The initial map and all results "
        "from it are probably wrong. Use more particles, allow more seeds (max_seeds), and check diameter and symmetry.",
        True,
    )
