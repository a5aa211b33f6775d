"""The particles of a classification: masked and cropped to the mask, with their prior shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from cryopipe.errors import InputError
from cryopipe.io.mrc import image_size, parse_image_name
from cryopipe.io.star import StarTable
from cryopipe.iteration.particle_store import ParticleStore


@dataclass(frozen=True, eq=False)
class ParticleStack:
    """Particles ready to be classified.

    Attributes
    ----------
    store : ParticleStore
        The masked and cropped images, up to the finest resolution.
    prior_shift_px : float64 ``[n, 2]``
        Shift that centres each image according to the origins in the table.
    """

    store: ParticleStore
    prior_shift_px: np.ndarray

    @property
    def full_box(self) -> int:
        """Side of the images in the files."""
        return self.store.images.full_box

    def radius_at(self, resolution_A: float) -> int:
        """Return the shell of a resolution, at least 2 and at most the largest shell of the images."""
        return min(self.store.radius, max(2, int(self.store.box * self.store.pixel_size_A / resolution_A)))


def open_particle_stack(
    table: StarTable,
    *,
    max_resolution_A: float,
    mask_diameter_A: float,
    memory_bytes: int | None = None,
    threads: int = 1,
) -> ParticleStack:
    """Return the particles of a table. Images are read when they are needed.

    Images are zero outside the mask. So cropping them to the mask (plus a quarter) loses nothing, and makes each search
    cheaper by the square of the ratio.

    Parameters
    ----------
    table : StarTable
        Particles, in the order of the result.
    max_resolution_A : float
        Outermost frequency.
    mask_diameter_A : float
        Diameter of the soft circular mask.
    memory_bytes : int, optional
        Budget of the particle store.
    threads : int
        Threads that read images.

    Raises
    ------
    InputError
        There are no particles, boxes or pixel sizes differ, or there is no CTF.
    """
    if len(table) == 0:
        raise InputError("there are no particles to classify. Look at the rejection lists of the steps before.")
    pixel_A = table.single("rlnImagePixelSize")
    full_box = int(image_size(parse_image_name(table.rows["rlnImageName"].iloc[0])[1]).shape[-1])
    box = _cropped_box(full_box, mask_diameter_A / pixel_A)
    store = ParticleStore.open(
        table,
        radius=int(box * pixel_A / max_resolution_A),
        mask_diameter_A=mask_diameter_A,
        crop_box=box,
        memory_bytes=memory_bytes,
        threads=threads,
    )
    shift, rows = np.zeros((len(table), 2)), table.rows
    if {"rlnOriginXAngst", "rlnOriginYAngst"} <= set(rows.columns):
        shift = rows[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=np.float64) / pixel_A
    return ParticleStack(store, shift)


def _cropped_box(full_box: int, mask_diameter_px: float) -> int:
    box = 2 * int(np.ceil(1.25 * mask_diameter_px / 2))
    while scipy.fft.next_fast_len(box, real=True) != box:
        box += 2
    return min(box, full_box)
