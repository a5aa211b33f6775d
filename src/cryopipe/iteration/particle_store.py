"""Particles that need not fit into memory: methods ask for blocks of rows inside a radius.

The store reads images from their stacks, transforms them and keeps the spectra inside the radius that is asked for, as
far as a stated budget goes; what does not fit is read again, one block ahead, by a thread. CTFs are computed for each
block, never kept: they take 4 bytes and some 10 ns per Fourier pixel, less time than reading them would.

Results do not depend on the budget: where blocks end follows from the box and the number of rows alone, and a spectrum
has the same bits whether it was kept or read again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.fourier_pixels import FourierPixels, half_plane
from cryopipe.imaging.optics import CtfParameters
from cryopipe.io.star import StarTable
from cryopipe.projection.known_centres import known_centres_A
from cryopipe.projection.particle_images import ParticleImages
from cryopipe.projection.particle_spectra import ParticleSpectra

#: bytes of spectra and CTFs in a block: some hundred images of box 250, enough to fill the products of a search
BLOCK_BYTES = 128 << 20
#: blocks' worth of memory that a method takes beside what is kept: the block, its CTFs anew, what compares them, and the
#: block that is read ahead
BLOCKS_IN_WORK = 6
#: numbers of images in a block are multiples of this one, in which residuals are summed
_ROWS = 64
_VALUE_BYTES, _CTF_BYTES = 8, 4


@dataclass(frozen=True, eq=False)
class ParticleStore:
    """Some particles of a table (make one with `ParticleStore.open`, a part of it with `subset`).

    Attributes
    ----------
    images : ParticleImages
        All images of the table.
    radius : int
        Outermost shell that will be asked for, Fourier pixels.
    rows : ndarray int64 [n]
        The rows of the table that this store gives out, in its order.
    kept : KeptSpectra
        What is in memory; shared by all parts of a store.
    table_centres_A : ndarray float64 [all rows of the table, 2]
        What centres each image as far as the table knows.
    threads : int
        Threads that read and transform; no influence on a result.
    """

    images: ParticleImages
    radius: int
    rows: NDArray[np.int64]
    kept: KeptSpectra
    table_centres_A: NDArray[np.float64]
    threads: int = 1

    @classmethod
    def open(
        cls,
        table: StarTable,
        *,
        radius: int | None = None,
        mask_diameter_A: float | None = None,
        crop_box: int | None = None,
        memory_bytes: int | None = None,
        threads: int = 1,
    ) -> ParticleStore:
        """Check a table's particles and return a store of all of them; no image is read yet.

        Parameters
        ----------
        table : StarTable
            As for `cryopipe.projection.particle_images.ParticleImages.of_table`.
        radius : int, optional
            Outermost shell that will be asked for; that of the box (``box // 2 - 1``) by default.
        mask_diameter_A : float, optional
            Diameter of a soft circular mask on the images.
        crop_box : int, optional
            Edge to which images are cropped about their centre before the mask.
        memory_bytes : int, optional
            Memory for particles: kept spectra and the blocks in work. None: as much as all of them take. A budget too
            small for the blocks keeps nothing and is exceeded by them.
        threads : int
            Threads that read and transform.

        Raises
        ------
        InputError
            `ParticleImages.of_table` or `known_centres_A` refuses the table.
        """
        images = ParticleImages.of_table(table, mask_diameter_A=mask_diameter_A, crop_box=crop_box)
        largest = images.box // 2 - 1
        radius = largest if radius is None else min(radius, largest)
        whole = _VALUE_BYTES * len(images) * len(half_plane(images.box, radius))
        if memory_bytes is not None:
            whole = min(whole, max(0, memory_bytes - BLOCKS_IN_WORK * BLOCK_BYTES))
        kept = KeptSpectra(images, radius, whole)
        centres_A = known_centres_A(table.rows, side_A=images.full_box * images.pixel_size_A)
        return cls(images, radius, np.arange(len(images)), kept, centres_A, threads)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def box(self) -> int:
        """Edge of the images in px."""
        return self.images.box

    @property
    def pixel_size_A(self) -> float:
        """Pixel size of the images."""
        return self.images.pixel_size_A

    @property
    def side_A(self) -> float:
        """Edge of the images in Å."""
        return self.images.box * self.images.pixel_size_A

    @property
    def parameters(self) -> CtfParameters:
        """CTFs of the table, one row per particle of this store."""
        return self.images.parameters.subset(self.rows)

    @property
    def centres_A(self) -> NDArray[np.float64]:
        """Shifts (x, y) in Å that centre the images as far as the table knows, one row per particle of this store."""
        return self.table_centres_A[self.rows]

    @property
    def block_rows(self) -> int:
        """Particles in a block; it follows from the box and the largest radius alone."""
        each = (_VALUE_BYTES + _CTF_BYTES) * len(half_plane(self.box, self.radius))
        return max(_ROWS, BLOCK_BYTES // each // _ROWS * _ROWS)

    def pixels(self, radius: int) -> FourierPixels:
        """Return the Fourier pixels inside a radius."""
        return half_plane(self.box, radius)

    def subset(self, rows: NDArray[np.int64]) -> ParticleStore:
        """Return the particles at ``rows`` of this store; both share what is kept in memory."""
        return replace(self, rows=self.rows[rows])

    def block(self, rows: NDArray[np.int64] | slice, radius: int) -> ParticleSpectra:
        """Return the particles at ``rows`` of this store inside a radius: a few, or as many as memory is known to hold."""
        wanted = self.rows[rows]
        return self._spectra(wanted, self.kept.values(wanted, radius, self.threads), radius)

    def ctf(self, rows: NDArray[np.int64] | slice, radius: int) -> NDArray[np.float32]:
        """Return the CTFs alone of the particles at ``rows`` of this store, ``[len(rows), K]``."""
        return self.images.ctf(self.rows[rows], self.pixels(radius))

    def cuts(self, together: NDArray[np.generic] | None = None) -> list[slice]:
        """Return where blocks begin and end: consecutive rows, `block_rows` of them at most.

        Parameters
        ----------
        together : array [n], optional
            A label for each row. Rows of one label, which must follow each other, are never parted; a label with more
            than `block_rows` rows is a block of its own.
        """
        n, most = len(self), self.block_rows
        if together is None:
            return [slice(start, min(start + most, n)) for start in range(0, n, most)]
        ends = [*(np.flatnonzero(together[1:] != together[:-1]) + 1).tolist(), n] if n else []
        cuts, start, last = [], 0, 0
        for end in ends:
            if end - start > most and last > start:
                cuts.append(slice(start, last))
                start = last
            last = end
        return [*cuts, slice(start, n)] if n else []

    def blocks(
        self, radius: int, *, together: NDArray[np.generic] | None = None
    ) -> Iterator[tuple[slice, ParticleSpectra]]:
        """Give out all particles of this store in order: (rows of the store, their spectra and CTFs inside ``radius``).

        While a block is worked on, a thread reads the next one. A pass decides what is kept from then on: everything
        inside the largest radius where that fits the budget, else what fits inside ``radius``.

        Parameters
        ----------
        radius : int
            Outermost shell.
        together : array [n], optional
            As for `cuts`.
        """
        cuts = self.cuts(together)
        self.kept.keep(radius)

        def values(cut: slice) -> NDArray[np.complex64]:
            return self.kept.values(self.rows[cut], radius, self.threads)

        with ThreadPoolExecutor(1) as ahead:
            following = [ahead.submit(values, cut) for cut in cuts[:1]]
            for number, cut in enumerate(cuts):
                found = following.pop().result()
                following = [ahead.submit(values, after) for after in cuts[number + 1 : number + 2]]
                # CTFs here: their threads and those of the method must not meet
                yield cut, self._spectra(self.rows[cut], found, radius)
                del found  # before the next but one is read

    def _spectra(self, rows: NDArray[np.int64], values: NDArray[np.complex64], radius: int) -> ParticleSpectra:
        pixels = self.pixels(radius)
        return ParticleSpectra(
            pixels, values, self.images.ctf(rows, pixels), self.box, self.pixel_size_A, self.images.optics_group[rows]
        )


class KeptSpectra:
    """Spectra of a table's first rows in one buffer of fixed size, all inside one radius.

    Several threads may use it; a lock admits one at a time. Rows are kept when they are first read. A smaller radius
    makes room for more of them, a larger one discards all, since the pixels beyond the old radius are missing.
    """

    def __init__(self, images: ParticleImages, radius: int, memory_bytes: int) -> None:
        self._images, self._largest = images, radius
        # pages of it are real once they are written
        self._buffer = np.empty(memory_bytes // _VALUE_BYTES, np.complex64)
        self._radius = 0
        self._values = self._buffer[:0].reshape(0, 0)
        self._there = np.zeros(len(images), bool)
        self._lock = threading.Lock()

    def keep(self, radius: int) -> None:
        """Keep spectra inside ``radius`` from now on, or inside the largest where all of them fit."""
        whole = len(self._images) * len(half_plane(self._images.box, self._largest)) <= len(self._buffer)
        radius = self._largest if whole else radius
        with self._lock:
            if radius == self._radius:
                return
            width = len(half_plane(self._images.box, radius))
            capacity = min(len(self._images), len(self._buffer) // width)
            old, values = self._values, self._buffer[: capacity * width].reshape(capacity, width)
            if radius < self._radius:
                # front to back, so that no row is written over before it has moved
                for row in np.flatnonzero(self._there):
                    values[row] = old[row, :width].copy()
            else:
                self._there[:] = False
            self._there[capacity:] = False
            self._values, self._radius = values, radius

    def values(self, rows: NDArray[np.int64], radius: int, threads: int) -> NDArray[np.complex64]:
        """Return the spectra of rows of the table inside a radius, complex64 ``[len(rows), K]``."""
        pixels = half_plane(self._images.box, radius)
        found = np.empty((len(rows), len(pixels)), np.complex64)
        with self._lock:
            inside = radius <= self._radius
            known = inside & self._there[rows]
            if known.any():
                found[known] = self._values[rows[known], : len(pixels)]
            kept = inside & ~known & (rows < len(self._values))
            if kept.any():
                new = rows[kept]
                self._values[new] = self._images.read(new, half_plane(self._images.box, self._radius), threads=threads)
                self._there[new] = True
                found[kept] = self._values[new, : len(pixels)]
            rest = ~known & ~kept
            if rest.any():
                found[rest] = self._images.read(rows[rest], pixels, threads=threads)
        return found

    @property
    def share(self) -> float:
        """Share of the table's rows that is in memory."""
        return float(self._there.mean())

    @property
    def nbytes(self) -> int:
        """Most memory that it takes."""
        return int(self._buffer.nbytes)
