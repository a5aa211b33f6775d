"""Central slices of a padded Fourier volume, and the adjoint: weighted insertion of slices into it.

The *centred half cube* of radius R is complex64 ``[2R+1, 2R+1, R+1]``, index ``[kz+R, ky+R, kx]`` with kx >= 0, in
units of the padded grid (``padding`` grid steps per Fourier pixel of an image). The half with kx < 0 is the complex
conjugate at -k (Friedel). On the plane kx = 0 both mates are stored and must be conjugates of each other.

The sample of image frequency (kx, ky) with the pose A is at ``padding * A^T (kx, ky, 0)``. It is interpolated trilinearly
between its 8 neighbours [1]_. If its kx < 0, its mate is read (or written) and conjugated.

Insertion is the exact adjoint. The half cube is the same as if both Friedel mates were inserted into a full cube: Samples
next to the plane kx = 0 go to their voxel *and*, conjugated, to that voxel's mate. So the half cube stays Hermitian.
With the inner product that counts each voxel of kx > 0 twice and each voxel of kx = 0 once,
``2 Re <P V, S> = <V, P^T S>``.

References
----------
.. [1] S. H. W. Scheres, RELION: implementation of a Bayesian approach to cryo-EM structure determination, J. Struct.
   Biol. 180 (2012) 519-530, doi:10.1016/j.jsb.2012.09.006.
"""

from __future__ import annotations

import numba
import numpy as np

from cryopipe.kernels._dispatch import Array, backend_of, check, check_rotations, contiguous, library


def extract_slices(
    cube: Array, rotations: Array, kx: Array, ky: Array, *, padding: float = 2, out: Array | None = None
) -> Array:
    """Return the central slices of ``cube`` at the poses ``rotations``.

    Parameters
    ----------
    cube : complex64 [2R+1, 2R+1, R+1]
        Centred half cube (see the module), NumPy or CuPy, in C order.
    rotations : float [n, 3, 3]
        Pose matrices A. Row 3 is the viewing direction.
    kx, ky : integer [K]
        Image frequencies in Fourier pixels (of the unpadded image). kx may have either sign.
    padding : float
        Grid steps of the cube per Fourier pixel of the image.
    out : complex64 [n, K], optional
        Receives the slices. By default it is allocated.

    Returns
    -------
    complex64 [n, K]

    Raises
    ------
    TypeError
        Wrong dtype, or NumPy and CuPy arrays mixed.
    ValueError
        Wrong shape, a matrix that is not a rotation, or a cube with R < ceil(padding |k|) + 1.
    """
    backend = backend_of(cube=cube, rotations=rotations, kx=kx, ky=ky, out=out)
    radius = check_cube(cube, "cube", np.complex64)
    kx, ky = check_frequencies(kx, ky, radius, padding)
    check_poses(rotations)
    rotations = contiguous(rotations, np.float32)
    shape = (rotations.shape[0], kx.size)
    if out is None:
        out = library(backend).empty(shape, dtype=np.complex64)
    check("out", out, np.complex64, shape)
    if not out.flags.c_contiguous:
        raise ValueError("out must be in C order.")
    if backend == "cuda":
        from cryopipe.kernels.cuda import slices as cuda

        cuda.extract_slices(cube, radius, rotations, kx, ky, padding, out)
        return out
    from cryopipe.kernels.cpu import slices as cpu

    if out.size:
        flat = cube.reshape(-1).view(np.float32)
        cpu.extract_slices(
            flat,
            radius,
            rotations,
            kx.astype(np.float32),
            ky.astype(np.float32),
            np.float32(padding),
            out.view(np.float32),
        )
    return out


