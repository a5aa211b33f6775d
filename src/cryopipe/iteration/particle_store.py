"""Particles that need not fit into memory: methods ask for blocks of rows inside a radius.

The store reads images from their stacks, transforms them, and keeps the spectra inside the requested radius, as
long as they fit a given budget. A thread reads the others again, one block ahead. CTFs are computed for each block and
never kept. They take 4 bytes and some 10 ns per Fourier pixel, which is less time than reading them would take.

Results do not depend on the budget: the borders of blocks depend on the box and the number of rows alone, and a
spectrum has the same bits whether it was kept or read again.
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
from cryopipe.io.freed_memory import return_freed_memory
from cryopipe.io.star import StarTable
from cryopipe.projection.known_centres import known_centres_A
from cryopipe.projection.particle_images import ParticleImages
from cryopipe.projection.particle_spectra import ParticleSpectra

#: bytes of spectra and CTFs in a block: some hundred images of box 250, enough to fill the products of a search
BLOCK_BYTES = 128 << 20
#: memory that a method takes in addition to what is kept, in blocks: the block, its CTFs, what is compared with it, and
#: the block that is read ahead
BLOCKS_IN_WORK = 6
#: bytes that a method keeps for each particle in addition to its spectrum: its row in the table (320 bytes with the names of its
#: image and micrograph), its CTF, and two results of a search or two poses (measured: benchmarks/particles/many_particles.py)
REMEMBERED_BYTES = 600
#: the number of images in a block is a multiple of this one, in which residuals are summed
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
        Outermost shell that will be read, Fourier pixels.
    rows : ndarray int64 [n]
        The rows of the table that are in this store, in its order.
    kept : KeptSpectra
        What is in memory. All parts of a store share it.
    table_centres_A : ndarray float64 [all rows of the table, 2]
        Shift that centres each image according to the table.
    threads : int
        Threads that read and transform. The result does not depend on it.
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
        """Check the particles of a table and return a store of all of them. No image is read yet.

        Parameters
        ----------
        table : StarTable
            As for `cryopipe.projection.particle_images.ParticleImages.of_table`.
        radius : int, optional
            Outermost shell that will be read. The default is that of the box (``box // 2 - 1``).
        mask_diameter_A : float, optional
            Diameter of a soft circular mask on the images.
        crop_box : int, optional
            Edge to which images are cropped about their centre before the mask.
        memory_bytes : int, optional
            Memory for particles: kept spectra, the blocks in work and the values that a method keeps for each particle.
            None: as much as all of them take. If the budget is too small for the last two, no spectra are kept, and the
            budget is exceeded.
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
            beside = BLOCKS_IN_WORK * BLOCK_BYTES + REMEMBERED_BYTES * len(images)
            whole = min(whole, max(0, memory_bytes - beside))
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
        """Shifts (x, y) in Å that centre the images according to the table, one row per particle of this store."""
        return self.table_centres_A[self.rows]

    @property
    def block_rows(self) -> int:
        """Number of particles in a block. It depends on the box and the largest radius only."""
        each = (_VALUE_BYTES + _CTF_BYTES) * len(half_plane(self.box, self.radius))
        return max(_ROWS, BLOCK_BYTES // each // _ROWS * _ROWS)

    def pixels(self, radius: int) -> FourierPixels:
        """Return the Fourier pixels inside a radius."""
        return half_plane(self.box, radius)

    def subset(self, rows: NDArray[np.int64]) -> ParticleStore:
        """Return the particles at ``rows`` of this store. Both stores share what is kept in memory."""
        return replace(self, rows=self.rows[rows])

    def block(self, rows: NDArray[np.int64] | slice, radius: int) -> ParticleSpectra:
        """Return the particles at ``rows`` of this store inside a radius. The caller makes sure that they fit in memory."""
        wanted = self.rows[rows]
        return self._spectra(wanted, self.kept.values(wanted, radius, self.threads), radius)

    def ctf(self, rows: NDArray[np.int64] | slice, radius: int) -> NDArray[np.float32]:
        """Return the CTFs alone of the particles at ``rows`` of this store, ``[len(rows), K]``."""
        return self.images.ctf(self.rows[rows], self.pixels(radius))

    def cuts(self, together: NDArray[np.generic] | None = None) -> list[slice]:
        """Return the blocks: slices of at most `block_rows` consecutive rows.

        Parameters
        ----------
        together : array [n], optional
            A label for each row. Rows with the same label must be neighbours, and are never divided between blocks. A
            label with more than `block_rows` rows is a block of its own.
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

        While a block is worked on, a thread reads the next one. A pass decides what is kept from then on: all spectra
        inside the largest radius if they fit the budget, otherwise as many as fit inside ``radius``. The arrays of a block
        belong to the caller, which may write into them. If the caller deletes a block before it requests the next one, only
        one of them takes memory.

        Parameters
        ----------
        radius : int
            Outermost shell.
        together : array [n], optional
            As for `cuts`.
        """
        cuts = self.cuts(together)
        self.kept.keep(radius)
        # memory of tables that were read, and of results after the previous pass
        return_freed_memory()

        def values(cut: slice) -> NDArray[np.complex64]:
            return self.kept.values(self.rows[cut], radius, self.threads)

        with ThreadPoolExecutor(1) as ahead:
            following = [ahead.submit(values, cut) for cut in cuts[:1]]
            for number, cut in enumerate(cuts):
                block = [following.pop().result()]
                following = [ahead.submit(values, after) for after in cuts[number + 1 : number + 2]]
                # CTFs are computed here and not while reading ahead: their threads must not compete with the method's.
                # No variable here holds a block while the caller works on it.
                yield cut, self._spectra(self.rows[cut], block.pop(), radius)

    def _spectra(self, rows: NDArray[np.int64], values: NDArray[np.complex64], radius: int) -> ParticleSpectra:
        pixels = self.pixels(radius)
        return ParticleSpectra(
            pixels, values, self.images.ctf(rows, pixels), self.box, self.pixel_size_A, self.images.optics_group[rows]
        )


class KeptSpectra:
    """Spectra of the first rows of a table, in one buffer of fixed size, all inside one radius.

    Several threads may use it. A lock allows one at a time. Rows are kept when they are first read. A smaller radius
    makes room for more of them, a larger one discards all, since the pixels beyond the old radius are missing.
    """

    def __init__(self, images: ParticleImages, radius: int, memory_bytes: int) -> None:
        self._images, self._largest = images, radius
        # pages of the buffer take memory only after they are written
        self._buffer = np.empty(memory_bytes // _VALUE_BYTES, np.complex64)
        self._radius = 0
        self._values = self._buffer[:0].reshape(0, 0)
        self._there = np.zeros(len(images), bool)
        self._lock = threading.Lock()

    def keep(self, radius: int) -> None:
        """Keep spectra inside ``radius`` from now on, or inside the largest radius if all of them fit."""
        whole = len(self._images) * len(half_plane(self._images.box, self._largest)) <= len(self._buffer)
        radius = self._largest if whole else radius
        with self._lock:
            if radius == self._radius:
                return
            width = len(half_plane(self._images.box, radius))
            capacity = min(len(self._images), len(self._buffer) // width)
            old, values = self._values, self._buffer[: capacity * width].reshape(capacity, width)
            if radius < self._radius:
                # front to back, so that no row is overwritten before it has moved
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
            kept = (radius <= self._radius) & (rows < len(self._values))
            new = np.unique(rows[kept & ~self._there[rows]])
            if len(new):
                whole = half_plane(self._images.box, self._radius)
                self._images.read_into(self._values, new, new, whole, threads=threads)
                self._there[new] = True
            # in portions, because a selection of rows is a copy
            places = np.flatnonzero(kept)
            for start in range(0, len(places), _ROWS):
                some = places[start : start + _ROWS]
                found[some] = self._values[rows[some], : len(pixels)]
            rest = np.flatnonzero(~kept)
            if len(rest):
                self._images.read_into(found, rest, rows[rest], pixels, threads=threads)
        return found

    @property
    def share(self) -> float:
        """Share of the rows of the table that is in memory."""
        return float(self._there.mean())

    @property
    def nbytes(self) -> int:
        """Largest memory of the spectra, bytes."""
        return int(self._buffer.nbytes)
