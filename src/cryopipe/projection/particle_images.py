"""The particle images of a table, on disk. They are checked once, then read in any portions as spectra or as CTFs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import rfft2_centred
from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.imaging.masks import soft_circle
from cryopipe.imaging.optics import CTF_COLUMNS, CtfParameters, ctf_stack, from_table
from cryopipe.io import mrc, star

#: bytes of images that one thread reads and transforms at a time. Its working arrays take three times as much. They stay in the
#: cache of the processor (with images of 64 px this takes 0.75 times the CPU time of 8 MB)
CHUNK_BYTES = 2 << 20
_MASK_EDGE_FRACTION = 0.04
"""Width of the circular mask's cosine edge as a fraction of the box. (RELION's ``width_mask_edge`` is always 5 px.)"""


@dataclass(frozen=True, eq=False)
class ParticleImages:
    """n particle images in stacks, and their CTFs. It takes about 100 bytes of memory for each image.

    Attributes
    ----------
    box : int
        Edge in px of the images as they are used, that is after cropping to ``crop_box``.
    full_box : int
        Edge in px of the images in the stacks.
    pixel_size_A : float
    parameters : CtfParameters
        One row per image.
    flipped : ndarray bool [n]
        Images that were phase-flipped. Their model uses the absolute value of the CTF.
    optics_group : ndarray int32 [n]
        RELION's 1-based optics group of each image.
    stacks : tuple of Path
    stack, section : ndarray int32 [n], int64 [n]
        The stack of each image, and its place in the stack, zero-based.
    mask : ndarray float32 [box, box] or None
        Factor on the images before the transform.
    """

    box: int
    full_box: int
    pixel_size_A: float
    parameters: CtfParameters
    flipped: np.ndarray
    optics_group: np.ndarray
    stacks: tuple[Path, ...]
    stack: np.ndarray
    section: np.ndarray
    mask: np.ndarray | None

    @classmethod
    def of_table(
        cls, table: star.StarTable, *, mask_diameter_A: float | None = None, crop_box: int | None = None
    ) -> ParticleImages:
        """Check a table and the headers of its stacks. No image is read yet.

        Parameters
        ----------
        table : StarTable
            Kind ``particles`` with rlnImageName, the optics columns rlnImagePixelSize, rlnVoltage,
            rlnSphericalAberration, rlnAmplitudeContrast, and rlnDefocusU/V/Angle in each row. A true
            rlnCtfDataArePhaseFlipped (optics) selects the absolute value of the CTF.
        mask_diameter_A : float, optional
            Diameter of a soft circular mask on the (cropped) images.
        crop_box : int, optional
            Even edge to which images are cropped about their centre.

        Raises
        ------
        InputError
            The table is empty. The images of the stacks differ in size, are not square, or have an odd size. The pixel
            sizes of stack headers or optics groups differ by more than 0.1 %. A defocus is missing or impossible. An
            image number is outside its stack. The message names the file, the value and the remedy.
        """
        rows = table.with_optics()
        if len(rows) == 0:
            raise InputError("the particle table has no rows. Check which step rejected all particles.")
        pixel_size_A = _pixel_size(rows)
        stacks, stack, section = _places(rows)
        full_box = _check_stacks(stacks, stack, section, pixel_size_A)
        box = full_box if crop_box is None else min(crop_box, full_box)
        check_shape(str(stacks[0]), box, box)
        flipped = np.zeros(len(rows), bool)
        if "rlnCtfDataArePhaseFlipped" in rows:
            flipped = rows["rlnCtfDataArePhaseFlipped"].to_numpy(np.float64) != 0
        return cls(
            box,
            full_box,
            pixel_size_A,
            _checked_ctfs(rows),
            flipped,
            rows["rlnOpticsGroup"].to_numpy(np.int32),
            stacks,
            stack,
            section,
            particle_mask(box, mask_diameter_A, pixel_size_A),
        )

    def __len__(self) -> int:
        return len(self.stack)

    def read(self, rows: np.ndarray, pixels: FourierPixels, *, threads: int = 1) -> np.ndarray:
        """Return the spectra of the images ``rows`` at ``pixels`` of the box, complex64 ``[len(rows), K]``."""
        values = np.empty((len(rows), len(pixels)), np.complex64)
        self.read_into(values, np.arange(len(rows)), rows, pixels, threads=threads)
        return values

    def read_into(
        self, values: np.ndarray, places: np.ndarray, rows: np.ndarray, pixels: FourierPixels, *, threads: int = 1
    ) -> None:
        """Put the spectra of the images ``rows`` into the rows ``places`` of an array.

        An image's values depend neither on the other rows nor on the number of threads. Beside the array, each
        thread takes about 8 MB of memory.

        Parameters
        ----------
        values : complex64 ``[m, K]``
            Receives the spectra.
        places : int ``[n]``
            The row of ``values`` for each image.
        rows : int ``[n]``
            Rows of the images.
        pixels : FourierPixels
            Fourier pixels of the box.
        threads : int
            Threads that read and transform.

        Raises
        ------
        InputError
            An image contains NaN or infinite values, or a stack has become shorter.
        """

        def load(job: tuple[Path, np.ndarray, np.ndarray]) -> None:
            path, position, index = job
            images, _ = mrc.read_stack(path, indices=index)
            low = self.full_box // 2 - self.box // 2
            inner = slice(low, low + self.box)
            values[places[position]] = transform(
                images[:, inner, inner], pixels, self.mask, name=str(path), index=index
            )

        jobs = self._jobs(rows)
        if threads <= 1:
            for job in jobs:
                load(job)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(load, jobs))

    def ctf(self, rows: np.ndarray, pixels: FourierPixels) -> np.ndarray:
        """Return the CTFs by which the model multiplies references, float32 ``[len(rows), K]``."""
        factor = ctf_rows(self.parameters.subset(rows), pixels, self.pixel_size_A)
        flipped = self.flipped[rows]
        factor[flipped] = np.abs(factor[flipped])
        return factor

    def _jobs(self, rows: np.ndarray) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        """Divide the rows by stack and into chunks: path, positions among the rows, sections in the stack."""
        step = max(1, CHUNK_BYTES // (4 * self.full_box**2))
        order = np.lexsort((self.section[rows], self.stack[rows]))
        borders = np.flatnonzero(np.diff(self.stack[rows][order])) + 1
        for position in np.split(order, borders):
            for start in range(0, len(position), step):
                part = position[start : start + step]
                yield self.stacks[self.stack[rows[part[0]]]], part, self.section[rows[part]]


def particle_mask(box: int, diameter_A: float | None, pixel_size_A: float) -> np.ndarray | None:
    """Return the soft circular mask for images before their transform, float32 [box, box], or None without a diameter."""
    if diameter_A is None:
        return None
    radius_px = diameter_A / 2 / pixel_size_A
    if radius_px <= 0:
        raise InputError(f"the mask diameter must be positive, not {diameter_A} Å")
    return np.asarray(soft_circle(box, radius_px, edge_px=max(2.0, _MASK_EDGE_FRACTION * box)), np.float32)


def transform(
    images: np.ndarray,
    pixels: FourierPixels,
    mask: np.ndarray | None,
    *,
    name: str,
    index: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Return the spectra of images in memory at the pixels of their box, complex64 ``[n, K]``.

    Parameters
    ----------
    images : ndarray [n, box, box]
    pixels : FourierPixels
    mask : ndarray float32 [box, box] or None
        Factor on the images.
    name : str
        Source of the images, for messages.
    index : ndarray int [n], optional
        Zero-based numbers of the images in their source.
    threads : int
        CPU threads of the transforms.

    Raises
    ------
    InputError
        An image contains NaN or infinite values.
    """
    images = np.asarray(images, np.float32)
    finite = np.isfinite(images.reshape(len(images), -1).sum(axis=1, dtype=np.float64))
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        number = bad + 1 if index is None else int(index[bad]) + 1
        raise InputError(
            f"{name}: image {number} contains NaN or infinite values. Remove the particle or extract it again."
        )
    if mask is not None:
        images = images * mask
    return pixels.gather(rfft2_centred(images, threads=threads))


