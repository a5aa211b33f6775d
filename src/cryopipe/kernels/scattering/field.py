"""The field of view of a simulated movie: images added to it, and its spectrum under the CTF, frame by frame.

With the phase χ of the CTF, a frame is (even sin χ + odd cos χ) fading + static + ice, moved by ``shift`` and blurred
along ``travel``. The spectrum of the ice is a random walk from frame to frame: ``alike`` of it stays, and √(1 - alike²)
of a new ``draw`` comes in. Both run in one thread without the GIL; a frame reads and writes its arrays once.
"""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.scattering import field as cpu


def add_image(total: np.ndarray, image: np.ndarray, top: int, left: int) -> None:
    """Add ``image`` to the periodic field ``total``.

    Parameters
    ----------
    total : float32 [Y, X]
    image : float32 [y, x]
    top, left : int
        Row and column of the field where the first pixel of the image lies; any integer.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    check_on_cpu(total=total, image=image)
    check("total", total, np.float32, (None, None))
    check("image", image, np.float32, (None, None))
    cpu.add_image(total, image, top, left)


def transfer(
    even: np.ndarray,
    odd: np.ndarray,
    *,
    sine: np.ndarray,
    cosine: np.ndarray,
    fading: np.ndarray,
    static: np.ndarray,
    ice_amplitude: np.ndarray,
    ice: np.ndarray,
    alike: np.ndarray,
    draw: np.ndarray,
    first: bool,
    fy: np.ndarray,
    fx: np.ndarray,
    shift: np.ndarray,
    travel: np.ndarray,
) -> None:
    """Turn ``even`` in place into the spectrum of a frame, and renew ``ice`` on the way.

    Parameters
    ----------
    even, odd : complex64 [y, x]
        Half spectra of the particles' two parts.
    sine, cosine : float32 [y, x]
        sin χ and cos χ, times what the camera sees.
    fading : float32 [y, x]
        What the exposure has left of the particles.
    static : complex64 [y, x]
        Spectrum of what neither moves nor fades, CTF included.
    ice_amplitude : float32 [y, x]
        Standard deviation of the real and of the imaginary part of the ice's spectrum.
    ice, draw : float32 [y, x, 2]
        The ice so far, and new normal numbers, both of standard deviation one.
    alike : float32 [y, x]
        Correlation of the ice of two frames.
    first : bool
        The first frame: all of its ice is new.
    fy, fx : float64 [y], [x]
        Frequencies, 1/px.
    shift, travel : float64 [2]
        (x, y) of the frame's motion, and of its motion while it was exposed, pixels.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    shape = (len(fy), len(fx))
    for name, array in (("even", even), ("odd", odd), ("static", static)):
        check_on_cpu(**{name: array})
        check(name, array, np.complex64, shape)
    named = {"sine": sine, "cosine": cosine, "fading": fading, "ice_amplitude": ice_amplitude, "alike": alike}
    for name, array in named.items():
        check(name, array, np.float32, shape)
    for name, array in (("ice", ice), ("draw", draw)):
        check(name, array, np.float32, (*shape, 2))
    for name, array in (("shift", shift), ("travel", travel)):
        check(name, array, np.float64, (2,))
    cpu.transfer(
        even, odd, sine, cosine, fading, static, ice_amplitude, ice, alike, draw, first, fy, fx, shift, travel
    )  # fmt: skip
