"""Orientations: Euler angles, rotation matrices, rotation vectors, and the distance between orientations.

A pose is the matrix ``A = Rz(psi) · Ry(tilt) · Rz(rot)`` of RELION, Xmipp and SPIDER ("new axes in the old frame",
right-handed, ZYZ, degrees). The rows of ``A`` are the view's axes in the frame of the map. Row 3 is the viewing
direction. The image frequency (kx, ky) is at ``A.T @ (kx, ky, 0)`` of the map's transform. If g is a symmetry operator
of the map, ``A @ g`` is an equivalent pose. Vectors are (x, y, z) everywhere.

References
----------
Heymann et al. 2005, Common conventions for interchange of 3DEM data, doi:10.1016/j.jsb.2005.06.001.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cryopipe.errors import InputError


def euler_to_matrix(rot_deg: ArrayLike, tilt_deg: ArrayLike, psi_deg: ArrayLike) -> np.ndarray:
    """Return the pose matrices ``[..., 3, 3]`` float64 of ZYZ Euler angles in degrees (broadcast)."""
    phi, theta, psi = np.broadcast_arrays(
        *(np.deg2rad(np.asarray(a, dtype=np.float64)) for a in (rot_deg, tilt_deg, psi_deg))
    )
    cf, sf, ct, st, cp, sp = np.cos(phi), np.sin(phi), np.cos(theta), np.sin(theta), np.cos(psi), np.sin(psi)
    matrix = np.empty((*phi.shape, 3, 3))
    matrix[..., 0, 0] = cp * ct * cf - sp * sf
    matrix[..., 0, 1] = cp * ct * sf + sp * cf
    matrix[..., 0, 2] = -cp * st
    matrix[..., 1, 0] = -sp * ct * cf - cp * sf
    matrix[..., 1, 1] = -sp * ct * sf + cp * cf
    matrix[..., 1, 2] = sp * st
    matrix[..., 2, 0] = st * cf
    matrix[..., 2, 1] = st * sf
    matrix[..., 2, 2] = ct
    return matrix


def matrix_to_euler(matrices: ArrayLike) -> np.ndarray:
    """Return (rot, tilt, psi) in degrees, ``[..., 3]`` float64, of rotation matrices ``[..., 3, 3]``.

    Tilt is in [0, 180], rot and psi are in (-180, 180]. At tilt 0 and 180 only one angle is defined, and rot is set to 0.
    """
    a = _as_matrices(matrices)
    sine = np.hypot(a[..., 2, 0], a[..., 2, 1])
    tilt = np.arctan2(sine, a[..., 2, 2])
    # Below 1e-7 the two angles of a matrix rounded to float64 would come from rounding noise.
    pole = sine < 1e-7
    rot = np.where(pole, 0.0, np.arctan2(a[..., 2, 1], a[..., 2, 0]))
    at_pole = np.arctan2(a[..., 0, 1], np.sign(a[..., 2, 2]) * a[..., 0, 0])
    psi = np.where(pole, at_pole, np.arctan2(a[..., 1, 2], -a[..., 0, 2]))
    return np.rad2deg(np.stack([rot, tilt, psi], axis=-1))


def viewing_direction(matrices: ArrayLike) -> np.ndarray:
    """Return the unit vectors ``[..., 3]`` (x, y, z of the map) along which poses ``[..., 3, 3]`` look: row 3."""
    return _as_matrices(matrices)[..., 2, :]


def rotation_from_vector(vectors: ArrayLike) -> np.ndarray:
    """Return the rotations ``exp([w]x)`` ``[..., 3, 3]`` about the axes w by the angle |w| in radians (Rodrigues)."""
    w = np.asarray(vectors, dtype=np.float64)
    if w.shape[-1:] != (3,):
        raise InputError(f"rotation vectors must have three components in the last axis, not shape {w.shape}")
    angle2 = np.sum(w * w, axis=-1)
    angle = np.sqrt(angle2)
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    # A series is used where sin(a)/a and (1-cos(a))/a² lose digits. Its next terms are below 1e-18 there.
    first = np.where(small, 1.0 - angle2 / 6.0, np.sin(safe) / safe)
    second = np.where(small, 0.5 - angle2 / 24.0, 2.0 * np.square(np.sin(safe / 2.0) / safe))
    cross = _cross_matrix(w)
    return np.eye(3) + first[..., None, None] * cross + second[..., None, None] * (cross @ cross)


def rotation_to_vector(matrices: ArrayLike) -> np.ndarray:
    """Return the rotation vectors ``[..., 3]`` (radians, length in [0, π]) of rotation matrices ``[..., 3, 3]``."""
    quaternion = matrix_to_quaternion(matrices)
    vector = quaternion[..., 1:]
    sine = np.linalg.norm(vector, axis=-1)
    angle = 2.0 * np.arctan2(sine, quaternion[..., 0])
    factor = np.where(sine < 1e-12, 2.0, angle / np.where(sine < 1e-12, 1.0, sine))
    return vector * factor[..., None]


def quaternion_to_matrix(quaternions: ArrayLike) -> np.ndarray:
    """Return the rotation matrices ``[..., 3, 3]`` of quaternions (w, x, y, z) ``[..., 4]``, normalised first."""
    q = np.asarray(quaternions, dtype=np.float64)
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    w, v = q[..., 0], q[..., 1:]
    outer = v[..., :, None] * v[..., None, :]
    diagonal = np.square(w) - np.sum(v * v, axis=-1)
    return 2.0 * outer + diagonal[..., None, None] * np.eye(3) + 2.0 * w[..., None, None] * _cross_matrix(v)


def matrix_to_quaternion(matrices: ArrayLike) -> np.ndarray:
    """Return unit quaternions (w >= 0, x, y, z) ``[..., 4]`` of rotation matrices ``[..., 3, 3]``.

    The largest of the four squared components is taken first (Shepperd 1978, doi:10.2514/3.55767b), so that no digits
    are lost.
    """
    a = _as_matrices(matrices)
    trace = np.trace(a, axis1=-2, axis2=-1)
    diagonal = np.diagonal(a, axis1=-2, axis2=-1)
    squares = np.concatenate([trace[..., None], diagonal], axis=-1)
    axial = np.stack([a[..., 2, 1] - a[..., 1, 2], a[..., 0, 2] - a[..., 2, 0], a[..., 1, 0] - a[..., 0, 1]], axis=-1)
    # 4 q qᵀ, built from the matrix: its column with the largest diagonal element is the quaternion up to a factor.
    outer = np.empty((*trace.shape, 4, 4))
    outer[..., 0, 0] = 1.0 + trace
    outer[..., 0, 1:] = outer[..., 1:, 0] = axial
    outer[..., 1:, 1:] = a + np.swapaxes(a, -1, -2) + (1.0 - trace)[..., None, None] * np.eye(3)
    best = np.argmax(squares, axis=-1)
    q = np.take_along_axis(outer, best[..., None, None], axis=-1)[..., 0]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., :1] < 0.0, -q, q)


def random_rotations(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return ``n`` rotations ``[n, 3, 3]`` drawn uniformly from SO(3) (normal quaternions)."""
    return quaternion_to_matrix(rng.standard_normal((n, 4)))


