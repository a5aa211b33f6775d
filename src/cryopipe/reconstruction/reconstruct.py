"""Reconstruct a volume from posed images by direct Fourier inversion: weighted insertion, symmetry, Wiener division.

Each slice adds w C X exp(-2πi k·t/box)/σ² to a numerator and w C²/σ² to a weight cube, trilinearly, at padding 2. The map is
``numerator / (weight + 1/(p³ τ²))``, where gaps between slices are bridged (`cryopipe.reconstruction.division`). It is
transformed back, cropped, and divided by the transform of the kernel. The weight is at least 1/1000 of the mean of its shell.

On the CPU the sum of each voxel has a fixed order, that of the content of the images. So neither threads nor batches nor the
order of the table change a bit. `cryopipe.reconstruction.memory` tells the memory beforehand.

References: Scheres 2012, doi:10.1016/j.jsb.2012.09.006 (eqs. 5-8, regularised reconstruction).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.kernels._memory import in_batches
from cryopipe.projection.half_cube import check_cube, cube_shape, gridding_profile, volume_from_half_cube
from cryopipe.projection.particle_spectra import ParticleSpectra, content_order
from cryopipe.projection.pose_sums import PoseSums
from cryopipe.reconstruction.division import divided_rows
from cryopipe.reconstruction.insertion import insert_copies
from cryopipe.reconstruction.memory import check_memory, images_that_fit
from cryopipe.reconstruction.prior import regulariser
from cryopipe.reconstruction.shells import shell_means, usable_means
from cryopipe.reconstruction.symmetrise import Method, SymmetryPlan, symmetrise_half_cubes, symmetry_plan
from cryopipe.reconstruction.weighting import checked_inputs, weighted_images

BATCH_BYTES = 64 << 20
"""Memory in bytes for prepared images that wait for insertion."""
WEIGHT_FLOOR = 1e-3
"""Least weight of a voxel as a share of the mean of its shell (as in RELION with skip-gridding)."""


@dataclass
class Reconstruction:
    """Accumulators of one reconstruction. Make one for each half set with `Reconstruction.empty`.

    Attributes
    ----------
    box : int
        Side of the images and of the map.
    radius : int
        Outermost shell.
    padding : int
        Sampling of the cubes.
    plan : SymmetryPlan
        How the point group is imposed.
    numerator : complex64 [2R+1, 2R+1, R+1]
    weight : float32 [2R+1, 2R+1, R+1]
    n_images : int
        Number of inserted images (or rows of sums).
    symmetrised : bool
        Whether `symmetrise` was called. Nothing can be inserted afterwards.
    pixel_size_A : float, optional
        Pixel size of the images. If it is not given, it is that of the first inserted images.
    ordered : bool
        On a GPU: insert in a fixed order (reproducible, slower) instead of by atomic additions. The CPU always does so.
    """

    box: int
    radius: int
    padding: int
    plan: SymmetryPlan
    numerator: Any
    weight: Any
    n_images: int = 0
    symmetrised: bool = False
    pixel_size_A: float | None = None
    ordered: bool = False

    @classmethod
    def empty(
        cls,
        box: int,
        radius: int,
        *,
        padding: int = 2,
        symmetry: str = "C1",
        expected_slices: int = 0,
        method: Method | None = None,
        gpu: bool = False,
        pixel_size_A: float | None = None,
        ordered: bool = False,
    ) -> Reconstruction:
        """Return empty accumulators.

        Parameters
        ----------
        box : int
            Even side of the images.
        radius : int
            Outermost shell, at most ``box // 2 - 1``.
        padding : int
            2, or 3 for more accuracy in small boxes with 3.4 times the memory.
        symmetry : str
            Point group.
        expected_slices : int
            Approximate number of slices that will be inserted. For groups whose operators are not all signed permutations
            it decides between inserting copies and interpolation (see `cryopipe.reconstruction.symmetrise`). 0 means few,
            and so copies.
        method : {"copies", "interpolation"}, optional
            Overrides that choice.
        gpu : bool
            Keep the cubes on the GPU.
        pixel_size_A : float, optional
            Images whose pixel size differs by more than 0.1 % are refused.
        ordered : bool
            GPU only: bit-reproducible insertion.

        Raises
        ------
        InputError
            Box, radius and padding do not fit together.
        DeviceError
            The cubes do not fit into the free memory. The message states what would fit.
        """
        check_cube((box, box, box), radius, padding)
        shape = cube_shape(radius, padding)
        plan = symmetry_plan(
            symmetry,
            n_slices=expected_slices,
            n_pixels=int(0.5 * np.pi * radius**2),
            cube_shape=shape,
            method=method,
        )
        check_memory(box, radius, padding=padding, interpolated=plan.rotates_volumes, gpu=gpu)
        if gpu:
            import cupy as xp
        else:
            xp = np
        return cls(
            box,
            radius,
            padding,
            plan,
            xp.zeros(shape, np.complex64),
            xp.zeros(shape, np.float32),
            pixel_size_A=pixel_size_A,
            ordered=ordered,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the accumulators, 12 (2R+1)²(R+1). This is 6.4 GB for box 512, radius 255, padding 2."""
        return int(self.numerator.nbytes + self.weight.nbytes)

    def insert(
        self,
        images: ParticleSpectra,
        rotations: np.ndarray,
        shifts_px: np.ndarray,
        inverse_sigma2: np.ndarray,
        *,
        weights: np.ndarray | None = None,
        noise_group: np.ndarray | None = None,
        batch: int | None = None,
    ) -> None:
        """Insert images at their poses. The order of the images and their division into batches change no bit.

        Parameters
        ----------
        images : ParticleSpectra
            n images of this box, with at most this radius. If the cubes are on the GPU, images of the host are moved there
            batch by batch.
        rotations : ndarray [n, 3, 3]
            Poses A.
        shifts_px : ndarray [n, 2]
            (x, y) applied to centre each image.
        inverse_sigma2 : ndarray [radius + 1] or [g, radius + 1]
            1/σ² by shell, for each noise group.
        weights : ndarray [n], [n, radius + 1] or [n, K], optional
            Factor of the contribution of each image (numerator and weight): one per image, one per shell
            (`cryopipe.reconstruction.weighting.b_factor_weights`), or one per Fourier pixel. It must not be negative.
        noise_group : ndarray int [n], optional
            Row of ``inverse_sigma2`` of each image.
        batch : int, optional
            Number of images prepared at a time. By default as many as take 64 MB, or as fit. It is halved if memory runs
            out nevertheless.

        Raises
        ------
        InputError
            Shapes, boxes or pixel sizes are wrong, or values are not finite.
        DeviceError
            Not even one image fits into the free memory.
        """
        self._check_open(images.box, images.pixels)
        pixel_size_A = self._common_pixel_size(images.pixel_size_A)
        shifts = np.asarray(shifts_px, np.float64)
        table, group, factor = checked_inputs(images, rotations, shifts, inverse_sigma2, weights, noise_group)
        order = content_order(images)
        poses, pixels = np.asarray(rotations, np.float32), images.pixels
        # in the order of insertion, so that the pixels are read one after the other
        by_row = np.lexsort((pixels.kx, pixels.ky))
        kx, ky = pixels.kx[by_row], pixels.ky[by_row]

        def insert(part: np.ndarray) -> None:
            values, information = weighted_images(
                images, part, shifts[part], table[group[part]], factor[part], by_row, like=self.numerator
            )
            self._insert((values, information), poses[part], (kx, ky))

        size = batch
        if size is None:
            wanted = max(1, BATCH_BYTES // (12 * len(images.pixels)))
            size = images_that_fit(images.pixels.radius, wanted=wanted, gpu=array_module(self.numerator) is not np)
        if size < 1:
            raise InputError(f"a batch of {size} images is not possible. Give at least 1.")
        in_batches(insert, order, size, what="image")
        self.n_images += len(images)
        self.pixel_size_A = pixel_size_A

    def insert_sums(self, sums: PoseSums, rotations: np.ndarray, pixels: FourierPixels) -> None:
        """Insert the M-step sums of a global search, one slice per state. The cost does not depend on the number of images.

        Parameters
        ----------
        sums : PoseSums
            Sums of o states.
        rotations : ndarray [o, 3, 3]
            Poses of the states.
        pixels : FourierPixels
            Fourier pixels of the images that were searched.
        """
        self._check_open(pixels.box, pixels)
        if np.shape(rotations) != (len(sums.weight), 3, 3):
            raise InputError(
                f"there are sums of {len(sums.weight)} states, but rotations {np.shape(rotations)}. Give one for each state."
            )
        self._insert((sums.numerator, sums.weight), np.asarray(rotations, np.float32), (pixels.kx, pixels.ky))
        self.n_images += sums.n_images

    def symmetrise(self) -> None:
        """Impose the point group on the accumulators. Call it once, after the last insertion."""
        if not self.symmetrised:
            self.numerator, self.weight = symmetrise_half_cubes(
                self.numerator, self.weight, self.plan, reach=self._reach(math.sqrt(3))
            )
        self.symmetrised = True

    def merged(self, other: Reconstruction, *, factor: float = 1.0, other_factor: float = 1.0) -> Reconstruction:
        """Return ``factor`` times this plus ``other_factor`` times the other, for both halves or a running average."""
        mine, theirs = (
            (one.box, one.radius, one.padding, one.plan.group, one.symmetrised or one.plan.method, one.symmetrised)
            for one in (self, other)
        )
        if mine != theirs:
            raise InputError(
                f"reconstructions with (box, radius, padding, group, method, symmetrised) {mine} and {theirs} cannot be "
                "added. Make both in the same way."
            )
        pixel_size_A = self.pixel_size_A if other.pixel_size_A is None else self._common_pixel_size(other.pixel_size_A)
        a, b = np.float32(factor), np.float32(other_factor)
        numerator = self.numerator * a
        numerator += other.numerator * b
        weight = self.weight * a
        weight += other.weight * b
        n_images = self.n_images + other.n_images
        return replace(self, numerator=numerator, weight=weight, n_images=n_images, pixel_size_A=pixel_size_A)

    def shell_weight(self) -> np.ndarray:
        """Return the mean weight of the voxels of each shell, float64 ``[radius + 1]``."""
        return shell_means(self.weight, self.radius, self.padding)

    def solve(
        self,
        *,
        tau2: np.ndarray | None = None,
        ssnr: np.ndarray | None = None,
        threads: int = 1,
    ) -> Any:
        """Return the map of the accumulators.

        Parameters
        ----------
        tau2 : ndarray [radius + 1], optional
            Variance of the real (and of the imaginary) part of the map's Fourier coefficients, by shell, in the scale of
            `cryopipe.projection.references.reference_cube`. The map is then regularised (maximum a posteriori).
        ssnr : ndarray [radius + 1], optional
            Alternative to ``tau2``: the spectral signal-to-noise ratio of the reconstruction by shell (`ssnr_from_fsc`),
            possibly times a regularisation factor T. 1/(p³τ²) is then the mean weight of the shell divided by it. Zero
            removes a shell.
        threads : int
            CPU threads of the transforms.

        Returns
        -------
        ndarray float32 [box, box, box]
            The map. With neither prior it is not regularised, as needed for half maps for an FSC. The images are
            projections of its grey values.

        Raises
        ------
        InputError
            Both priors are given, or one does not reach the radius or is negative. Or nothing was inserted, or only images
            of zero weight.
        """
        mean = self._mean_weight()
        added = regulariser(tau2, ssnr, mean, self.padding).astype(np.float32)
        floor = (WEIGHT_FLOOR * mean).astype(np.float32)

        def rows(part: slice) -> Any:
            return divided_rows(self.numerator, self.weight, part, floor, added, self.padding)

        return volume_from_half_cube(
            self.numerator,
            self.box,
            padding=self.padding,
            threads=threads,
            rows=rows,
            reach=self._reach(0.5 * self.padding),
            profile=gridding_profile(self.box, self.padding),
        )

    def _mean_weight(self) -> np.ndarray:
        if self.plan.order > 1:
            self.symmetrise()
        return usable_means(self.shell_weight(), self.n_images)

    def _reach(self, margin: float) -> float:
        """Return the radius, in steps of the cubes, of a sphere with all voxels that were inserted or are used."""
        return self.padding * (self.radius + 0.5) + margin

    def _common_pixel_size(self, pixel_size_A: float) -> float:
        own = pixel_size_A if self.pixel_size_A is None else self.pixel_size_A
        if not abs(pixel_size_A / own - 1) <= 1e-3:
            raise InputError(
                f"images of {pixel_size_A:g} Å per pixel do not fit a reconstruction of {own:g} Å per pixel. "
                "Extract or resample all particles to one pixel size."
            )
        return own

    def _insert(
        self, slices: tuple[Any, Any], rotations: np.ndarray, frequencies: tuple[np.ndarray, np.ndarray]
    ) -> None:
        insert_copies(
            self.numerator, self.weight, self.plan, slices, rotations, frequencies, padding=self.padding,
            ordered=self.ordered,
        )  # fmt: skip

    def _check_open(self, box: int, pixels: FourierPixels) -> None:
        if self.symmetrised and self.plan.order > 1:
            raise InputError("this reconstruction is already symmetrised. Insert all images before symmetrise().")
        if box != self.box or pixels.radius > self.radius:
            raise InputError(
                f"images of box {box}, radius {pixels.radius} do not fit a reconstruction of box {self.box}, radius "
                f"{self.radius}. Use the same box and at most the same radius."
            )
