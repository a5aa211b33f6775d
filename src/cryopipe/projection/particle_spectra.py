"""The particles of a search: their Fourier pixels inside a radius, with the CTF at each pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.imaging.fourier_pixels import FourierPixels, half_plane
from cryopipe.imaging.optics import CtfParameters
from cryopipe.io import star
from cryopipe.projection.particle_images import ParticleImages, check_shape, ctf_rows, particle_mask, transform


@dataclass(frozen=True)
class ParticleSpectra:
    """Orthonormal spectra of n particle images on the half-plane pixels inside a radius.

    Attributes
    ----------
    pixels : FourierPixels
        The K pixels, sorted by shell, so that the pixels of a smaller radius come first.
    values : ndarray complex64 [n, K]
        Spectra. Protein is positive, and the image's centre is pixel ``box // 2``.
    ctf : ndarray float32 [n, K]
        The CTF by which the model multiplies references (its absolute value for phase-flipped images).
    box : int
        Edge of the images in pixels.
    pixel_size_A : float
    optics_group : ndarray int32 [n]
        RELION's 1-based optics group of each image.
    """

    pixels: FourierPixels
    values: Any
    ctf: Any
    box: int
    pixel_size_A: float
    optics_group: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def crop(self, radius: int) -> ParticleSpectra:
        """Return the spectra at the pixels of shells up to ``radius``. The arrays are views."""
        pixels = self.pixels.crop(radius)
        return replace(self, pixels=pixels, values=self.values[:, : len(pixels)], ctf=self.ctf[:, : len(pixels)])

    def subset(self, index: Any) -> ParticleSpectra:
        """Return the images at ``index`` (slice, mask or integers). A slice gives views."""
        on_host = index if isinstance(index, slice) else to_numpy(index)
        return replace(self, values=self.values[index], ctf=self.ctf[index], optics_group=self.optics_group[on_host])

    def scaled(self, scale: np.ndarray) -> ParticleSpectra:
        """Return the same images with the model ``scale`` [n] times CTF times reference. The data do not change."""
        factor = array_module(self.ctf).asarray(scale, np.float32)[:, None]
        return replace(self, ctf=self.ctf * factor)

    def to_gpu(self) -> ParticleSpectra:
        """Return a copy whose values and CTFs are on the GPU."""
        import cupy

        return replace(self, values=cupy.asarray(self.values), ctf=cupy.asarray(self.ctf))

    @property
    def nbytes(self) -> int:
        """Memory of values and CTFs in bytes: 12 n K."""
        return int(self.values.nbytes + self.ctf.nbytes)


def spectra_of_images(
    images: np.ndarray,
    parameters: CtfParameters | None,
    *,
    pixel_size_A: float,
    radius: int,
    phase_flipped: bool = False,
    mask_diameter_A: float | None = None,
    threads: int = 1,
) -> ParticleSpectra:
    """Transform images that are in memory. `load_particle_spectra` does it for a table.

    Parameters
    ----------
    images : ndarray float32 [n, box, box]
        Square, even box, protein positive.
    parameters : CtfParameters or None
        One row for each image. None for images without CTF (all ones).
    pixel_size_A : float
    radius : int
        Outermost shell, Fourier pixels, at most ``box // 2 - 1``.
    phase_flipped : bool
        The images have been phase-flipped, so that the model uses |CTF|.
    mask_diameter_A : float, optional
        Soft circular mask applied to the images before the transform.
    threads : int
        CPU threads of the transforms.

    Raises
    ------
    InputError
        Images are not square, have an odd box, or contain NaN or infinity.
    """
    n, height, width = images.shape
    check_shape("images", height, width)
    pixels = half_plane(width, radius)
    values = transform(
        images, pixels, particle_mask(width, mask_diameter_A, pixel_size_A), name="images", threads=threads
    )
    factor = np.ones((n, len(pixels)), np.float32)
    if parameters is not None:
        factor = ctf_rows(parameters, pixels, pixel_size_A)
    if phase_flipped:
        factor = np.abs(factor)
    return ParticleSpectra(pixels, values, factor, width, float(pixel_size_A), np.ones(n, np.int32))


def load_particle_spectra(
    table: star.StarTable, *, radius: int, mask_diameter_A: float | None = None, threads: int = 1
) -> ParticleSpectra:
    """Read the particle images of a table and return their spectra inside a radius with their CTFs.

    The peak memory is the result's ``12 n K`` bytes plus about 8 MB for each thread. If that is too much, read blocks
    from a `cryopipe.iteration.particle_store.ParticleStore`.

    Parameters
    ----------
    table : StarTable
        As for `cryopipe.projection.particle_images.ParticleImages.of_table`.
    radius : int
        Outermost shell, Fourier pixels, at most ``box // 2 - 1``.
    mask_diameter_A : float, optional
        Diameter of a soft circular mask on the images.
    threads : int
        Threads over chunks. Their number does not change the result.

    Returns
    -------
    ParticleSpectra
        Spectra in the order of the rows of the table.

    Raises
    ------
    InputError
        See `cryopipe.projection.particle_images.ParticleImages`.
    """
    images = ParticleImages.of_table(table, mask_diameter_A=mask_diameter_A)
    pixels, rows = half_plane(images.box, radius), np.arange(len(images))
    values, factor = images.read(rows, pixels, threads=threads), images.ctf(rows, pixels)
    return ParticleSpectra(pixels, values, factor, images.box, images.pixel_size_A, images.optics_group)


def content_order(images: ParticleSpectra) -> np.ndarray:
    """Return an order of the images that depends on their content alone, int64 ``[n]``.

    Sums and products in this order give the same bits for any order of the input. The key is the bit pattern of the first
    two Fourier pixels.
    """
    key = np.ascontiguousarray(to_numpy(images.values[:, :2])).view(np.int64)
    return np.lexsort(key.T[::-1])
