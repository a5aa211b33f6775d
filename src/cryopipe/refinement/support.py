"""Whether half maps say anything: they must agree further than what they had in common at the start made them agree."""

from __future__ import annotations

#: Half maps of pure noise, refined from one start, agree to its low-pass by construction: to 26.9 Å from 27.4 Å (80 images
#: without symmetry, tests/refinement/test_support.py). A fifth more is beyond that, and less than a map gains that follows
#: its particles.
LEAST_GAIN = 1.2


def unsupported(resolution_A: float, start_A: float) -> str | None:
    """Return why half maps that agree to ``resolution_A`` do not support their map, or None where they do.

    Parameters
    ----------
    resolution_A : float
        Where the FSC of the half maps falls below 0.143.
    start_A : float
        Resolution of the map that both halves started from.
    """
    if resolution_A * LEAST_GAIN <= start_A:
        return None
    return (
        f"the half maps agree to {resolution_A:.1f} Å, and both started from one map at {start_A:.1f} Å: this agreement comes "
        "from the start, and nothing shows that the refined map is right. Look at the initial volume, at the number of particles "
        "and at the 2D classes."
    )
