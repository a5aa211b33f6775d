"""The particles of a search: Fourier pixels inside a radius, with the CTF at each of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.imaging.fourier import rfft2_centred
from cryopipe.imaging.fourier_pixels import FourierPixels, half_plane
from cryopipe.imaging.masks import soft_circle
from cryopipe.imaging.optics import CtfParameters, ctf_stack, from_table
from cryopipe.io import mrc, star

_CHUNK_BYTES = 64 << 20
_MASK_EDGE_FRACTION = 0.04
"""Width of the circular mask's cosine edge as a share of the box (RELION's ``width_mask_edge`` is 5 px; here it "
"scales)."""


@dataclass(frozen=True)
class ParticleSpectra:
    """Orthonormal spectra of n particle images on the half-plane pixels inside a radius.

    Attributes
    ----------
    pixels : FourierPixels
        The K pixels; sorted by shell, so that a smaller radius is a prefix.
    values : ndarray complex64 [n, K]
        Spectra; protein is positive, the image's centre is pixel ``box // 2``.
    ctf : ndarray float32 [n, K]
        The CTF that the model multiplies references by (its absolute value for phase-flipped images).
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
        """Return the pixels of shells up to ``radius``; the arrays are views."""
        pixels = self.pixels.crop(radius)
        return replace(self, pixels=pixels, values=self.values[:, : len(pixels)], ctf=self.ctf[:, : len(pixels)])

    def subset(self, index: Any) -> ParticleSpectra:
        """Return the images at ``index`` (slice, mask or integers); a slice gives views."""
        on_host = index if isinstance(index, slice) else to_numpy(index)
        return replace(self, values=self.values[index], ctf=self.ctf[index], optics_group=self.optics_group[on_host])

    def scaled(self, scale: np.ndarray) -> ParticleSpectra:
        """Return the same images whose model is ``scale`` [n] times CTF times reference (the data stay as they are)."""
        factor = array_module(self.ctf).asarray(scale, np.float32)[:, None]
        return replace(self, ctf=self.ctf * factor)

    def to_gpu(self) -> ParticleSpectra:
        """Return a copy whose values and CTFs live on the GPU."""
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
    """Transform images that are in memory; `load_particle_spectra` does it for a table.

    Parameters
    ----------
    images : ndarray float32 [n, box, box]
        Square, even box, protein positive.
    parameters : CtfParameters or None
        A row an image; None for images without CTF (all ones).
    pixel_size_A : float
    radius : int
        Outermost shell, Fourier pixels, at most ``box // 2 - 1``.
    phase_flipped : bool
        The images have been phase-flipped: the model uses |CTF|.
    mask_diameter_A : float, optional
        Soft circular mask applied to the images before the transform.
    threads : int
        CPU threads of the transforms.

    Raises
    ------
    InputError
        Images are not square, of odd box, or contain NaN or infinity.
    """
    n, height, width = images.shape
    _check_shape("images", height, width)
    pixels = half_plane(width, radius)
    values = _transform(images, pixels, particle_mask(width, mask_diameter_A, pixel_size_A), threads, "images")
    factor = np.ones((n, len(pixels)), np.float32)
    if parameters is not None:
        factor = _ctf_rows(parameters, pixels, pixel_size_A)
    if phase_flipped:
        factor = np.abs(factor)
    return ParticleSpectra(pixels, values, factor, width, float(pixel_size_A), np.ones(n, np.int32))


def load_particle_spectra(
    table: star.StarTable, *, radius: int, mask_diameter_A: float | None = None, threads: int = 1
) -> ParticleSpectra:
    """Read the particle images of a table and return their spectra inside a radius with their CTFs.

    Images are read in chunks of at most 64 MB a thread, so the peak memory is the result's ``12 n K`` bytes plus
    ``threads`` chunks and their transforms.

    Parameters
    ----------
    table : StarTable
        Kind ``particles`` with rlnImageName, the optics columns rlnImagePixelSize, rlnVoltage, rlnSphericalAberration,
        rlnAmplitudeContrast, and rlnDefocusU/V/Angle a row. A true rlnCtfDataArePhaseFlipped (optics) selects |CTF|.
    radius : int
        Outermost shell, Fourier pixels, at most ``box // 2 - 1``.
    mask_diameter_A : float, optional
        Diameter of a soft circular mask on the images.
    threads : int
        Threads over chunks; no influence on the result.

    Returns
    -------
    ParticleSpectra
        In the order of the table's rows.

    Raises
    ------
    InputError
        Empty table; stacks of unequal, odd or oblong size; a pixel size in a stack's header or between optics groups
        that differs by more than 0.1 %; NaN or infinity in an image; no usable defocus; an image number outside its
        stack. The message names the file, the value and the remedy.
    """
    rows = table.with_optics()
    if len(rows) == 0:
        raise InputError("the particle table has no rows: nothing to search; check which step rejected all particles")
    pixel_size_A = _pixel_size(rows)
    stacks = _stack_rows(rows)
    box = _check_stacks(stacks, pixel_size_A)
    pixels = half_plane(box, radius)
    factor = _table_ctf(rows, pixels, pixel_size_A)
    values = np.empty((len(rows), len(pixels)), np.complex64)
    mask = particle_mask(box, mask_diameter_A, pixel_size_A)

    def load(job: tuple[Path, np.ndarray, np.ndarray]) -> None:
        path, position, index = job
        images, _ = mrc.read_stack(path, indices=index)
        values[position] = _transform(images, pixels, mask, 1, str(path), index)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(load, _jobs(stacks, box)))
    group = rows["rlnOpticsGroup"].to_numpy(np.int32)
    return ParticleSpectra(pixels, values, factor, box, pixel_size_A, group)


def content_order(images: ParticleSpectra) -> np.ndarray:
    """Return an order of the images that depends on their content alone, int64 ``[n]``.

    Sums and products that run in this order give the same bits whatever order the images were handed over in. The key
    is the bit pattern of the first two Fourier pixels.
    """
    key = np.ascontiguousarray(to_numpy(images.values[:, :2])).view(np.int64)
    return np.lexsort(key.T[::-1])


def _pixel_size(rows: pd.DataFrame) -> float:
    if "rlnImagePixelSize" not in rows:
        raise InputError(
            "the particle table's optics have no rlnImagePixelSize: extract the particles again or add the column"
        )
    sizes = rows["rlnImagePixelSize"].to_numpy(np.float64)
    if not np.all(np.isfinite(sizes)) or sizes.min() <= 0:
        raise InputError(f"rlnImagePixelSize {sizes.min()}: it must be a positive number of Å")
    if sizes.max() > sizes.min() * 1.001:
        raise InputError(
            f"optics groups have pixel sizes from {sizes.min():g} to {sizes.max():g} Å, more than 0.1 % apart: "
            "extract all particles at one pixel size first"
        )
    return float(sizes[0])


def _stack_rows(rows: pd.DataFrame) -> dict[Path, tuple[np.ndarray, np.ndarray]]:
    """Group rows by stack: path -> (positions in the table, zero-based images in the stack)."""
    if "rlnImageName" not in rows:
        raise InputError("the particle table has no rlnImageName: it has coordinates only; extract the particles first")
    found: dict[Path, tuple[list[int], list[int]]] = {}
    for position, name in enumerate(rows["rlnImageName"]):
        index, path = mrc.parse_image_name(name)
        positions, indices = found.setdefault(Path(path), ([], []))
        positions.append(position)
        indices.append(index)
    return {path: (np.array(p, np.int64), np.array(i, np.int64)) for path, (p, i) in found.items()}


def _check_stacks(stacks: dict[Path, tuple[np.ndarray, np.ndarray]], pixel_size_A: float) -> int:
    box = 0
    first = Path()
    for path, (_, indices) in stacks.items():
        size = mrc.image_size(path)
        sections, height, width = size.shape
        _check_shape(str(path), height, width)
        if box and width != box:
            raise InputError(f"{path}: box {width} px, but {first} has {box} px: extract all particles with one box")
        if not box:
            box, first = width, path
        if size.pixel_size_A and abs(size.pixel_size_A / pixel_size_A - 1) > 1e-3:
            raise InputError(
                f"{path}: the header says {size.pixel_size_A:g} Å per pixel, the table rlnImagePixelSize "
                f"{pixel_size_A:g} Å, "
                "more than 0.1 % apart: find out which is right and correct the other"
            )
        if indices.min() < 0 or indices.max() >= sections:
            raise InputError(
                f"{path}: the table asks for image {indices.max() + 1} of a stack of {sections}: the stack is "
                "incomplete"
            )
    return box


def _check_shape(name: str, height: int, width: int) -> None:
    if height != width or width % 2 or width < 4:
        raise InputError(
            f"{name}: images of {width} x {height} px; searches need square images of even size: extract with another "
            "box"
        )


def _jobs(stacks: dict[Path, tuple[np.ndarray, np.ndarray]], box: int) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
    step = max(1, _CHUNK_BYTES // (4 * box * box))
    for path, (positions, indices) in stacks.items():
        for start in range(0, len(positions), step):
            yield path, positions[start : start + step], indices[start : start + step]


def particle_mask(box: int, diameter_A: float | None, pixel_size_A: float) -> np.ndarray | None:
    """Return the soft circular mask that images are multiplied by before their transform, float32 [box, box] or None."""
    if diameter_A is None:
        return None
    radius_px = diameter_A / 2 / pixel_size_A
    if radius_px <= 0:
        raise InputError(f"mask diameter {diameter_A} Å: it must be positive")
    return np.asarray(soft_circle(box, radius_px, edge_px=max(2.0, _MASK_EDGE_FRACTION * box)), np.float32)


def _transform(
    images: np.ndarray,
    pixels: FourierPixels,
    mask: np.ndarray | None,
    threads: int,
    name: str,
    index: np.ndarray | None = None,
) -> np.ndarray:
    images = np.asarray(images, np.float32)
    finite = np.isfinite(images.reshape(len(images), -1).sum(axis=1, dtype=np.float64))
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        number = bad + 1 if index is None else int(index[bad]) + 1
        raise InputError(
            f"{name}: image {number} contains NaN or infinite values: remove the particle or extract it again"
        )
    if mask is not None:
        images = images * mask
    return pixels.gather(rfft2_centred(images, workers=threads))


def _table_ctf(rows: pd.DataFrame, pixels: FourierPixels, pixel_size_A: float) -> np.ndarray:
    needed = [
        "rlnDefocusU",
        "rlnDefocusV",
        "rlnDefocusAngle",
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnAmplitudeContrast",
    ]
    missing = [name for name in needed if name not in rows]
    if missing:
        raise InputError(f"the particle table lacks {', '.join(missing)}: estimate CTFs before this step")
    defocus = rows[["rlnDefocusU", "rlnDefocusV"]].to_numpy(np.float64)
    bad = ~np.isfinite(defocus).all(axis=1) | (defocus == 0).any(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"particle {row + 1} ({rows['rlnImageName'].iloc[row]}) has defocus U = {defocus[row, 0]:g} Å, V = "
            f"{defocus[row, 1]:g} Å; "
            f"{int(bad.sum())} particles have none: estimate the CTF of their micrographs or remove them"
        )
    factor = _ctf_rows(from_table(rows), pixels, pixel_size_A)
    if "rlnCtfDataArePhaseFlipped" in rows:
        flipped = rows["rlnCtfDataArePhaseFlipped"].to_numpy(np.float64) != 0
        factor[flipped] = np.abs(factor[flipped])
    return factor


def _ctf_rows(parameters: CtfParameters, pixels: FourierPixels, pixel_size_A: float) -> np.ndarray:
    to_per_A = 1 / (pixels.box * pixel_size_A)
    return np.asarray(ctf_stack(pixels.kx * to_per_A, pixels.ky * to_per_A, parameters), np.float32)
