"""Fourier shell (and ring) correlation, the resolution read from it, and the correction for the mask's correlation.

Shells are one Fourier pixel wide: ``shell = round(|k|)``. Sums are in float64 over the whole transform.

References
----------
Rosenthal & Henderson 2003, doi:10.1016/j.jmb.2003.07.013 (threshold 0.143);
Chen et al. 2013, doi:10.1016/j.ultramic.2013.06.004 (phase randomisation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, fft_module, fft_workers
from cryopipe.imaging.frequencies import shell_index, shell_sum


class Resolution(float):
    """A resolution in Å, together with the place on the curve where it was read.

    Attributes
    ----------
    shell : float
        The (interpolated) shell at which the curve falls below the threshold.
    at_nyquist : bool
        The curve never falls below the threshold. The number is then the Nyquist limit, and the true resolution may be
        better.
    """

    shell: float
    at_nyquist: bool

    def __new__(cls, resolution_A: float, shell: float, at_nyquist: bool) -> Resolution:
        """Make the number. Its attributes must be set here, because a float is made in ``__new__``."""
        self = super().__new__(cls, resolution_A)
        self.shell = shell
        self.at_nyquist = at_nyquist
        return self


@dataclass(frozen=True)
class MaskedFsc:
    """The four curves of a masked FSC, float64 ``[n // 2 + 1]``, and the shell from which phases were randomised."""

    unmasked: np.ndarray
    masked: np.ndarray
    randomised: np.ndarray
    corrected: np.ndarray
    randomised_from: int


def fourier_shell_correlation(a: Any, b: Any, *, threads: int = 1) -> np.ndarray:
    """Return the correlation of two images or volumes per shell.

    Parameters
    ----------
    a, b : array
        Real arrays of equal shape. Two images give the ring correlation. If the sides are unequal, shells are counted in
        Fourier pixels of the longest side.

    Returns
    -------
    float64 ``[n // 2 + 1]``
        Index = shell in Fourier pixels. Shell 0 is the zero frequency. A shell in which ``a`` or ``b`` has no power
        gives 0.

    Raises
    ------
    InputError
        The shapes differ.
    """
    if tuple(a.shape) != tuple(b.shape):
        raise InputError(
            f"the FSC needs maps of one shape, not {tuple(a.shape)} and {tuple(b.shape)}. Resample or crop one of them."
        )
    return _correlate(_transform(a, threads), _transform(b, threads), tuple(a.shape))


def resolution_at(curve: ArrayLike, threshold: float, box: int, pixel_size_A: float) -> Resolution:
    """Return the resolution in Å at which the curve first falls below ``threshold``, linear between shells.

    Parameters
    ----------
    curve : array ``[n // 2 + 1]``
        FSC per shell. Shell 0 is taken as 1.
    threshold : float
        0.143 between half maps, 0.5 between a map and a model.
    box : int
        Box length in pixels.
    pixel_size_A : float
        Å per pixel.

    Returns
    -------
    Resolution
        A float (Å). If the curve never falls below the threshold, it is the last shell's resolution, and ``at_nyquist``
        is True. If the curve is below the threshold from the first shell, it is the box length.

    Raises
    ------
    InputError
        The curve contains NaN or is empty.
    """
    values = np.array(curve, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.all(np.isfinite(values)):
        raise InputError(
            "an FSC curve needs finite values in at least two shells. Check whether a map is empty or NaN."
        )
    values[0] = 1.0
    below = np.flatnonzero(values < threshold)
    if len(below) == 0:
        last = len(values) - 1
        return Resolution(box * pixel_size_A / last, float(last), True)
    first = int(below[0])
    if first == 0:
        return Resolution(box * pixel_size_A, 1.0, False)
    fraction = (values[first - 1] - threshold) / (values[first - 1] - values[first])
    shell = max(first - 1 + fraction, 1.0)
    return Resolution(box * pixel_size_A / shell, float(shell), False)


def masked_fsc(
    half1: Any, half2: Any, mask: Any, rng: np.random.Generator, *, randomise_below: float = 0.8, threads: int = 1
) -> MaskedFsc:
    """Return the FSC of two masked half maps, corrected for the correlation that the mask causes.

    The phases of both halves are randomised (independently) beyond the last shell in which the unmasked FSC reaches
    ``randomise_below``. The correlation r that the masked, randomised halves still have comes from the mask. The
    corrected curve is the masked curve m up to that shell, and (m - r) / (1 - r) beyond it. In the first two shells
    beyond it, the corrected curve is at least the smaller of the masked and the unmasked curve.

    Randomisation does not start where the curve first falls below ``randomise_below``. The FSC of a hollow particle dips
    where its form factor has a zero. If all signal beyond the dip were randomised as well, the correction would miss the
    correlation that a mask spreads from that signal to higher frequencies.

    Parameters
    ----------
    half1, half2 : array ``[z, y, x]`` or ``[y, x]``
        Unfiltered half maps.
    mask : array
        Soft mask, 0 to 1, of the same shape.
    rng : numpy.random.Generator
        Source of the random phases.
    """
    if tuple(mask.shape) != tuple(half1.shape):
        raise InputError(
            f"a mask of shape {tuple(mask.shape)} does not fit maps of shape {tuple(half1.shape)}. Make both in one box."
        )
    shape = tuple(half1.shape)
    unmasked = fourier_shell_correlation(half1, half2, threads=threads)
    masked = fourier_shell_correlation(half1 * mask, half2 * mask, threads=threads)
    above = np.flatnonzero(unmasked[1:] >= randomise_below) + 1
    start = int(above[-1]) + 1 if len(above) else 1
    if start == len(unmasked):
        return MaskedFsc(unmasked, masked, masked.copy(), masked.copy(), start)
    transforms = [
        _transform(randomise_phases(half, start, rng, threads=threads) * mask, threads) for half in (half1, half2)
    ]
    randomised = _correlate(transforms[0], transforms[1], shape)
    corrected = masked.copy()
    tail, edge = slice(start, None), slice(start, start + 2)
    # The limit avoids a division by zero. With independent phases a randomised correlation of 1 does not occur.
    corrected[tail] = (masked[tail] - randomised[tail]) / np.maximum(1.0 - randomised[tail], 1e-6)
    corrected[edge] = np.maximum(corrected[edge], np.minimum(masked[edge], unmasked[edge]))
    return MaskedFsc(unmasked, masked, randomised, corrected, start)


def randomise_phases(data: Any, from_shell: int, rng: np.random.Generator, *, threads: int = 1) -> Any:
    """Return ``data`` with random phases from shell ``from_shell`` on. All amplitudes and the other phases are kept.

    The phases are those of white noise, so that the result is real without changing any amplitude.

    Parameters
    ----------
    data : ndarray [z, y, x]
        Map.
    from_shell : int
        First shell whose phases are random.
    rng : Generator
    threads : int
        CPU threads.
    """
    xp = array_module(data)
    fft = fft_module(xp)
    shape = tuple(data.shape)
    spectrum = _transform(data, threads)
    noise = fft.rfftn(xp.asarray(rng.standard_normal(shape, dtype=np.float32)), **fft_workers(xp, threads))
    noise *= xp.abs(spectrum) / xp.maximum(xp.abs(noise), xp.float32(1e-20))
    outer = xp.asarray(shell_index(shape) >= from_shell)
    result = fft.irfftn(xp.where(outer, noise, spectrum), s=shape, **fft_workers(xp, threads))
    return result.astype(xp.float32, copy=False)


def _transform(data: Any, threads: int) -> Any:
    xp = array_module(data)
    return (
        fft_module(xp)
        .rfftn(xp.asarray(data, dtype=xp.float32), **fft_workers(xp, threads))
        .astype(xp.complex64, copy=False)
    )


def _correlate(fa: Any, fb: Any, shape: tuple[int, ...]) -> np.ndarray:
    cross = shell_sum(fa.real * fb.real + fa.imag * fb.imag, shape)
    power_a = shell_sum(fa.real * fa.real + fa.imag * fa.imag, shape)
    power_b = shell_sum(fb.real * fb.real + fb.imag * fb.imag, shape)
    scale = np.sqrt(power_a * power_b)
    return np.where(scale > 0.0, cross / np.where(scale > 0.0, scale, 1.0), 0.0)
