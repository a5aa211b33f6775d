"""Seeds compete: which map goes on, when to stop trying, and whether the map can be believed.

Two runs that end in the same map, from starts that share nothing, have found the particle; chance does not find a map twice
(`cryopipe.initial_volume.agreement`). Without a second one, a run can still stand out by the likelihood of particles that none
has used. Where neither holds, nothing tells the best map from the others, and this is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["agreed", "alone", "none", "single"]
#: Mean FSC without the profile from which on two maps are the same. Runs see the same particles, so those that end in the same
#: maximum share its noise as well. Right maps have 0.97 or more with each other (EMPIAR-10146, and simulated particles without
#: symmetry), runs on their way at most 0.75 with these, and wrong ones at most 0.35 or, where their shape is right, 0.56 (D2).
AGREEMENT = 0.8
#: A run stands out if it lies so many standard deviations (from the median absolute deviation) above the median of the others:
#: the best of eight draws from a normal distribution does so once in fifty times ...
STANDS_OUT = 9.0
#: ... and less often with more others; fewer have no spread to speak of.
_FEWEST_OTHERS = 7
#: standard deviation of a normal distribution over its median absolute deviation
_MAD_TO_SD = 1.4826


@dataclass(frozen=True)
class Standing:
    """How a contest stands.

    Attributes
    ----------
    best : int
        Place of the run whose map goes on.
    partner : int or None
        Place of the run that agrees best with it, where one does.
    verdict : {"agreed", "alone", "none", "single"}
        Another run found the map of the best; none did, but its evidence stands out; neither; there is no other run.
    """

    best: int
    partner: int | None
    verdict: Verdict


def standing(evidence: NDArray[np.float64], with_best: NDArray[np.float64]) -> Standing:
    """Judge finished runs.

    Parameters
    ----------
    evidence : array [n]
        Mean log evidence of a held-out particle.
    with_best : array [n]
        Agreement of each map with that of the largest evidence, whose own entry does not count.
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
    """Tell whether an evidence is no member of the distribution of the others."""
    if len(others) < _FEWEST_OTHERS:
        return False
    middle = float(np.median(others))
    spread = _MAD_TO_SD * float(np.median(np.abs(others - middle)))
    return best - middle > STANDS_OUT * max(spread, 1e-9)


def goes_on(verdict: Verdict, done: int, *, seeds: int, max_seeds: int) -> bool:
    """Tell whether another seed is tried: not once two agree nor, after ``seeds``, where one stands out, nor past ``max_seeds``.

    Parameters
    ----------
    verdict : str
        So far.
    done : int
        Runs so far.
    seeds, max_seeds : int
        Runs after which one that stands out suffices, and runs at most.
    """
    if verdict == "agreed" or done >= max_seeds:
        return False
    return done < seeds or verdict != "alone"


def message(found: Standing, count: int, with_best: NDArray[np.float64]) -> tuple[str, bool]:
    """Return a sentence on how a contest of ``count`` seeds ended, and whether it is a warning; seeds count from 1."""
    best = found.best + 1
    if found.verdict == "agreed" and found.partner is not None:
        value = with_best[found.partner]
        return f"seeds {best} and {found.partner + 1} found the same map (correlation {value:.2f}).", False
    if found.verdict == "single":
        return "the initial map is that of a single seed: nothing tells whether another one would find the same.", True
    if found.verdict == "alone":
        return (
            f"no other of {count} seeds found the map of seed {best}, but its held-out evidence stands out. "
            "Look at the map before you believe what follows from it.",
            True,
        )
    return (
        f"of {count} seeds no two found the same map and none stands out: the initial map is probably wrong, and so is what "
        "follows from it. Use more particles, allow more seeds (max_seeds), and check diameter and symmetry.",
        True,
    )
