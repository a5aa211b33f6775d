"""Point groups of RELION (Cn, Dn, T, O, I1-I4): operators, asymmetric units of poses, symmetrised maps.

Operators g are rotations that leave the map unchanged. Poses ``A`` and ``A @ g`` are equivalent. The axes are those of
RELION and Xmipp (``relion_refine --sym O --print_symmetry_ops``):

- Cn has its axis on z. Dn also has a two-fold axis on x.
- T has a three-fold axis on z.
- O has its four-fold axes on x, y and z.
- I (= I2) has two-fold axes on x, y and z, and a five-fold axis in the xz plane. I1 is I2 turned by 90° about z.
- I3 and I4 have a five-fold axis on z and a two-fold axis on y. They differ by 180° about z.
"""

from __future__ import annotations

import functools
import itertools
import math
import re

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import cube_box
from cryopipe.imaging.geometry import rotation_from_vector
from cryopipe.imaging.transform import apply_affine

_GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0
# (order, axis) of the generating rotations. The axes are those of RELION's symmetries.cpp, in closed form.
_GENERATORS: dict[str, list[tuple[int, tuple[float, float, float]]]] = {
    "T": [(3, (0, 0, 1)), (2, (0, math.sqrt(2), 1))],
    "O": [(3, (1, 1, 1)), (4, (0, 0, 1))],
    "I1": [(2, (1, 0, 0)), (5, (_GOLDEN, 0, -1)), (3, (_GOLDEN**2, 1, 0))],
    "I2": [(2, (0, 0, 1)), (5, (1, 0, _GOLDEN)), (3, (0, 1, _GOLDEN**2))],
    "I3": [(2, (-1, 0, _GOLDEN)), (5, (0, 0, 1))],
    "I4": [(2, (1, 0, _GOLDEN)), (5, (2, 0, 1))],
}
_ORDERS = {"T": 12, "O": 24, "I1": 60, "I2": 60, "I3": 60, "I4": 60}
# A direction strictly inside the asymmetric unit. It is on a mirror plane of the group's axes, but not on an axis.
_REFERENCE = {
    "T": (0.0, 0.3, 1.0),
    "O": (0.0, 0.4, 1.0),
    "I1": (1.0, 0.0, -0.25),
    "I2": (0.25, 0.0, 1.0),
    "I3": (-0.2, 0.0, 1.0),
    "I4": (0.8, 0.0, 1.0),
}
# Largest difference between dot products of unit vectors that counts as a tie (directions on a border or an axis).
_TIE = 1e-7


def parse_group(group: str) -> str:
    """Return the canonical name of a point group (``c1`` -> ``C1``, ``I`` -> ``I2``), or raise an `InputError`."""
    name = str(group).strip().upper()
    if name == "I":
        name = "I2"
    cyclic = re.fullmatch(r"([CD])([1-9]\d{0,2})", name)
    if not cyclic and name not in _GENERATORS:
        raise InputError(
            f"unknown symmetry group {group!r}. Give Cn or Dn (such as C1, C4, D2), T, O, I (= I2), I1, I2, I3 or I4. "
            "Groups with mirrors do not occur in proteins."
        )
    return name


@functools.lru_cache(maxsize=64)
def _operators(name: str) -> np.ndarray:
    if name in _GENERATORS:
        generators = [_axis_rotation(order, axis) for order, axis in _GENERATORS[name]]
        expected = _ORDERS[name]
    else:
        order = int(name[1:])
        generators = [_axis_rotation(order, (0, 0, 1))] + ([_axis_rotation(2, (1, 0, 0))] if name[0] == "D" else [])
        expected = order * (2 if name[0] == "D" else 1)
    operators = _close(generators)
    if len(operators) != expected:
        raise RuntimeError(f"group {name}: closure gave {len(operators)} operators instead of {expected}")
    operators.setflags(write=False)
    return operators


def symmetry_operators(group: str) -> np.ndarray:
    """Return the operators ``[g, 3, 3]`` float64 of a point group: proper rotations of (x, y, z), the identity first.

    Parameters
    ----------
    group : str
        Cn, Dn, T, O, I (= I2), I1, I2, I3 or I4, in any case.

    Raises
    ------
    InputError
        The name is not one of these groups.
    """
    return _operators(parse_group(group)).copy()


