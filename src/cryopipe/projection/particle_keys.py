"""The identity of a particle, independent of its row in a table and of its pixels. Random seeds are made from it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cryopipe.errors import InputError


def particle_keys(rows: pd.DataFrame) -> list[str]:
    """Return one text per particle: its micrograph and coordinates to 0.1 px, or without them its image's name."""
    item = next((name for name in ("crpItem", "rlnMicrographName") if name in rows), None)
    if item is not None and {"rlnCoordinateX", "rlnCoordinateY"} <= set(rows.columns):
        places = zip(rows[item], rows["rlnCoordinateX"], rows["rlnCoordinateY"], strict=True)
        return [f"{name}\0{x:.1f}\0{y:.1f}" for name, x, y in places]
    if "rlnImageName" not in rows:
        raise InputError(
            "the particles cannot be distinguished. Their table needs rlnImageName, or rlnMicrographName and "
            "rlnCoordinateX/Y."
        )
    return [str(name) for name in rows["rlnImageName"]]


def canonical_order(rows: pd.DataFrame) -> np.ndarray:
    """Return the rows' positions sorted by identity, int64 ``[n]``. This order does not depend on the input's order."""
    keys = particle_keys(rows)
    names = rows["rlnImageName"].astype(str).tolist() if "rlnImageName" in rows else keys
    return np.array(sorted(range(len(rows)), key=lambda i: (keys[i], names[i])), dtype=np.int64)
