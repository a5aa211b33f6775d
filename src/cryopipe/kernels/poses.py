"""How well poses explain images, and the normal equations of a continuous step from them (Gauss-Newton).

Model of image n, with pose A, shift t (pixels, what must be applied to centre the image), relative scale s and CTF C:

    X(k) = s C(k) Y(padding A^T k) exp(+2 pi i k.t / box) + noise,    Var(Re noise) = Var(Im noise) = sigma^2(k)

Y is the trilinearly interpolated half cube of :mod:`cryopipe.kernels.slices`; its derivative is the analytic one of the
interpolant. The objective is minus the log-likelihood of the half plane,

    value = sum over k of |X - model|^2 / (2 sigma^2).

**Parameters of a step**, in this order: a rotation vector w in radians acting from the left, A <- exp([w]x) A (axes of
the image: wx and wy tilt the view, wz turns the image in its plane), the shift (tx, ty) in pixels, then, where asked
for, the scale and the defocus (in the unit of ``ctf_derivative``). With ``H, g = hessian, gradient`` the Gauss-Newton
step is ``-solve(H, g)``; H is the Fisher information, so its inverse is the covariance of the parameters (Cramer-Rao)
[1]_.

References
----------
.. [1] A. Punjani et al., cryoSPARC: algorithms for rapid unsupervised cryo-EM structure determination, Nat. Methods 14
   (2017) 290-296, doi:10.1038/nmeth.4169, for likelihoods of poses; the step is the textbook Gauss-Newton one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels._dispatch import Array, backend_of, check, check_rotations, contiguous, library
from cryopipe.kernels.slices import check_cube, check_frequencies, check_poses


def normal_equations(
    cube: Array,
    images: Array,
    ctf: Array,
    inverse_variance: Array,
    rotations: Array,
    shifts_px: Array,
    kx: Array,
    ky: Array,
    *,
    box: int,
    padding: float = 2,
    scale: Array | None = None,
    with_scale: bool = False,
    ctf_derivative: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return Gauss-Newton Hessian, gradient and value of minus the log-likelihood, image by image.

    Parameters
    ----------
    cube : complex64 [2R+1, 2R+1, R+1]
        Centred half cube of the reference.
    images : complex64 [n, K]
        Orthonormal spectra of the images, not shifted.
    ctf : float32 [n, K]
        Signed CTF of each image.
    inverse_variance : float32 [K] or [n, K]
        1 / sigma^2, sigma^2 the variance of each of real and imaginary part; 0 leaves a frequency out.
    rotations : float [n, 3, 3]
        Pose matrices A.
    shifts_px : float [n, 2]
        Shifts (x, y) in pixels that centre the images.
    kx, ky : integer [K]
        Image frequencies in Fourier pixels.
    box : int
        Side of the images in pixels.
    padding : float
        Grid steps of the cube per Fourier pixel.
    scale : float [n], optional
        Relative scale of each image; 1 where absent.
    with_scale : bool
        Add the scale as a parameter.
    ctf_derivative : float32 [n, K], optional
        dC/d(defocus); adds the defocus as the last parameter.

    Returns
    -------
    hessian : float64 [n, p, p]
    gradient : float64 [n, p]
    value : float64 [n]
        p = 5, 6 or 7: see the module.

    Raises
    ------
    TypeError
        Wrong dtype, or NumPy and CuPy arrays mixed.
    ValueError
        Wrong shape, a matrix that is no rotation, or a cube that is too small.
    """
    backend = backend_of(
        cube=cube, images=images, ctf=ctf, inverse_variance=inverse_variance, rotations=rotations, shifts_px=shifts_px,
        kx=kx, ky=ky, scale=scale, ctf_derivative=ctf_derivative,
    )  # fmt: skip
    check_poses(rotations)
    n = rotations.shape[0]
    call = _prepare(cube, images, ctf, inverse_variance, kx, ky, box, padding, scale, n)
    if tuple(shifts_px.shape) != (n, 2):
        raise ValueError(f"shifts_px must have shape ({n}, 2), not {tuple(shifts_px.shape)}.")
    if ctf_derivative is None:
        slope = call["ctf"][:, :0]
    else:
        check("ctf_derivative", ctf_derivative, np.float32, tuple(images.shape))
        slope = ctf_derivative
    p = 5 + bool(with_scale) + (ctf_derivative is not None)
    xp = call.pop("xp")
    out = (xp.zeros((n, p, p)), xp.zeros((n, p)), xp.zeros(n))
    if n == 0 or call["kx"].size == 0:
        return out
    run, _ = _implementation(backend)
    run(
        call["cube"], call["radius"], call["data"], call["ctf"], contiguous(slope, np.float32),
        call["inverse_variance"], contiguous(rotations, np.float32), contiguous(shifts_px, np.float64), call["scale"],
        call["kx"], call["ky"], call["k_max"], np.float32(padding), float(box), bool(with_scale), *out,
    )  # fmt: skip
    return out