def ctf_rows(parameters: CtfParameters, pixels: FourierPixels, pixel_size_A: float) -> np.ndarray:
    """Return the CTFs of n images at the pixels of their box, float32 ``[n, K]``."""
    to_per_A = 1 / (pixels.box * pixel_size_A)
    return np.asarray(ctf_stack(pixels.kx * to_per_A, pixels.ky * to_per_A, parameters), np.float32)


def check_shape(name: str, height: int, width: int) -> None:
    """Refuse images that are not square or whose size is odd."""
    if height != width or width % 2 or width < 4:
        raise InputError(
            f"{name}: the images have {width} x {height} px, but searches need square images of even size. Extract the "
            "particles with another box."
        )


def _pixel_size(rows: pd.DataFrame) -> float:
    if "rlnImagePixelSize" not in rows:
        raise InputError(
            "the optics table of the particles lacks rlnImagePixelSize. Extract the particles again or add the column."
        )
    sizes = rows["rlnImagePixelSize"].to_numpy(np.float64)
    if not np.all(np.isfinite(sizes)) or sizes.min() <= 0:
        raise InputError(f"rlnImagePixelSize must be positive, not {sizes.min()} Å")
    if sizes.max() > sizes.min() * 1.001:
        raise InputError(
            f"optics groups have pixel sizes from {sizes.min():g} to {sizes.max():g} Å, which differ by more than 0.1 %. "
            "Extract all particles at one pixel size first."
        )
    return float(sizes[0])