def _axis_rotation(order: int, axis: tuple[float, float, float]) -> np.ndarray:
    unit = np.asarray(axis, dtype=np.float64)
    return _snap(rotation_from_vector(unit / np.linalg.norm(unit) * (2.0 * np.pi / order)))


def _snap(matrix: np.ndarray) -> np.ndarray:
    """Round entries near 0, ±½ or ±1 to these values, so that signed permutations are exact."""
    nearest = np.rint(matrix * 2.0) / 2.0
    return np.where(np.abs(matrix - nearest) < 1e-12, nearest + 0.0, matrix)


def _close(generators: list[np.ndarray]) -> np.ndarray:
    """Return all products of the generators, found breadth first from the identity."""
    found = [np.eye(3)]
    keys = {_key(found[0])}
    for element in found:  # the list grows during the loop
        for generator in generators:
            product = _snap(element @ generator)
            if _key(product) not in keys:
                keys.add(_key(product))
                found.append(product)
    return np.stack(found)


def _key(matrix: np.ndarray) -> bytes:
    return (np.rint(matrix * 1e6) + 0.0).astype(np.int64).tobytes()


@functools.lru_cache(maxsize=64)
def _reference_direction(name: str) -> np.ndarray:
    direction = np.asarray(_REFERENCE.get(name, (1.0, 0.0, 1.0)))
    direction = direction / np.linalg.norm(direction)
    direction.setflags(write=False)
    return direction


def in_asymmetric_unit(directions: ArrayLike, group: str, *, tolerance: float = _TIE) -> np.ndarray:
    """Return which unit vectors ``[..., 3]`` are in the asymmetric unit or on its border, bool ``[...]``.

    The unit contains the directions that are nearer to a fixed reference direction than to any of its symmetry mates.
    For O it is ``|x| <= y <= z``. For Cn it is the sector ``|azimuth| <= 180°/n``, and for Dn the upper half of it.

    Parameters
    ----------
    tolerance : float
        Directions that are outside by less than this difference of cosines count as border.
    """
    d = np.asarray(directions, dtype=np.float64)
    operators = _operators(parse_group(group))
    mates = operators @ _reference_direction(parse_group(group))
    own = d @ mates[0]
    inside = np.ones(d.shape[:-1], dtype=bool)
    for mate in mates[1:]:
        inside &= own >= d @ mate - tolerance
    return inside


def reduce_to_asymmetric_unit(matrices: ArrayLike, group: str) -> np.ndarray:
    """Return the equivalent poses ``A @ g`` ``[..., 3, 3]`` whose viewing direction is in the asymmetric unit.

    All equivalents of a pose give the same result. If the view is on a border or an axis, several operators are
    possible, and the rest of the matrix decides between them.
    """
    a = np.asarray(matrices, dtype=np.float64)
    name = parse_group(group)
    operators = _operators(name)
    view = a[..., 2, :]
    # d·(A g) = A[2] @ g @ r: the symmetry mates of the reference seen from the pose, one column per operator.
    score = view @ (operators @ _reference_direction(name)).T
    # Ties are broken by a generic linear form of the whole matrix, which has another value for each operator.
    form = np.array([[0.731, 0.213, 0.402], [-0.315, 0.911, 0.127], [0.0, 0.0, 0.0]])
    second = np.einsum("...ij,gjk,ik->...g", a, operators, form, optimize=True)
    tied = score >= score.max(axis=-1, keepdims=True) - _TIE
    best = np.argmax(np.where(tied, second, -np.inf), axis=-1)
    return a @ operators[best]


def is_signed_permutation(operators: ArrayLike) -> np.ndarray:
    """Return which operators ``[..., 3, 3]`` only permute and flip axes. They need no interpolation of voxels."""
    g = np.asarray(operators, dtype=np.float64)
    return np.all((g == 0.0) | (np.abs(g) == 1.0), axis=(-2, -1))


