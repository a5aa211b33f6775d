"""Work in a small box: the spectra inside a radius are those of Fourier-cropped images, and maps need fewer voxels.

The side length in Å and the frequencies stay the same, and the pixel size grows. A map's voxels are scaled such that its
central slices stay the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.fft

from cryopipe.imaging.fourier import resample
from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.projection.particle_spectra import ParticleSpectra


def working_box(radius: int, *, largest: int, oversampling: float = 1.0) -> int:
    """Return an even box, fast to transform, with Nyquist at ``oversampling`` times the radius, at most ``largest``."""
    wanted = max(int(np.ceil(2 * oversampling * radius)), 2 * radius + 4)
    while (box := scipy.fft.next_fast_len(wanted, real=True)) % 2:
        wanted = box + 1
    return min(box, largest)


def in_box(images: ParticleSpectra, box: int) -> ParticleSpectra:
    """Return the spectra of images Fourier-cropped to ``box`` px (at least ``2 * radius + 2``). Arrays are shared.

    Shifts in px of the new images are those of the old images times ``box / images.box``.
    """
    pixels = half_plane(box, images.pixels.radius)
    return replace(images, pixels=pixels, box=box, pixel_size_A=images.pixel_size_A * images.box / box)


def resize_map(volume: np.ndarray, box: int, *, threads: int = 1) -> np.ndarray:
    """Return a map in another box of the same side length, with the same central slices, float32 ``[z, y, x]``."""
    old = volume.shape[0]
    if box == old:
        return volume
    # resample() keeps grey values. A slice is the transform over the box length, so it would scale with (new / old)^2.
    return resample(volume, (box,) * 3, centred=True, threads=threads) * np.float32((old / box) ** 2)