def score_poses(
    cube: Array,
    images: Array,
    ctf: Array,
    inverse_variance: Array,
    rotations: Array,
    shifts_px: Array,
    kx: Array,
    ky: Array,
    *,
    box: int,
    padding: float = 2,
    scale: Array | None = None,
) -> Array:
    """Return the log-likelihood of candidate poses of each image (minus ``value`` of :func:`normal_equations`).

    A slice is interpolated once for all shifts of its candidate and never stored.

    Parameters
    ----------
    cube, images, ctf, inverse_variance, kx, ky, box, padding, scale
        As in :func:`normal_equations`.
    rotations : float [n, m, 3, 3]
        m candidate poses of each image.
    shifts_px : float [n, m, 2] or [n, m, s, 2]
        One shift, or s shifts, for each candidate, in pixels.

    Returns
    -------
    float64 [n, m] or [n, m, s]

    Raises
    ------
    TypeError
        Wrong dtype, or NumPy and CuPy arrays mixed.
    ValueError
        Wrong shape, a matrix that is no rotation, or a cube that is too small.
    """
    backend = backend_of(
        cube=cube, images=images, ctf=ctf, inverse_variance=inverse_variance, rotations=rotations, shifts_px=shifts_px,
        kx=kx, ky=ky, scale=scale,
    )  # fmt: skip
    check_rotations("rotations", rotations)
    if rotations.ndim != 4:
        raise ValueError(f"rotations must have shape (n, m, 3, 3), not {tuple(rotations.shape)}.")
    n, m = rotations.shape[:2]
    call = _prepare(cube, images, ctf, inverse_variance, kx, ky, box, padding, scale, n)
    if shifts_px.ndim not in (3, 4) or tuple(shifts_px.shape[:2]) != (n, m) or shifts_px.shape[-1] != 2:
        raise ValueError(f"shifts_px must have shape ({n}, {m}, 2) or ({n}, {m}, s, 2), not {tuple(shifts_px.shape)}.")
    shifts = contiguous(shifts_px, np.float64).reshape(n, m, -1, 2)
    out = call.pop("xp").zeros(shifts.shape[:3])
    if out.size and call["kx"].size:
        _, run = _implementation(backend)
        run(
            call["cube"], call["radius"], call["data"], call["ctf"], call["inverse_variance"],
            contiguous(rotations, np.float32), shifts, call["scale"], call["kx"], call["ky"], call["k_max"],
            np.float32(padding), float(box), out,
        )  # fmt: skip
    return out[:, :, 0] if shifts_px.ndim == 3 else out


def _prepare(
    cube: Array, images: Array, ctf: Array, inverse_variance: Array, kx: Array, ky: Array, box: int, padding: float,
    scale: Array | None, n: int,
) -> dict[str, Any]:  # fmt: skip
    """Check what both functions share and return it in the form of the implementations (flat float32 views)."""
    radius = check_cube(cube, "cube", np.complex64)
    kx, ky = check_frequencies(kx, ky, radius, padding)
    shape = (n, kx.size)
    check("images", images, np.complex64, shape)
    check("ctf", ctf, np.float32, shape)
    check("inverse_variance", inverse_variance, np.float32, shape if inverse_variance.ndim == 2 else shape[1:])
    if box < 1:
        raise ValueError(f"box must be positive, not {box}.")
    xp = library(backend_of(images=images))
    if scale is None:
        scale = xp.ones(n, dtype=np.float32)
    elif tuple(scale.shape) != (n,):
        raise ValueError(f"scale must have shape ({n},), not {tuple(scale.shape)}.")
    return {
        "cube": cube.reshape(-1).view(np.float32),
        "radius": radius,
        "data": contiguous(images, np.complex64).view(np.float32),
        "ctf": contiguous(ctf, np.float32),
        "inverse_variance": contiguous(inverse_variance, np.float32).reshape(-1, kx.size),
        "scale": contiguous(scale, np.float32),
        "kx": kx,
        "ky": ky,
        "k_max": int(max(abs(kx).max(), abs(ky).max())) if kx.size else 0,
        "xp": xp,
    }


def _implementation(backend: str) -> tuple[Any, Any]:
    """Return the backend's functions (normal_equations, score_poses)."""
    if backend == "cuda":
        from cryopipe.kernels.cuda import poses as cuda

        return cuda.normal_equations, cuda.score_poses
    from cryopipe.kernels.cpu import pose_scores
    from cryopipe.kernels.cpu import poses as cpu

    return cpu.normal_equations, pose_scores.score_poses
