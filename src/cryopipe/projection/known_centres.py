"""Where the particles' centres lie as far as a table knows: the origins that an earlier alignment left in it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopipe.errors import InputError

ORIGIN_COLUMNS = ("rlnOriginXAngst", "rlnOriginYAngst")


def known_centres_A(rows: pd.DataFrame, *, side_A: float) -> NDArray[np.float64]:
    """Return the shifts (x, y) in Å that centre the images according to a table, ``[n, 2]``; zero where it has no origins.

    Parameters
    ----------
    rows : DataFrame
        Particles.
    side_A : float
        Edge of their images; an origin of half of it or more would put the particle outside.

    Raises
    ------
    InputError
        An origin is not finite, or puts the particle outside its image.
    """
    if not set(ORIGIN_COLUMNS) <= set(rows.columns):
        return np.zeros((len(rows), 2))
    origins = rows[list(ORIGIN_COLUMNS)].to_numpy(np.float64)
    bad = ~(np.abs(origins) < side_A / 2).all(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"particle {row + 1} has origin ({origins[row, 0]:g}, {origins[row, 1]:g}) Å, outside its image of {side_A:g} Å; "
            f"{int(bad.sum())} particles have such: extract them again about their centres, or set rlnOriginX/YAngst to 0"
        )
    return origins
