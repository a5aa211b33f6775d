"""Checks of the kernels that work on a Fourier cube.

The cube is linear in k, so trilinear interpolation is exact and closed formulas give the right results.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.kernels import orbits, pose_steps, poses, slices
from cryopipe.selftest.row import Check, Mover, host

#: box, padding and radius of the small test problem
BOX, PADDING, RADIUS = 48, 2, 20


@dataclass(frozen=True)
class _Scene:
    """A half cube V(q) = 1 + i g.q (Hermitian, linear), random poses and images."""

    slope: np.ndarray
    cube: np.ndarray
    kx: np.ndarray
    ky: np.ndarray
    rotations: np.ndarray
    images: np.ndarray
    ctf: np.ndarray
    shifts: np.ndarray

    @property
    def positions(self) -> np.ndarray:
        """Padded 3D frequencies [n, K, 3] of the samples."""
        in_plane = self.rotations[:, :2].astype(np.float64)
        return PADDING * (self.kx[:, None] * in_plane[:, None, 0] + self.ky[:, None] * in_plane[:, None, 1])

    @property
    def slices(self) -> np.ndarray:
        """The exact slices [n, K]."""
        return 1 + 1j * self.positions @ self.slope


def _scene() -> _Scene:
    rng = np.random.default_rng(1)
    n, padded = 4, PADDING * RADIUS + 1
    ky, kx = (a.ravel() for a in np.mgrid[-RADIUS : RADIUS + 1, 0 : RADIUS + 1])
    inside = (kx**2 + ky**2 <= RADIUS**2) & ((kx > 0) | (ky > 0))
    kx, ky = kx[inside].astype(np.int32), ky[inside].astype(np.int32)
    kx.flags.writeable = ky.flags.writeable = False  # as in the steps, so that the same compiled code is checked
    slope = np.array([0.021, -0.034, 0.017])
    q = np.arange(-padded, padded + 1)
    cube = 1 + 1j * (slope[2] * q[:, None, None] + slope[1] * q[:, None] + slope[0] * q[padded:])
    matrices = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0]
    matrices *= np.sign(np.linalg.det(matrices))[:, None, None]
    return _Scene(
        slope=slope,
        cube=cube.astype(np.complex64),
        kx=kx,
        ky=ky,
        rotations=matrices.astype(np.float32),
        images=(rng.standard_normal((n, kx.size)) + 1j * rng.standard_normal((n, kx.size))).astype(np.complex64),
        ctf=rng.uniform(-1, 1, (n, kx.size)).astype(np.float32),
        shifts=rng.uniform(-3, 3, (n, 2)),
    )


def _extraction_error(move: Mover) -> float:
    s = _scene()
    got = slices.extract_slices(move(s.cube), move(s.rotations), move(s.kx), move(s.ky), padding=PADDING)
    return float(np.abs(host(got) - s.slices).max() / np.abs(s.slices).max())


def _adjoint_error(move: Mover) -> float:
    """Compare <P V, S> from the formula with <V, P^T S> from insertion, and check the sum of the weights."""
    s = _scene()
    numerator, weight = move(np.zeros_like(s.cube)), move(np.zeros(s.cube.shape, np.float32))
    weights = np.abs(s.ctf)
    slices.insert_slices(
        numerator, weight, move(s.rotations), move(s.images), move(weights), move(s.kx), move(s.ky), padding=PADDING
    )
    count = np.full(s.cube.shape, 2.0)
    count[:, :, 0] = 1
    left = 2 * np.sum((np.conj(s.slices) * s.images).real)
    right = np.sum(count * (np.conj(s.cube) * host(numerator)).real)
    adjoint = abs(left - right) / (np.linalg.norm(s.slices) * np.linalg.norm(s.images))
    total = abs((count * host(weight)).sum() / (2 * weights.sum(dtype=np.float64)) - 1)
    return float(max(adjoint, total))


def _orbit_error(move: Mover) -> float:
    """Sum over the 2-fold axis on z: 1 + i g.q and its copy add up to 2 + 2 i g_z q_z."""
    s = _scene()
    padded = s.cube.shape[2] - 1
    numerator, weight = move(s.cube.copy()), move(np.ones(s.cube.shape, np.float32))
    orbits.sum_over_orbits(numerator, weight, np.array([np.eye(3), np.diag([-1, -1, 1])], dtype=np.int64))
    expected = 2 + 2j * s.slope[2] * np.arange(-padded, padded + 1)[:, None, None]
    error = np.abs(host(numerator) - expected).max() / np.abs(expected).max()
    return float(max(error, np.abs(host(weight) / 2 - 1).max()))


def _rotation_error(move: Mover) -> float:
    """Compare rotated copies of 1 + i g.q with 1 + i g.(c q): interpolation is exact."""
    s = _scene()
    padded = s.cube.shape[2] - 1
    total, mass = move(np.zeros_like(s.cube)), move(np.zeros(s.cube.shape, np.float32))
    orbits.add_rotated(move(s.cube), move(np.ones(s.cube.shape, np.float32)), move(s.rotations), total, mass)
    q = np.arange(-padded, padded + 1)
    turned = s.slope @ s.rotations.sum(axis=0, dtype=np.float64)
    expected = len(s.rotations) + 1j * (turned[2] * q[:, None, None] + turned[1] * q[:, None] + turned[0] * q[padded:])
    inside = q[:, None, None] ** 2 + q[:, None] ** 2 + q[padded:] ** 2 < (padded - 1) ** 2
    error = np.abs(host(total) - np.where(inside, expected, 0)).max() / np.abs(expected).max()
    return float(max(error, np.abs(host(mass) / len(s.rotations) - inside).max()))


def _normal_equations_error(move: Mover) -> float:
    """Compare with the explicit Jacobian: dY = i g.dq, with q moved by the rotation vector to first order."""
    s = _scene()
    a = PADDING * s.rotations.astype(np.float64)
    along = 1j * a @ s.slope  # derivative of Y along the padded rows of A, [n, 3]
    phase = np.exp(2j * np.pi / BOX * (s.shifts[:, :1] * s.kx + s.shifts[:, 1:] * s.ky))
    model = s.ctf * s.slices * phase
    tilt = s.ctf * phase * along[:, 2, None]
    turn = s.ctf * phase * (s.ky * along[:, 0, None] - s.kx * along[:, 1, None])
    move_x, move_y = (2j * np.pi / BOX * k * model for k in (s.kx, s.ky))
    jacobian = np.stack([-s.ky * tilt, s.kx * tilt, turn, move_x, move_y], axis=-1)
    residual = s.images - model
    hessian = np.einsum("nki,nkj->nij", jacobian.conj(), jacobian).real
    gradient = -np.einsum("nki,nk->ni", jacobian.conj(), residual).real
    value = 0.5 * (np.abs(residual) ** 2).sum(axis=1)
    got = poses.normal_equations(
        move(s.cube), move(s.images), move(s.ctf), move(np.ones(s.kx.size, np.float32)), move(s.rotations),
        move(s.shifts), move(s.kx), move(s.ky), box=BOX, padding=PADDING,
    )  # fmt: skip
    size = np.sqrt(np.einsum("nii->ni", hessian))
    errors = (
        np.abs(host(got[0]) - hessian) / (size[:, :, None] * size[:, None]),
        np.abs(host(got[1]) - gradient) / (size * np.sqrt(2 * value)[:, None]),
        np.abs(host(got[2]) / value - 1),
    )
    return float(max(e.max() for e in errors))


def _score_error(move: Mover) -> float:
    """Compare scores at seven defoci with the likelihood of C = ctf sin χ written out."""
    s = _scene()
    phase, per_A = np.tile([0.3, 1e-2, 0, 0, 0], (len(s.images), 1)), np.full(len(s.images), 2e-3)
    chi = 0.3 + (1e-2 + 2e-3 * np.arange(-3, 4))[:, None] * (s.kx**2 + s.ky**2)
    moved = s.slices * np.exp(2j * np.pi / BOX * (s.shifts[:, :1] * s.kx + s.shifts[:, 1:] * s.ky))
    model = (s.ctf * moved)[:, None] * np.sin(chi)
    expected = -0.5 * (np.abs(s.images[:, None] - model) ** 2).sum(axis=2)
    got = poses.score_defoci(
        move(s.cube), move(s.images), move(s.ctf), move(np.ones(s.kx.size, np.float32)), move(s.rotations),
        move(s.shifts), move(s.kx), move(s.ky), box=BOX, padding=PADDING, phase=move(phase), per_A=move(per_A),
        first=-3.0, step=1.0, count=7,
    )  # fmt: skip
    return float(np.abs(host(got) / expected - 1).max())


def _steps_error(move: Mover) -> float:
    """Compare the misfit of final poses with that of initial ones. Without noise no misfit remains."""
    s = _scene()
    phase = np.exp(2j * np.pi / BOX * (s.shifts[:, :1] * s.kx + s.shifts[:, 1:] * s.ky))
    images = (100 * s.ctf * s.slices * phase).astype(np.complex64)
    away = np.concatenate([s.shifts + 0.3, np.tile([100.0, 0.0, 0.0], (len(images), 1))], axis=1)
    problem = pose_steps.PoseProblem(
        move(s.cube),
        move(images),
        move(s.ctf),
        move(np.ones(s.kx.size, np.float32)),
        move(s.kx),
        move(s.ky),
        BOX,
        PADDING,
    )
    free, found = np.full(5, np.inf), []
    for evaluations in (1, 30):
        rules = pose_steps.StepRules(
            True, False, False, evaluations, 1e-3, np.array([0.05, 1.0, 10.0, 1.0, 1.0]), np.zeros(5), -free, free
        )
        start = s.rotations.astype(np.float64)
        found.append(pose_steps.refine(problem, rules, start, away, middle=start, centre=away).value)
    return float((found[1] / found[0]).max())


CHECKS = (
    Check("slices", "extraction", _extraction_error, 1e-5),
    Check("slices", "insertion (adjoint)", _adjoint_error, 1e-5),
    Check("orbits", "sums over a group", _orbit_error, 1e-5),
    Check("orbits", "rotated copies", _rotation_error, 1e-5),
    Check("poses", "normal equations", _normal_equations_error, 1e-4),
    Check("poses", "scores of defoci", _score_error, 1e-5),
    Check("pose_steps", "remaining misfit", _steps_error, 1e-5),
)