def _places(rows: pd.DataFrame) -> tuple[tuple[Path, ...], np.ndarray, np.ndarray]:
    """Return the stacks, and for every row the number of its stack and the number of its image in the stack."""
    if "rlnImageName" not in rows:
        raise InputError("the particle table lacks rlnImageName. It has only coordinates. Extract the particles first.")
    numbers: dict[Path, int] = {}
    stack, section = np.empty(len(rows), np.int32), np.empty(len(rows), np.int64)
    for position, name in enumerate(rows["rlnImageName"]):
        index, path = mrc.parse_image_name(name)
        stack[position] = numbers.setdefault(Path(path), len(numbers))
        section[position] = index
    return tuple(numbers), stack, section


def _check_stacks(stacks: tuple[Path, ...], stack: np.ndarray, section: np.ndarray, pixel_size_A: float) -> int:
    """Return the common edge of the images in px."""
    box = 0
    last = np.full(len(stacks), -1, np.int64)
    np.maximum.at(last, stack, section)
    for path, highest in zip(stacks, last, strict=True):
        size = mrc.image_size(path)
        sections, height, width = size.shape
        if height != width:
            check_shape(str(path), height, width)
        if box and width != box:
            raise InputError(
                f"{path}: the box is {width} px, but that of {stacks[0]} is {box} px. Extract all particles with one box."
            )
        box = width
        if size.pixel_size_A and abs(size.pixel_size_A / pixel_size_A - 1) > 1e-3:
            raise InputError(
                f"{path}: the header has {size.pixel_size_A:g} Å per pixel, but rlnImagePixelSize of the table is "
                f"{pixel_size_A:g} Å. They differ by more than 0.1 %. Find out which one is right and correct the other."
            )
        if highest >= sections:
            raise InputError(
                f"{path}: the table names image {highest + 1}, but the stack has {sections}. The stack is incomplete; "
                "extract the particles again."
            )
    return box


def _checked_ctfs(rows: pd.DataFrame) -> CtfParameters:
    missing = [name for name in CTF_COLUMNS if name not in rows]
    if missing:
        raise InputError(f"the particle table lacks {', '.join(missing)}. Estimate CTFs before this step.")
    defocus = rows[["rlnDefocusU", "rlnDefocusV"]].to_numpy(np.float64)
    bad = ~np.isfinite(defocus).all(axis=1) | (defocus == 0).any(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"particle {row + 1} ({rows['rlnImageName'].iloc[row]}) has defocus U = {defocus[row, 0]:g} Å, V = "
            f"{defocus[row, 1]:g} Å. Particles without a usable defocus: {int(bad.sum())}. Estimate the CTF of their "
            "micrographs or remove them."
        )
    return from_table(rows)
