"""Two independent halves of a particle set: those of the table, or else halves that depend on the particle, not on its row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from cryopipe.errors import InputError
from cryopipe.io.star import StarTable
from cryopipe.projection.particle_keys import particle_keys

#: the column of RELION's half sets
_SUBSET = "rlnRandomSubset"


def half_sets(names: Sequence[str], groups: Sequence[str] | None = None) -> np.ndarray:
    """Assign particles to half 1 or 2 by the hash of their names, alternating inside each group.

    The halves of a group (a micrograph) differ by at most one particle. The hash of the group decides to which half the odd
    one goes. The order of rows, other micrographs and the machine have no influence.

    Parameters
    ----------
    names : sequence of str
        A name for each particle that follows from its content (micrograph and coordinates). Names must be unique.
    groups : sequence of str, optional
        The group of each particle. By default there is one group.

    Returns
    -------
    ndarray int8 [n]
        1 or 2 (rlnRandomSubset).

    Raises
    ------
    InputError
        A name occurs twice. With duplicates in both halves the FSC would never fall to zero.
    """
    if len(set(names)) != len(names):
        seen: set[str] = set()
        double = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"particle {double} is in the table twice. Remove duplicates before splitting into half sets.")
    strata = list(groups) if groups is not None else [""] * len(names)
    order = sorted(range(len(names)), key=lambda i: (strata[i], _hash(names[i])))
    half = np.zeros(len(names), np.int8)
    previous, place = None, 0
    for i in order:
        if strata[i] != previous:
            previous, place = strata[i], _hash(strata[i])[0] & 1
        half[i] = 1 + place
        place ^= 1
    return half


def half_sets_of(particles: StarTable) -> np.ndarray:
    """Return the half sets of a particle table: int8 ``[n]`` of 1 and 2.

    If the table has the column rlnRandomSubset, its half sets are used, so that particles that an earlier refinement kept apart
    stay apart. Otherwise, particles are split micrograph by micrograph. The name of a particle is that of
    `cryopipe.projection.particle_keys`: micrograph and coordinates, or else its image.

    Raises
    ------
    InputError
        The table has neither coordinates nor image names, or a name occurs twice, or a half set is not 1 or 2, or a half has
        no particles.
    """
    rows = particles.rows
    group = next((rows[c].astype(str).tolist() for c in ("crpItem", "rlnMicrographName") if c in rows), None)
    half = half_sets(particle_keys(rows), group)  # also refuses duplicates
    if _SUBSET in rows:
        half = _stated(rows[_SUBSET].to_numpy(np.float64))
    if len(half) and not {1, 2} <= set(half.tolist()):
        raise InputError(
            f"with {len(half)} particles half set {3 - int(half[0])} is empty, but a gold-standard FSC needs particles in "
            "both. Use more micrographs, or relax the limits that reject particles."
        )
    return half


def _stated(subset: np.ndarray) -> np.ndarray:
    bad = np.flatnonzero(~np.isin(subset, (1, 2)))
    if len(bad):
        raise InputError(
            f"rlnRandomSubset is {subset[bad[0]]:g} for particle {bad[0] + 1}. "
            f"{len(bad)} of {len(subset)} values are not 1 or 2. Fill the column, or remove it. "
            "Without the column, particles are split into new half sets."
        )
    return subset.astype(np.int8)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