def exact_factors(operators: np.ndarray) -> list[list[np.ndarray]]:
    """Split a group of signed permutations into cyclic factors whose products give every operator once.

    Averaging over one factor after the other averages over the whole group. For O this takes 3 + 1 + 2 copies instead
    of 23.

    Returns
    -------
    list of list of ndarray
        The operators of each factor, including the identity. The last factor is applied last.
    """
    cyclic: dict[frozenset[bytes], list[np.ndarray]] = {}
    for g in operators[1:]:
        powers = [np.eye(3)]
        while _key(product := powers[-1] @ g) != _key(powers[0]):
            powers.append(product)
        cyclic.setdefault(frozenset(map(_key, powers)), powers)
    by_size = sorted(cyclic.values(), key=len, reverse=True)
    for count in range(1, 5):
        for factors in itertools.combinations(by_size, count):
            if math.prod(len(f) for f in factors) != len(operators):
                continue
            products = [functools.reduce(np.matmul, choice) for choice in itertools.product(*factors)]
            if len({_key(p) for p in products}) == len(operators):
                return [list(f) for f in reversed(factors)]
    return [list(operators)]


def coset_representatives(operators: np.ndarray, subgroup: np.ndarray) -> np.ndarray:
    """Return operators r ``[m, 3, 3]`` such that every operator is ``h @ r`` for one r and one h of the subgroup."""
    covered: set[bytes] = set()
    representatives = []
    for g in operators:
        if _key(g) not in covered:
            representatives.append(g)
            covered.update(_key(h @ g) for h in subgroup)
    return np.stack(representatives)


def symmetrise_volume(volume: np.ndarray, group: str) -> np.ndarray:
    """Return the average of a map over its symmetry group, float32 ``[z, y, x]``.

    Operators that permute and flip axes (all of O, the two-folds of D and I, ...) move voxels onto voxels. They need no
    interpolation and are exact to float32 rounding. For them the map is periodic. In an even box the first plane
    (index 0) has no opposite plane, so it is mapped onto itself. Other operators are applied by cubic splines, and the
    map is zero outside its box.

    Parameters
    ----------
    volume : array ``[z, y, x]``
        A cube. The axes of symmetry go through voxel ``n // 2``.
    group : str
        See :func:`cryopipe.imaging.symmetry.symmetry_operators`.

    Raises
    ------
    InputError
        The volume is not a cube, or the group is unknown.
    """
    cube_box(volume)
    operators = symmetry_operators(group)
    exact = operators[is_signed_permutation(operators)]
    # G = H r means G = r⁻¹ H. The sum of f(r⁻¹ x) over the cosets, then summed over x -> h x, has every f(g x) once.
    representatives = coset_representatives(operators, exact).transpose(0, 2, 1)
    result = np.array(volume, dtype=np.float32)
    if len(representatives) > 1:
        spline = ndimage.spline_filter(result, order=3, output=np.float32)
        for g in representatives[1:]:
            result += apply_affine(spline, g, (0.0, 0.0, 0.0), len(result))
        result *= np.float32(1.0 / len(representatives))
    for factor in exact_factors(exact):
        total = result.copy()
        for g in factor[1:]:
            total += apply_signed_permutation(result, g)
        result = total * np.float32(1.0 / len(factor))
    return result


def apply_signed_permutation(volume: np.ndarray, operator: np.ndarray) -> np.ndarray:
    """Return f(g x) for a signed permutation g of (x, y, z): swap and flip axes about ``n // 2``, periodically."""
    # Axis 0 of the array is z: reverse the operator to array order.
    order = np.asarray(operator)[::-1, ::-1]
    source = np.abs(order).argmax(axis=1)  # (g x)[i] = sign · x[source[i]]
    signs = order[np.arange(3), source]
    result = volume
    for axis in range(3):
        if signs[axis] < 0:
            result = np.flip(result, axis)
            if volume.shape[axis] % 2 == 0:
                result = np.roll(result, 1, axis)
    # Axis i of the source runs along axis source[i] of the result.
    return np.transpose(result, np.argsort(source))
