"""Rigid alignment of one map to another: a search over all rotations, then continuous refinement.

The Fourier shells of both maps are normalised to unit power, so that the score is the voxel-weighted mean of the shell
correlations up to a resolution. For every rotation of a quasi-uniform grid an inverse Fourier transform finds the best
shift. The best candidates are refined by Gauss-Newton steps on three angles and three shifts while the resolution rises.
It is used to align a refined map with a model's density before their FSC is computed.

References
----------
Alexa 2022, Super-Fibonacci spirals, doi:10.1109/CVPR52688.2022.00811 (the grid).
Known limit: In C1 the grid step is 15°, so that the maps must agree at a resolution of a quarter of their diameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryopipe.errors import InputError
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.fourier import cube_box
from cryopipe.imaging.geometry import angular_distance_deg, quaternion_to_matrix, rotation_from_vector
from cryopipe.imaging.map_spectrum import MapSpectrum
from cryopipe.imaging.masks import radius_grid
from cryopipe.imaging.symmetry import in_asymmetric_unit, symmetry_operators
from cryopipe.imaging.transform import invert_hand, oversampling_for, rotate_volume

# Rotations over all of SO(3) in C1 (15° apart). With symmetry the grid is denser, up to 7.5° (see _grid_size).
_GRID_SIZE = 4608
# Candidates that are refined at the coarsest resolution. Each later level keeps a third of them.
_CANDIDATES = 27
# Fourier voxels, steps and smallest gain of a refinement at intermediate levels and at the end. More are only slower.
_ON_THE_WAY = (5_000, 4, 1e-3)
_AT_THE_END = (20_000, 12, 1e-7)


@dataclass(frozen=True)
class MapAlignment:
    """How a map was aligned with a reference.

    Attributes
    ----------
    aligned : float32 ``[z, y, x]``
        The moved map: inverted through its centre if ``mirrored``, turned by ``rotation``, then shifted.
    rotation : float64 ``[3, 3]``
        Acts on (x, y, z) about voxel ``n // 2``: ``aligned(x) = map(rotationᵀ (x - shift))``.
    shift_xyz_px : float64 ``[3]``
    mirrored : bool
        The other hand fits better.
    correlation : float
        Mean shell correlation, weighted by voxels, up to the requested resolution.
    other_hand_correlation : float or None
        The correlation of the other hand's best alignment, or None if the other hand was not tried.
    """

    aligned: np.ndarray
    rotation: np.ndarray
    shift_xyz_px: np.ndarray
    mirrored: bool
    correlation: float
    other_hand_correlation: float | None


@dataclass(frozen=True)
class _Pose:
    rotation: np.ndarray
    shift_box: np.ndarray  # (x, y, z) as a fraction of the box
    score: float


def align_map(
    moving: np.ndarray,
    reference: np.ndarray,
    pixel_size_A: float,
    *,
    resolution_A: float = 8.0,
    symmetry: str = "C1",
    allow_hand: bool = False,
    threads: int = 1,
) -> MapAlignment:
    """Align ``moving`` with ``reference`` by a rotation, a shift and, if allowed, a change of hand.

    Parameters
    ----------
    moving, reference : array ``[z, y, x]``
        Cubes of one shape and pixel size, float32. Density beyond 0.44 box lengths from the centre is faded out for the
        search (not in the result).
    pixel_size_A : float
        Å per voxel.
    resolution_A : float
        Resolution used at the end. Both maps should have signal up to it.
    symmetry : str
        Point group of the reference in its standard axes. It makes the search smaller and does not change the result.
    allow_hand : bool
        Try the inverted map too and keep the better one.

    Raises
    ------
    InputError
        The shapes differ, a map is empty, or the resolution is beyond Nyquist.
    """
    box = cube_box(reference)
    if moving.shape != reference.shape:
        raise InputError(
            f"maps of shape {moving.shape} and {reference.shape} cannot be aligned. Resample one of them first."
        )
    if resolution_A < 2.0 * pixel_size_A:
        raise InputError(
            f"resolution {resolution_A:g} Å is beyond Nyquist ({2 * pixel_size_A:g} Å). Give a coarser one."
        )
    operators = symmetry_operators(symmetry)
    step = (8.0 * math.pi**2 / _grid_size(operators)) ** (1.0 / 3.0)
    levels = _levels(reference, pixel_size_A, resolution_A, step)
    references = [MapSpectrum(reference, radius, threads) for radius in levels]
    results = []
    for mirrored in (False, True) if allow_hand else (False,):
        start = invert_hand(moving) if mirrored else moving
        spectra = [MapSpectrum(start, radius, threads) for radius in levels]
        results.append((_search(spectra, references, symmetry, operators, step), mirrored))
    results.sort(key=lambda entry: -entry[0].score)
    best, mirrored = results[0]
    best = _nearest_to_identity(best, operators)
    shift = best.shift_box * box
    source = invert_hand(moving) if mirrored else moving
    oversampling = oversampling_for(resolution_A, pixel_size_A)
    aligned = rotate_volume(source, best.rotation, shift_xyz_px=shift, oversampling=oversampling, threads=threads)
    other = results[1][0].score if len(results) > 1 else None
    return MapAlignment(aligned, best.rotation, shift, mirrored, best.score, other)


def rotation_grid(count: int) -> np.ndarray:
    """Return ``count`` rotations ``[count, 3, 3]`` on a super-Fibonacci spiral, which covers SO(3) evenly."""
    phi, psi = math.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(count) + 0.5
    t = s / count
    r, complement = np.sqrt(t), np.sqrt(1.0 - t)
    alpha, beta = 2.0 * np.pi * s / phi, 2.0 * np.pi * s / psi
    parts = (r * np.sin(alpha), r * np.cos(alpha), complement * np.sin(beta), complement * np.cos(beta))
    return quaternion_to_matrix(np.stack(parts, axis=-1))


def _grid_size(operators: np.ndarray) -> int:
    """Return the number of rotations over SO(3). With symmetry only one in ``len(operators)`` of them is searched."""
    return _GRID_SIZE * min(len(operators), 8)


def _levels(reference: np.ndarray, pixel_size_A: float, resolution_A: float, step: float) -> list[int]:
    """Return the Fourier radii of the search, from the resolution of one angular step to the requested resolution."""
    length = len(reference) * pixel_size_A
    finest = max(int(length / resolution_A), 4)
    # A detail of size d at the particle's edge moves by d / 2 if the view is wrong by d / diameter.
    coarsest = min(max(int(length / (_diameter_A(reference, pixel_size_A) * step)), 4), finest)
    radii = [coarsest]
    while radii[-1] < finest:
        radii.append(min(math.ceil(1.7 * radii[-1]), finest))
    return radii


def _diameter_A(volume: np.ndarray, pixel_size_A: float) -> float:
    smooth = low_pass(volume, pixel_size_A, max(20.0, 3.0 * pixel_size_A))
    dense = smooth > 0.2 * np.percentile(smooth, 99.9)
    if not dense.any():
        raise InputError("the reference map has no positive density. Invert its contrast or take another map.")
    return 2.0 * pixel_size_A * float(np.percentile(radius_grid(volume.shape)[dense], 95.0))


def _search(
    spectra: list[MapSpectrum], references: list[MapSpectrum], symmetry: str, operators: np.ndarray, step: float
) -> _Pose:
    grid = rotation_grid(_grid_size(operators))
    # g @ R and R are equivalent for a symmetric reference, so R's image of z is kept in one asymmetric unit.
    grid = np.concatenate([np.eye(3)[None], grid[in_asymmetric_unit(grid[:, :, 2], symmetry)]])
    candidates = sorted(_score_grid(spectra[0], references[0], grid), key=lambda pose: -pose.score)
    poses = _distinct(candidates, operators, math.degrees(step), _CANDIDATES)
    for moving, reference in zip(spectra, references, strict=True):
        effort = _AT_THE_END if reference is references[-1] else _ON_THE_WAY
        refined = [_refine(moving, reference, pose, *effort) for pose in poses]
        refined.sort(key=lambda pose: -pose.score)
        poses = _distinct(refined, operators, 0.2 * math.degrees(step), max(len(poses) // 3, 1))
    return poses[0]


def _score_grid(moving: MapSpectrum, reference: MapSpectrum, grid: np.ndarray) -> Iterator[_Pose]:
    """Yield for every rotation the best shift on a grid of half the shortest period, and its score."""
    size = scipy.fft.next_fast_len(2 * reference.radius + 2, real=True)
    index = tuple(reference.voxels[:, ::-1].astype(np.int64).T)
    product = np.zeros((size, size, size // 2 + 1), dtype=np.complex64)
    everything = slice(None)
    own = reference.voxels[:, 0] == 0
    mates = tuple(-reference.voxels[own][:, ::-1].astype(np.int64).T)
    for rotation in grid:
        values = moving.at(rotation, everything, order=1)
        values *= 1.0 / np.sqrt(np.mean(np.square(np.abs(values))))
        cross = reference.values * np.conj(values)
        product[index] = cross
        product[mates] = np.conj(cross[own])
        # This is the sum over both half spaces. The sum over the independent voxels is half of it.
        correlation = scipy.fft.irfftn(product, s=(size,) * 3, norm="forward")
        peak = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
        shift = (np.array(peak[::-1]) + size // 2) % size - size // 2
        yield _Pose(rotation, shift / size, 0.5 * float(correlation[peak]) / len(cross))


def _nearest_to_identity(pose: _Pose, operators: np.ndarray) -> _Pose:
    """Return the smallest rotation that is equivalent under the reference's symmetry. The shift turns with it."""
    best = operators[int(np.argmax(np.trace(operators @ pose.rotation, axis1=1, axis2=2)))]
    return _Pose(best @ pose.rotation, best @ pose.shift_box, pose.score)


