"""The independent Fourier pixels of an image inside a radius, sorted by shell. Searches and kernels use them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module


@dataclass(frozen=True, eq=False)
class FourierPixels:
    """Independent Fourier pixels of a ``box`` x ``box`` real image: kx > 0, or kx = 0 and ky > 0; no zero frequency.

    Every pixel represents itself and its Friedel mate, so that all have the same weight. Shells are ``round(|k|)``. The
    pixels are sorted by (shell, ky, kx), so that those of a smaller radius are the first :meth:`count_within` ones.

    Attributes
    ----------
    box : int
        Image length in pixels.
    radius : int
        Outermost shell. The pixels are those with |k| < radius + 0.5.
    kx, ky : int32 ``[K]``
        Signed frequencies in Fourier pixels (1 / (box · pixel size)).
    shell : int32 ``[K]``
    rfft_index : int64 ``[K]``
        Position in the flattened half spectrum ``[y, x // 2 + 1]``.
    """

    box: int
    radius: int
    kx: np.ndarray
    ky: np.ndarray
    shell: np.ndarray
    rfft_index: np.ndarray

    def __len__(self) -> int:
        return len(self.kx)

    def count_within(self, radius: int) -> int:
        """Return how many of the pixels are in shells up to ``radius``."""
        return int(np.searchsorted(self.shell, radius, side="right"))

    def crop(self, radius: int) -> FourierPixels:
        """Return the pixels of shells up to ``radius`` as views of the first part of the arrays."""
        if radius >= self.radius:
            return self
        count = self.count_within(radius)
        arrays = (self.kx[:count], self.ky[:count], self.shell[:count], self.rfft_index[:count])
        return FourierPixels(self.box, radius, *arrays)

    def gather(self, spectrum: Any) -> Any:
        """Return ``[..., K]``: the values of half spectra ``[..., y, x // 2 + 1]`` at these pixels."""
        xp = array_module(spectrum)
        expected = (self.box, self.box // 2 + 1)
        if tuple(spectrum.shape[-2:]) != expected:
            raise InputError(
                f"the shape of a half spectrum of box {self.box} must end in {expected}, but it is "
                f"{tuple(spectrum.shape)}"
            )
        flat = spectrum.reshape(*spectrum.shape[:-2], -1)
        return xp.take(flat, xp.asarray(self.rfft_index), axis=-1)

    def scatter(self, values: Any) -> Any:
        """Return half spectra ``[..., y, x // 2 + 1]`` with ``values`` ``[..., K]`` at these pixels, zero elsewhere.

        The Friedel mates in the column kx = 0 are filled too, because the inverse transform reads both halves of it.
        """
        xp = array_module(values)
        half = self.box // 2 + 1
        flat = xp.zeros((*values.shape[:-1], self.box * half), dtype=values.dtype)
        flat[..., xp.asarray(self.rfft_index)] = values
        own = np.flatnonzero(self.kx == 0)
        mates = ((-self.ky[own]) % self.box).astype(np.int64) * half
        flat[..., xp.asarray(mates)] = xp.conj(values[..., xp.asarray(own)])
        return flat.reshape(*values.shape[:-1], self.box, half)


@functools.lru_cache(maxsize=16)
def half_plane(box: int, radius: int) -> FourierPixels:
    """Return the independent Fourier pixels of a ``box`` x ``box`` image in shells 1 to ``radius``.

    Parameters
    ----------
    box : int
        Image length in pixels.
    radius : int
        Outermost shell, at most ``box // 2 - 1``. Shells beyond it are incomplete or contain the Nyquist frequency,
        whose sign is lost.

    Raises
    ------
    InputError
        The radius does not fit the box.
    """
    if not 1 <= radius <= box // 2 - 1:
        raise InputError(f"Fourier radius {radius} does not fit box {box}. It must be between 1 and {box // 2 - 1}.")
    ky, kx = np.mgrid[-radius : radius + 1, 0 : radius + 1].astype(np.int32)
    shell = np.rint(np.hypot(kx, ky)).astype(np.int32)
    keep = (shell >= 1) & (shell <= radius) & ((kx > 0) | (ky > 0))
    kx, ky, shell = kx[keep], ky[keep], shell[keep]
    order = np.lexsort((kx, ky, shell))
    kx, ky, shell = kx[order], ky[order], shell[order]
    index = (ky % box).astype(np.int64) * (box // 2 + 1) + kx
    for array in (kx, ky, shell, index):
        array.setflags(write=False)
    return FourierPixels(box, radius, kx, ky, shell, index)