def insert_slices(
    numerator: Array,
    weight: Array,
    rotations: Array,
    values: Array,
    weights: Array,
    kx: Array,
    ky: Array,
    *,
    padding: float = 2,
    ordered: bool = False,
) -> None:
    """Add slices to ``numerator`` and their weights to ``weight``, both **in place**: the adjoint of `extract_slices`.

    On the CPU every voxel's sum is in the order (image, pose, ky, kx). So the result is bit-identical for any number of
    threads and any division of the images into calls. On a GPU the order of atomic additions is not fixed, and the float32
    rounding differs from run to run, unless ``ordered`` is set.

    Parameters
    ----------
    numerator : complex64 [2R+1, 2R+1, R+1]
        Receives the interpolation-weighted ``values``.
    weight : float32 [2R+1, 2R+1, R+1]
        Receives the interpolation-weighted ``weights``.
    rotations : float [n, 3, 3] or [n, m, 3, 3]
        Pose matrices A, with m poses for each image (its symmetry copies).
    values : complex64 [n, K]
        Values to insert, such as C X exp(-2 pi i k t / box) / sigma^2. A sample whose weight is 0 is skipped.
    weights : float32 [n, K]
        Their weights, such as C^2 / sigma^2. They must not be negative.
    kx, ky : integer [K]
        Image frequencies in Fourier pixels with kx >= 0, without repeated pairs. The mates are implied (see the module).
    padding : float
        Grid steps of the cube per Fourier pixel of the image.
    ordered : bool
        GPU only: gather instead of scatter, which is bit-reproducible and slower. The CPU is always ordered.

    Raises
    ------
    TypeError
        Wrong dtype, or NumPy and CuPy arrays mixed.
    ValueError
        Wrong shape, a matrix that is not a rotation, kx < 0, a repeated frequency, or a cube that is too small.
    """
    backend = backend_of(
        numerator=numerator, weight=weight, rotations=rotations, values=values, weights=weights, kx=kx, ky=ky
    )
    radius = check_cube(numerator, "numerator", np.complex64)
    if check_cube(weight, "weight", np.float32) != radius:
        raise ValueError(f"weight has shape {tuple(weight.shape)} but numerator {tuple(numerator.shape)}.")
    kx, ky = check_frequencies(kx, ky, radius, padding)
    if rotations.ndim == 3:
        rotations = rotations[:, None]
    check_rotations("rotations", rotations)
    if rotations.ndim != 4:
        raise ValueError(f"rotations must have shape (n, 3, 3) or (n, m, 3, 3), not {tuple(rotations.shape)}.")
    rotations = contiguous(rotations, np.float32)
    shape = (rotations.shape[0], kx.size)
    check("values", values, np.complex64, shape)
    check("weights", weights, np.float32, shape)
    values, weights = contiguous(values, np.complex64), contiguous(weights, np.float32)
    position = position_table(kx, ky)
    if values.size == 0 or rotations.size == 0:
        return
    if backend == "cuda":
        from cryopipe.kernels.cuda import slices as cuda

        cuda.insert_slices(numerator, weight, radius, rotations, values, weights, kx, ky, position, padding, ordered)
        return
    from cryopipe.kernels.cpu import slices as cpu

    # every slab reads every row of every image, so there is only one slab per thread
    slabs = balanced_slabs(rotations.reshape(-1, 3, 3), kx, ky, padding, radius, numba.get_num_threads())
    cpu.insert_slices(
        numerator.reshape(-1).view(np.float32),
        weight.reshape(-1),
        radius,
        rotations,
        values.view(np.float32),
        weights,
        position,
        np.float32(padding),
        slabs,
    )


def check_cube(cube: Array, name: str, dtype: type) -> int:
    """Return R of a centred half cube. Refuse another dtype, shape or memory order."""
    check(name, cube, dtype, (None, None, None))
    radius = int(cube.shape[2]) - 1
    if radius < 1 or tuple(cube.shape) != (2 * radius + 1, 2 * radius + 1, radius + 1):
        raise ValueError(f"{name} must be a centred half cube (2R+1, 2R+1, R+1), not {tuple(cube.shape)}.")
    if not cube.flags.c_contiguous:
        raise ValueError(f"{name} must be in C order.")
    return radius


