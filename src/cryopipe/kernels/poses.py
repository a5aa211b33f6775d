"""Log-likelihoods of poses, and the normal equations of a continuous step from them (Gauss-Newton).

The model of image n, with pose A, shift t (in pixels, which centres the image), relative scale s, CTF C and grey offset
b, is

    X(k) = s C(k) Y(padding A^T k) exp(+2 pi i k.t / box) + b O(k) + noise,    Var(Re noise) = Var(Im noise) = sigma^2(k)

Y is the trilinearly interpolated half cube of :mod:`cryopipe.kernels.slices`. Its derivative is the analytic derivative
of the interpolant. O is the change of the spectrum by a grey offset of one. It does not move with the shift. The objective
is minus the log-likelihood of the half plane,

    value = sum over k of |X - model|^2 / (2 sigma^2).

**CTF.** Without ``phase``, C is the array ``ctf``. With ``phase`` [n, 5], C = ctf sin(chi),

    chi = p0 + p1 (kx^2 + ky^2) + p2 (kx^2 - ky^2) + p3 2 kx ky + p4 (kx^2 + ky^2)^2    (radians; k in Fourier pixels),

and ``ctf`` is the factor of the sine that does not change with the defocus: an envelope, or the signs by which
phase-flipped images were multiplied. Defocus terms (d, a1, a2) add ``per_A (d (kx^2 + ky^2) + a1 (kx^2 - ky^2) + a2 2 kx
ky)`` to chi. Here d is the change of the mean defocus, and (a1, a2) is the change of the astigmatism's tensor
(U - V)/2 (cos 2 alpha, sin 2 alpha), all in the unit of ``1 / per_A``. For Å, per_A = pi lambda / (box pixel size)^2.

**Parameters of a step**, in this order:

- a rotation vector w in radians that acts from the left, A <- exp([w]x) A. Its axes are those of the image: wx and wy
  tilt the view, wz turns the image in its plane.
- the shift (tx, ty) in pixels.
- on request the scale, one or three defocus terms, and the offset.

With ``H, g = hessian, gradient`` the Gauss-Newton step is ``-solve(H, g)``. H is the Fisher information, so its inverse is
the covariance of the parameters (Cramer-Rao) [1]_.

References
----------
.. [1] A. Punjani et al., cryoSPARC: algorithms for rapid unsupervised cryo-EM structure determination, Nat. Methods 14
   (2017) 290-296, doi:10.1038/nmeth.4169, for likelihoods of poses. The step is the textbook Gauss-Newton step.
"""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import Array, contiguous
from cryopipe.kernels._pose_call import implementation, prepare
from cryopipe.kernels.slices import check_poses


