"""Pack copies of one chain into a shape and print them as operators: how the specimens of config/test were made.

    python benchmarks/shared/pack_chains.py rod|irregular|d2

Chains fall into random places and turns and are then moved one by one, at random, wherever that makes them lie less outside
the shape or in one another (simulated annealing). Turns are random, so that a shape's own symmetry is not that of the particle.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import gemmi
import numpy as np
from scipy.spatial import cKDTree

from cryopipe.imaging.geometry import random_rotations, rotation_from_vector
from cryopipe.imaging.symmetry import symmetry_operators

CHAIN = Path(__file__).parents[2] / "config" / "test" / "apoferritin.pdb.gz"
#: Distance in Å below which atoms of different chains overlap; one atom in so many is looked at.
CONTACT_A, EVERY = 6.0, 25
#: Volume of a chain of 172 residues (21 kDa at 1.21 Å³/Da), and the share of the shape that chains shall fill.
CHAIN_A3, FILLING = 25400.0, 0.6
#: Moves of the annealing for each chain, and its hottest and coldest temperature in units of one atom outside the shape.
MOVES, HOT, COLD = 2500, 1.0, 0.03


def in_rod(xyz: np.ndarray) -> np.ndarray:
    """Tell what lies in a rod of 180 x 60 Å that is bent and thinner at one end."""
    z = xyz[:, 2]
    radius = 31.0 - 7.0 * np.clip((z - 20.0) / 70.0, 0, 1)
    bend = 12.0 * (1 - (z / 90.0) ** 2) - 8.0
    return (np.abs(z) < 90.0) & (np.hypot(xyz[:, 0] - bend, xyz[:, 1]) < radius)


def in_irregular(xyz: np.ndarray) -> np.ndarray:
    """Tell what lies in three lobes of different size: 150 Å at the longest, without any symmetry."""
    lobes = ((-28.0, 0.0, 0.0, 44.0), (38.0, 16.0, 8.0, 31.0), (-8.0, 44.0, -24.0, 27.0), (14.0, -30.0, 22.0, 24.0))
    return np.any([np.linalg.norm(xyz - lobe[:3], axis=1) < lobe[3] for lobe in lobes], axis=0)


def in_d2(xyz: np.ndarray) -> np.ndarray:
    """Tell what lies in an ellipsoid of 180 x 110 x 80 Å."""
    return ((xyz / (90.0, 55.0, 40.0)) ** 2).sum(axis=1) < 1


#: Shape, half sides of the block that holds it (Å), point group.
SHAPES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[float, float, float], str]] = {
    "rod": (in_rod, (40, 40, 90), "C1"),
    "irregular": (in_irregular, (80, 75, 60), "C1"),
    "d2": (in_d2, (90, 55, 40), "D2"),
}


def penalty(chains: np.ndarray, i: int, inside: Callable[[np.ndarray], np.ndarray], mates: np.ndarray) -> float:
    """Return how far chain ``i`` of ``chains`` [n, m, 3] lies outside the shape or in others, in atoms."""
    own = chains[i]
    others = [np.delete(chains, i, axis=0).reshape(-1, 3)] + [chains.reshape(-1, 3) @ g.T for g in mates[1:]]
    near = cKDTree(np.concatenate(others)).query(own, distance_upper_bound=CONTACT_A)[0]
    return float(np.count_nonzero(~inside(own)) + np.sum(2.0 * (1 - np.minimum(near, CONTACT_A) / CONTACT_A)))


def pack(name: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Return operators [3, 4] in the chain file's frame."""
    inside, half, group = SHAPES[name]
    model = gemmi.read_structure(str(CHAIN))[0]
    chain = np.array([atom.pos.tolist() for part in model for residue in part for atom in residue])[::EVERY]
    centre = chain.mean(axis=0)
    mates = symmetry_operators(group)
    volume = inside(rng.uniform(-1, 1, (200000, 3)) * half).mean() * 8 * np.prod(half)
    count = round(FILLING * volume / CHAIN_A3 / len(mates))
    turns, places = random_rotations(rng, count), rng.uniform(-0.5, 0.5, (count, 3)) * half
    chains = np.einsum("nij,mj->nmi", turns, chain - centre) + places[:, None]
    for step in range(MOVES * count):
        i, progress = step % count, step / (MOVES * count)
        temperature, size = HOT * (COLD / HOT) ** progress, 1 - 0.9 * progress
        before = chains.copy()
        turn = rotation_from_vector(rng.normal(0, 0.4 * size, 3)) @ turns[i]
        place = places[i] + rng.normal(0, 12.0 * size, 3)
        chains[i] = (chain - centre) @ turn.T + place
        worse = penalty(chains, i, inside, mates) - penalty(before, i, inside, mates)
        if inside(place[None])[0] and (worse <= 0 or rng.random() < np.exp(-worse / temperature)):
            turns[i], places[i] = turn, place
        else:
            chains = before
    left = [penalty(chains, i, inside, mates) for i in range(count)]
    whole = np.concatenate([chains.reshape(-1, 3) @ g.T for g in mates])
    whole = whole - whole.mean(axis=0)
    extent = [float(np.ptp(whole @ axis)) for axis in np.linalg.svd(whole, full_matrices=False)[2]]
    print(
        f"{name}: {count} operators, {volume:.0f} Å³, {np.mean(left):.1f} atoms of {len(chain)} overlap; "
        f"extent {np.round(extent)} Å, twice the reach {2 * np.linalg.norm(whole, axis=1).max():.0f} Å",
        file=sys.stderr,
    )
    return [np.concatenate([t, (p - t @ centre)[:, None]], axis=1) for t, p in zip(turns, places, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for operator in pack(options.shape, np.random.default_rng(options.seed)):
        print("      - [" + ", ".join(f"{x:.4f}".rstrip("0").rstrip(".") for x in operator.ravel()) + "]")
