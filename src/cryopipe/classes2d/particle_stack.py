"""The particles of a classification: masked, cropped to the mask, transformed, with CTFs and prior shifts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft

from cryopipe.errors import InputError
from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.masks import soft_circle
from cryopipe.imaging.optics import ctf_stack, from_table
from cryopipe.io.mrc import image_size, parse_image_name, read_stack
from cryopipe.io.star import StarTable
from cryopipe.projection.particle_spectra import ParticleSpectra, spectra_of_images


@dataclass(frozen=True, eq=False)
class ParticleStack:
    """Particles ready to be classified.

    Attributes
    ----------
    spectra : ParticleSpectra
        Of the masked and cropped images.
    prior_shift_px : float64 ``[n, 2]``
        What the table's origins say must be applied to centre each image.
    full_box : int
        Length of the images in the file.
    """

    spectra: ParticleSpectra
    prior_shift_px: np.ndarray
    full_box: int


def load_particle_stack(
    table: StarTable, *, max_resolution_A: float, mask_diameter_A: float, threads: int = 1
) -> ParticleStack:
    """Read, mask and crop the images of a table.

    Images are zero outside the mask, so cropping them to it (plus a quarter) loses nothing and makes each search
    cheaper by the square of the ratio.

    Parameters
    ----------
    table : StarTable
        Particles, in the order wanted.
    max_resolution_A : float
        Outermost frequency.
    mask_diameter_A : float
        Diameter of the soft circular mask.

    Raises
    ------
    InputError
        No particles, different boxes or pixel sizes, or no CTF.
    """
    if len(table) == 0:
        raise InputError("there are no particles to classify: look at the rejection lists of the steps before")
    rows = table.with_optics()
    pixel_A = table.single("rlnImagePixelSize")
    names = [parse_image_name(name) for name in rows["rlnImageName"]]
    full_box = int(image_size(names[0][1]).shape[-1])
    box = _cropped_box(full_box, mask_diameter_A / pixel_A)
    radius = min(int(box * pixel_A / max_resolution_A), box // 2 - 1)
    mask = soft_circle(box, 0.5 * mask_diameter_A / pixel_A, edge_px=max(2.0, 0.04 * box))
    values = np.empty((len(rows), len(half_plane(box, radius))), dtype=np.complex64)
    for path, members in _by_stack(names).items():
        images, _ = read_stack(path, [names[i][0] for i in members])
        if images.shape[1:] != (full_box, full_box):
            raise InputError(
                f"{path}: images of {images.shape[2]} x {images.shape[1]} px among images of {full_box} px: "
                "extract all with one box"
            )
        low = full_box // 2 - box // 2
        cropped = images[:, low : low + box, low : low + box] * mask
        part = spectra_of_images(cropped, None, pixel_size_A=pixel_A, radius=radius, threads=threads)
        values[members] = part.values
    spectra = replace(
        part, values=values, ctf=_ctf_values(rows, part), optics_group=rows["rlnOpticsGroup"].to_numpy(np.int32)
    )
    shift = np.zeros((len(rows), 2))
    if {"rlnOriginXAngst", "rlnOriginYAngst"} <= set(rows.columns):
        shift = rows[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=np.float64) / pixel_A
    return ParticleStack(spectra, shift, full_box)


def _ctf_values(rows: pd.DataFrame, spectra: ParticleSpectra) -> np.ndarray:
    to_per_A = 1.0 / (spectra.box * spectra.pixel_size_A)
    kx, ky = spectra.pixels.kx * to_per_A, spectra.pixels.ky * to_per_A
    values = np.asarray(ctf_stack(kx, ky, from_table(rows)), dtype=np.float32)
    if "rlnCtfDataArePhaseFlipped" in rows:
        flipped = rows["rlnCtfDataArePhaseFlipped"].to_numpy() != 0
        values[flipped] = np.abs(values[flipped])
    return values


def _cropped_box(full_box: int, mask_diameter_px: float) -> int:
    box = 2 * int(np.ceil(1.25 * mask_diameter_px / 2))
    while scipy.fft.next_fast_len(box, real=True) != box:
        box += 2
    return min(box, full_box)


def _by_stack(names: list[tuple[int, Path]]) -> dict[Path, list[int]]:
    stacks: dict[Path, list[int]] = {}
    for position, (_, path) in enumerate(names):
        stacks.setdefault(Path(path), []).append(position)
    return stacks