def _distinct(poses: list[_Pose], operators: np.ndarray, apart_deg: float, count: int) -> list[_Pose]:
    """Keep the best poses that differ from each other by more than an angle (under the reference's symmetry)."""
    kept: list[_Pose] = []
    for pose in poses:
        # gR and R are equivalent. The operators act on the right of the transposes.
        if all(angular_distance_deg(pose.rotation.T, k.rotation.T, operators) > apart_deg for k in kept):
            kept.append(pose)
            if len(kept) == count:
                break
    return kept


def _refine(
    moving: MapSpectrum, reference: MapSpectrum, pose: _Pose, voxels: int, iterations: int, tolerance: float
) -> _Pose:
    """Move to the nearest maximum of the score by Gauss-Newton steps of rotation and shift, halved if too long."""
    chosen = slice(None, None, max(1, len(reference.voxels) // voxels))
    target = reference.values[chosen]
    k = reference.voxels[chosen]
    rotation, shift = pose.rotation, pose.shift_box
    turned = _moved(moving, rotation, shift, k, chosen)
    score = _score(target, turned)
    for _ in range(iterations):
        derivatives = _derivatives(moving, rotation, shift, k, chosen, turned)
        gradient = _real_products(derivatives, target[None])[:, 0]
        normal = _real_products(derivatives, derivatives)
        # If a true map and its noisy copy correlate by c, the gradient is c times that of noise-free maps.
        step = np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(6), gradient) / max(score, 0.2)
        limit = 0.5 / reference.radius  # radians and fractions of the box that move the finest detail by half a period
        step *= min(1.0, limit / max(np.abs(step[:3]).max(), 2.0 * np.abs(step[3:]).max(), 1e-30))
        for _halving in range(4):
            new_rotation, new_shift = rotation_from_vector(step[:3]) @ rotation, shift + step[3:]
            new_turned = _moved(moving, new_rotation, new_shift, k, chosen)
            new_score = _score(target, new_turned)
            if new_score > score:
                break
            step = 0.5 * step
        else:
            break
        gain = new_score - score
        rotation, shift, turned, score = new_rotation, new_shift, new_turned, new_score
        if gain < tolerance:
            break
    return _Pose(rotation, shift, score)


def _moved(moving: MapSpectrum, rotation: np.ndarray, shift: np.ndarray, k: np.ndarray, chosen: slice) -> np.ndarray:
    return moving.at(rotation, chosen, order=3) * np.exp(-2j * np.pi * (k @ shift))


def _score(target: np.ndarray, turned: np.ndarray) -> float:
    products = _real_products(np.stack([target, turned]), np.stack([target, turned]))
    return float(products[0, 1] / np.sqrt(products[0, 0] * products[1, 1]))


def _real_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Re⟨a_i, b_j⟩ of complex rows, summed in a fixed order (a threaded BLAS has no fixed order)."""
    rows = [np.ascontiguousarray(m, dtype=np.complex128).view(np.float64) for m in (a, b)]
    return np.einsum("ik,jk->ij", *rows)


def _derivatives(
    moving: MapSpectrum, rotation: np.ndarray, shift: np.ndarray, k: np.ndarray, chosen: slice, turned: np.ndarray
) -> np.ndarray:
    """Return the derivatives ``[6, K]`` by a small left rotation (central differences) and by the shift (analytic)."""
    rows = []
    # The step is a tenth of a Fourier voxel at the edge: small against a cell of the interpolation, large against rounding.
    epsilon = 0.1 / moving.radius
    for axis in np.eye(3) * epsilon:
        plus = _moved(moving, rotation_from_vector(axis) @ rotation, shift, k, chosen)
        minus = _moved(moving, rotation_from_vector(-axis) @ rotation, shift, k, chosen)
        rows.append((plus - minus) / (2.0 * epsilon))
    rows.extend(-2j * np.pi * k[:, axis] * turned for axis in range(3))
    return np.stack(rows)