def angular_distance_deg(a: ArrayLike, b: ArrayLike, operators: ArrayLike | None = None) -> np.ndarray:
    """Return the angle in degrees between poses ``a`` and ``b`` ``[..., 3, 3]`` (broadcast against each other).

    Parameters
    ----------
    operators : array ``[g, 3, 3]``, optional
        Symmetry of the map. The smallest angle between ``a`` and any ``b @ g`` is returned.
    """
    a, b = _as_matrices(a), _as_matrices(b)
    if operators is None:
        return _angle_deg(a, b)
    smallest = np.full(np.broadcast_shapes(a.shape, b.shape)[:-2], 180.0)
    for operator in _as_matrices(operators):
        smallest = np.minimum(smallest, _angle_deg(a, b @ operator))
    return smallest


def _angle_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # |A - B|_F = 2√2 sin(angle / 2): unlike arccos of the trace it keeps small angles exact.
    chord = np.sqrt(np.sum(np.square(a - b), axis=(-2, -1)))
    return np.rad2deg(2.0 * np.arcsin(np.clip(chord / np.sqrt(8.0), 0.0, 1.0)))


def _cross_matrix(w: np.ndarray) -> np.ndarray:
    cross = np.zeros((*w.shape[:-1], 3, 3))
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -w[..., 2], w[..., 1], -w[..., 0]
    cross[..., 1, 0], cross[..., 2, 0], cross[..., 2, 1] = w[..., 2], -w[..., 1], w[..., 0]
    return cross


def _as_matrices(matrices: ArrayLike) -> np.ndarray:
    a = np.asarray(matrices, dtype=np.float64)
    if a.shape[-2:] != (3, 3):
        raise InputError(f"rotation matrices must have shape [..., 3, 3], not {a.shape}")
    return a
