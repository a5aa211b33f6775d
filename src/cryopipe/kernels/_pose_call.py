"""Code common to the kernels of poses: checks, and arguments in the form of the implementations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cryopipe.kernels._dispatch import Array, backend_of, check, contiguous, library
from cryopipe.kernels.slices import check_cube, check_frequencies


def prepare(
    cube: Array, images: Array, ctf: Array, inverse_variance: Array, kx: Array, ky: Array, box: int, padding: float,
    n: int, *, scale: Array | None = None, phase: Array | None = None, per_A: Array | None = None,
    needs_phase: bool = False, offset_spectrum: Array | None = None, offset: Array | None = None,
    others: Mapping[str, Array] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Check the common arguments and return them in the form of the implementations (flat float32 views).

    Parameters
    ----------
    cube, images, ctf, inverse_variance, kx, ky, box, padding, scale, phase, per_A, offset_spectrum, offset
        As for `cryopipe.kernels.poses.normal_equations`.
    n : int
        Number of images.
    needs_phase : bool
        Whether phase and its slope must be given.
    others : mapping, optional
        Further arrays, by name, that must be on the same device.
    """
    backend = backend_of(
        cube=cube, images=images, ctf=ctf, inverse_variance=inverse_variance, kx=kx, ky=ky, scale=scale, phase=phase,
        per_A=per_A, offset_spectrum=offset_spectrum, offset=offset, **(others or {}),
    )  # fmt: skip
    radius = check_cube(cube, "cube", np.complex64)
    kx, ky = check_frequencies(kx, ky, radius, padding)
    shape = (n, kx.size)
    check("images", images, np.complex64, shape)
    check("ctf", ctf, np.float32, shape)
    check("inverse_variance", inverse_variance, np.float32, shape if inverse_variance.ndim == 2 else shape[1:])
    if box < 1:
        raise ValueError(f"box must be positive, not {box}.")
    xp = library(backend)
    if phase is not None:
        check("phase", phase, np.float64, (n, 5))
    if needs_phase and (phase is None or per_A is None):
        raise ValueError("refinement of the defocus needs phase and per_A: the CTF's phase and its slope.")
    spectrum = xp.zeros(0, dtype=np.float32) if offset_spectrum is None else offset_spectrum
    check("offset_spectrum", spectrum, np.float32, (None,))
    if spectrum.size > kx.size or (offset_spectrum is not None and spectrum.size == 0):
        raise ValueError(f"offset_spectrum must hold 1 to {kx.size} frequencies, not {spectrum.size}.")
    return {
        "backend": backend,
        "xp": xp,
        "cube": cube.reshape(-1).view(np.float32),
        "radius": radius,
        "data": contiguous(images, np.complex64).view(np.float32),
        "ctf": contiguous(ctf, np.float32),
        "inverse_variance": contiguous(inverse_variance, np.float32).reshape(-1, kx.size),
        "scale": _column(xp, "scale", scale, n, 1.0),
        # turns, whose whole part a sine does not need
        "phase": xp.zeros((n, 0)) if phase is None else contiguous(phase / (2 * np.pi), np.float64),
        "per_A": _column(xp, "per_A", per_A, n, 0.0),
        "spectrum": contiguous(spectrum, np.float32),
        "offset": _column(xp, "offset", offset, n, 0.0),
        "kx": kx,
        "ky": ky,
    }


def _column(xp: Any, name: str, values: Array | None, n: int, default: float) -> Array:
    """Return values as float32 [n], or ``default`` for each image if ``values`` is None."""
    if values is None:
        return xp.full(n, default, dtype=np.float32)
    if tuple(values.shape) != (n,):
        raise ValueError(f"{name} must have shape ({n},), not {tuple(values.shape)}.")
    return contiguous(values, np.float32)


def implementation(backend: str, *, scores: bool = False) -> Any:
    """Return the module of a backend that has the normal equations, or the one that has the scores."""
    if backend == "cuda":
        from cryopipe.kernels.cuda import poses as cuda

        return cuda
    from cryopipe.kernels.cpu import pose_scores
    from cryopipe.kernels.cpu import poses as cpu

    return pose_scores if scores else cpu