def normal_equations(
    cube: Array, images: Array, ctf: Array, inverse_variance: Array, rotations: Array, shifts_px: Array, kx: Array,
    ky: Array, *, box: int, padding: float = 2, scale: Array | None = None, with_scale: bool = False,
    phase: Array | None = None, per_A: Array | None = None, defocus_terms: int = 0,
    offset_spectrum: Array | None = None, offset: Array | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Return Gauss-Newton Hessian, gradient and value of minus the log-likelihood, image by image.

    Parameters
    ----------
    cube : complex64 [2R+1, 2R+1, R+1]
        Centred half cube of the reference.
    images : complex64 [n, K]
        Orthonormal spectra of the images, not shifted.
    ctf : float32 [n, K]
        Signed CTF of each image. With ``phase`` it is the factor of the sine.
    inverse_variance : float32 [K] or [n, K]
        1 / sigma^2, where sigma^2 is the variance of the real part, equal to that of the imaginary part. 0 leaves a
        frequency out.
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
        Relative scale of each image. 1 by default.
    with_scale : bool
        Add the scale as a parameter.
    phase : float64 [n, 5], optional
        Coefficients of the CTF's phase at the present defocus, see the module.
    per_A : float [n], optional
        Change of the phase per unit of defocus and (Fourier pixel)^2. It is needed for ``defocus_terms``.
    defocus_terms : {0, 1, 3}
        Add the mean defocus (1), or mean defocus and astigmatism (3), as parameters. This needs ``phase``.
    offset_spectrum : float32 [K'], optional
        O at the first K' <= K frequencies. It is zero at the others. If given, the offset is the last parameter.
    offset : float [n], optional
        Present offset. 0 by default.

    Returns
    -------
    hessian : float64 [n, p, p]
    gradient : float64 [n, p]
    value : float64 [n]
        p is 5 to 10, see the module.

    Raises
    ------
    TypeError
        Wrong dtype, or NumPy and CuPy arrays mixed.
    ValueError
        Wrong shape, a matrix that is not a rotation, or a cube that is too small.
    """
    check_poses(rotations)
    n = rotations.shape[0]
    if defocus_terms not in (0, 1, 3):
        raise ValueError(f"defocus_terms must be 0, 1 or 3, not {defocus_terms}.")
    if tuple(shifts_px.shape) != (n, 2):
        raise ValueError(f"shifts_px must have shape ({n}, 2), not {tuple(shifts_px.shape)}.")
    call = prepare(
        cube, images, ctf, inverse_variance, kx, ky, box, padding, n, scale=scale, phase=phase, per_A=per_A,
        needs_phase=defocus_terms > 0, offset_spectrum=offset_spectrum, offset=offset,
        others={"rotations": rotations, "shifts_px": shifts_px},
    )  # fmt: skip
    p = 5 + bool(with_scale) + defocus_terms + (offset_spectrum is not None)
    xp = call["xp"]
    out = (xp.zeros((n, p, p)), xp.zeros((n, p)), xp.zeros(n))
    if n == 0 or call["kx"].size == 0:
        return out
    implementation(call["backend"]).normal_equations(
        call["cube"], call["radius"], call["data"], call["ctf"], call["inverse_variance"],
        contiguous(rotations, np.float32), contiguous(shifts_px, np.float64), call["scale"], call["phase"], call["per_A"],
        call["spectrum"], call["offset"], call["kx"], call["ky"], np.float32(padding), float(box), bool(with_scale),
        int(defocus_terms), *out,
    )  # fmt: skip
    return out


def score_defoci(
    cube: Array, images: Array, ctf: Array, inverse_variance: Array, rotations: Array, shifts_px: Array, kx: Array,
    ky: Array, *, box: int, phase: Array, per_A: Array, first: float, step: float, count: int, padding: float = 2,
    scale: Array | None = None, offset_spectrum: Array | None = None, offset: Array | None = None,
) -> Array:  # fmt: skip
    """Return the log-likelihood of each image at its pose and ``count`` defocus changes first, first + step, ...

    A slice is interpolated once for all defocus changes. Other parameters are those of :func:`normal_equations`.

    Parameters
    ----------
    cube, images, ctf, inverse_variance, rotations, shifts_px, kx, ky, box, padding, scale, offset_spectrum, offset
        As for :func:`normal_equations`.
    phase, per_A : float64 [n, 5], float [n]
        The CTF's phase at a defocus change of zero, and its slope.
    first, step : float
        First change of the defocus, and the step from one change to the next.
    count : int
        Number of changes.

    Returns
    -------
    float64 [n, count]
    """
    check_poses(rotations)
    n = rotations.shape[0]
    if tuple(shifts_px.shape) != (n, 2):
        raise ValueError(f"shifts_px must have shape ({n}, 2), not {tuple(shifts_px.shape)}.")
    if count < 0:
        raise ValueError(f"count must not be negative, not {count}.")
    call = prepare(
        cube, images, ctf, inverse_variance, kx, ky, box, padding, n, scale=scale, phase=phase, per_A=per_A,
        needs_phase=True, offset_spectrum=offset_spectrum, offset=offset,
        others={"rotations": rotations, "shifts_px": shifts_px},
    )  # fmt: skip
    out = call["xp"].zeros((n, count))
    if out.size and call["kx"].size:
        implementation(call["backend"], scores=True).score_defoci(
            call["cube"], call["radius"], call["data"], call["ctf"], call["inverse_variance"],
            contiguous(rotations, np.float32), contiguous(shifts_px, np.float64), call["scale"], call["phase"],
            call["per_A"], call["spectrum"], call["offset"], call["kx"], call["ky"], np.float32(padding), float(box),
            float(first), float(step), out,
        )  # fmt: skip
    return out