def check_frequencies(kx: Array, ky: Array, radius: int, padding: float) -> tuple[Array, Array]:
    """Return kx and ky as int32 after checking that every rotated sample has its 8 neighbours inside the cube.

    Parameters
    ----------
    kx, ky : integer [K]
        Image frequencies in Fourier pixels.
    radius : int
        R of the half cube.
    padding : float
        Grid steps of the cube per Fourier pixel.
    """
    for name, k in (("kx", kx), ("ky", ky)):
        if k.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integer, not {k.dtype.name}.")
    if kx.ndim != 1 or kx.shape != ky.shape:
        raise ValueError(f"kx and ky must be 1-D and of one length, not {tuple(kx.shape)} and {tuple(ky.shape)}.")
    if not padding > 0:
        raise ValueError(f"padding must be positive, not {padding}.")
    kx, ky = contiguous(kx, np.int32), contiguous(ky, np.int32)
    if kx.size:
        longest = float((kx.astype(np.int64) ** 2 + ky.astype(np.int64) ** 2).max()) ** 0.5
        if radius < np.ceil(padding * longest - 1e-9) + 1:
            raise ValueError(
                f"The cube's radius {radius} is too small for |k| = {longest:.2f} at padding {padding}: "
                f"at least {int(np.ceil(padding * longest - 1e-9)) + 1} is needed."
            )
    return kx, ky


def check_poses(rotations: Array) -> None:
    """Refuse anything but rotation matrices [n, 3, 3]."""
    check_rotations("rotations", rotations)
    if rotations.ndim != 3:
        raise ValueError(f"rotations must have shape (n, 3, 3), not {tuple(rotations.shape)}.")


def position_table(kx: Array, ky: Array) -> Array:
    """Return int32 ``[2 k_max + 1, k_max + 1]``: index of sample (ky + k_max, kx), or -1. Refuse kx < 0 and repeats."""
    xp = library(backend_of(kx=kx))
    k_max = int(max(abs(kx).max(), abs(ky).max())) if kx.size else 0
    if kx.size and int(kx.min()) < 0:
        raise ValueError("kx must not be negative. Give each sample's conjugated mate with kx >= 0.")
    table = xp.full((2 * k_max + 1, k_max + 1), -1, dtype=xp.int32)
    table[ky + k_max, kx] = xp.arange(kx.size, dtype=xp.int32)
    if int((table >= 0).sum()) != kx.size:
        raise ValueError("A frequency (kx, ky) is given twice.")
    return table


def balanced_slabs(
    rotations: np.ndarray, kx: np.ndarray, ky: np.ndarray, padding: float, radius: int, count: int
) -> np.ndarray:
    """Return borders in the absolute value of z of at most ``count`` slabs with about equally many samples.

    The borders are computed from at most 64 poses and 4096 frequencies, evenly strided. They only balance the load. Sums
    do not depend on them.

    Parameters
    ----------
    rotations : float32 [n, 3, 3]
        Poses of the slices.
    kx, ky : int32 [K]
        Their frequencies in Fourier pixels.
    padding : float
        Grid steps of the cube per Fourier pixel.
    radius : int
        R of the half cube.
    count : int
        Number of slabs.
    """
    poses = rotations[:: max(1, len(rotations) // 64)]
    step = max(1, kx.size // 4096)
    z = padding * np.abs(poses[:, 0, 2, None] * kx[::step] + poses[:, 1, 2, None] * ky[::step])
    density = np.bincount(z.astype(np.int64).ravel(), minlength=radius + 1)[: radius + 1].astype(np.float64)
    load = np.concatenate([[0.0], np.cumsum(density)])
    wanted = np.arange(1, count) / count * load[-1]
    inner = np.searchsorted(load, wanted)
    return np.unique(np.concatenate([[0], inner, [radius + 1]])).astype(np.int64)
