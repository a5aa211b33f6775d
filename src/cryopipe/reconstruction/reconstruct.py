"""Which volume do posed images give? Direct Fourier inversion: weighted insertion of slices, symmetry, Wiener division.

Every slice adds C X exp(-2πi k·t/box)/σ² to a numerator and C²/σ² to a weight cube, trilinearly, at padding 2. The map
is ``numerator / (weight + 1/(p³ τ²))``, back-transformed, cropped and divided by the kernel's transform. The weight is
floored at 1/1000 of its shell's mean, RELION's way without iterative gridding.

References: Scheres 2012, doi:10.1016/j.jsb.2012.09.006 (eqs. 5-8, regularised reconstruction).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.imaging.fourier_pixels import FourierPixels
from cryopipe.kernels.slices import insert_slices
from cryopipe.reconstruction.shells import shell_means, wiener_factor
from cryopipe.reconstruction.symmetrise import Method, SymmetryPlan, symmetrise_half_cubes, symmetry_plan
from cryopipe.search.half_cube import check_cube, correct_gridding, cube_shape, volume_from_half_cube
from cryopipe.search.phases import phase_table, shift_values
from cryopipe.search.posterior import PoseSums
from cryopipe.search.spectra import ParticleSpectra, content_order

_BATCH_BYTES = 256 << 20
WEIGHT_FLOOR = 1e-3
"""Least weight of a voxel as a share of its shell's mean (RELION's skip-gridding path)."""


@dataclass
class Reconstruction:
    """Accumulators of one reconstruction (make one with `Reconstruction.empty`; one for each half set).

    Attributes
    ----------
    box : int
        Edge of the images and of the map.
    radius : int
        Outermost shell.
    padding : int
        Sampling of the cubes.
    plan : SymmetryPlan
        How the point group is imposed.
    numerator : complex64 [2R+1, 2R+1, R+1]
    weight : float32 [2R+1, 2R+1, R+1]
    n_images : int
        Images (or rows of sums) inserted.
    symmetrised : bool
        Whether `symmetrise` was called; nothing can be inserted afterwards.
    """

    box: int
    radius: int
    padding: int
    plan: SymmetryPlan
    numerator: Any
    weight: Any
    n_images: int = 0
    symmetrised: bool = False

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
    ) -> Reconstruction:
        """Return empty accumulators.

        Parameters
        ----------
        box : int
            Even edge of the images.
        radius : int
            Outermost shell, at most ``box // 2 - 1``.
        padding : int
            2; 3 gains accuracy in small boxes for 3.4 times the memory.
        symmetry : str
            Point group.
        expected_slices : int
            About how many slices will be inserted; decides, for groups that are no signed permutations throughout,
            between inserting copies and interpolating (see `cryopipe.reconstruction.symmetrise`). 0 means few: copies.
        method : {"copies", "interpolation"}, optional
            Overrides that choice.
        gpu : bool
            Keep the cubes on the GPU.
        """
        check_cube((box, box, box), radius, padding)
        shape = cube_shape(radius, padding)
        plan = symmetry_plan(
            symmetry,
            n_slices=expected_slices,
            n_pixels=int(1.6 * radius**2),
            cube_shape=shape,
            method="copies" if gpu else method,
        )
        if gpu:
            import cupy as xp
        else:
            xp = np
        return cls(box, radius, padding, plan, xp.zeros(shape, np.complex64), xp.zeros(shape, np.float32))

    @property
    def nbytes(self) -> int:
        """Bytes of the accumulators: 12 (2R+1)²(R+1); 6.4 GB at box 512, radius 255, padding 2."""
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
    ) -> None:
        """Insert images at their poses; the same bits in whatever order they are given.

        Parameters
        ----------
        images : ParticleSpectra
            n images of this box, radius at most this one's.
        rotations : ndarray [n, 3, 3]
            Poses A.
        shifts_px : ndarray [n, 2]
            (x, y) applied to centre each image.
        inverse_sigma2 : ndarray [radius + 1] or [g, radius + 1]
            1/σ² by shell, for each noise group.
        weights : ndarray [n], optional
            Factor on each image's contribution (numerator and weight).
        noise_group : ndarray int [n], optional
            Row of ``inverse_sigma2`` of each image.

        Raises
        ------
        InputError
            Shapes or boxes do not fit, or values are not finite.
        """
        self._check_open(images.box, images.pixels)
        n = len(images)
        if np.shape(rotations) != (n, 3, 3) or np.shape(shifts_px) != (n, 2):
            raise InputError(
                f"{n} images with rotations {np.shape(rotations)} and shifts {np.shape(shifts_px)}: one pose each is "
                "needed"
            )
        table = np.atleast_2d(np.asarray(inverse_sigma2, np.float32))
        if table.shape[1] < images.pixels.radius + 1 or not np.isfinite(table[:, 1 : images.pixels.radius + 1]).all():
            raise InputError(
                f"inverse noise variances of shape {np.shape(inverse_sigma2)}: finite values up to shell "
                f"{images.pixels.radius} are needed"
            )
        by_pixel = table[:, images.pixels.shell]
        group = np.zeros(n, np.int64) if noise_group is None else np.asarray(noise_group, np.int64)
        factor = np.ones(n, np.float32) if weights is None else np.asarray(weights, np.float32)
        batch = max(1, _BATCH_BYTES // (32 * len(images.pixels)))
        order = content_order(images)
        for start in range(0, n, batch):
            part = order[start : start + batch]
            inverse_variance = by_pixel[group[part]] * factor[part, None]
            some = images.subset(array_module(images.values).asarray(part))
            values, information = _weighted(some, np.asarray(shifts_px)[part], inverse_variance)
            self._insert(values, information, np.asarray(rotations, np.float32)[part], images.pixels)
        self.n_images += n

    def insert_sums(self, sums: PoseSums, rotations: np.ndarray, pixels: FourierPixels) -> None:
        """Insert the M-step sums of a global search, a slice a state: cost independent of the number of images.

        Parameters
        ----------
        sums : PoseSums
            o states.
        rotations : ndarray [o, 3, 3]
            Their poses.
        pixels : FourierPixels
            Of the images searched.
        """
        self._check_open(pixels.box, pixels)
        if np.shape(rotations) != (len(sums.weight), 3, 3):
            raise InputError(
                f"sums of {len(sums.weight)} states with rotations {np.shape(rotations)}: one for each state is needed"
            )
        self._insert(sums.numerator, sums.weight, np.asarray(rotations, np.float32), pixels)
        self.n_images += sums.n_images

    def symmetrise(self) -> None:
        """Impose the point group on the accumulators (once, after the last insertion)."""
        if not self.symmetrised:
            self.numerator, self.weight = symmetrise_half_cubes(self.numerator, self.weight, self.plan)
        self.symmetrised = True

    def merged(self, other: Reconstruction, *, factor: float = 1.0, other_factor: float = 1.0) -> Reconstruction:
        """Return ``factor`` times this plus ``other_factor`` times the other (both halves, or a running average)."""
        mine, theirs = (
            (self.box, self.radius, self.padding, self.symmetrised),
            (other.box, other.radius, other.padding, other.symmetrised),
        )
        if mine != theirs or self.plan.group != other.plan.group:
            raise InputError(f"reconstructions (box, radius, padding, symmetrised) {mine} and {theirs} cannot be added")
        a, b = np.float32(factor), np.float32(other_factor)
        numerator = self.numerator * a
        numerator += other.numerator * b
        weight = self.weight * a
        weight += other.weight * b
        return Reconstruction(
            self.box,
            self.radius,
            self.padding,
            self.plan,
            numerator,
            weight,
            self.n_images + other.n_images,
            self.symmetrised,
        )

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
            Variance of real and imaginary part each of the map's Fourier coefficients, by shell, in the scale of
            `cryopipe.search.references.reference_cube` (regularised: maximum a posteriori).
        ssnr : ndarray [radius + 1], optional
            Instead of ``tau2``: the spectral signal-to-noise ratio of the reconstruction by shell (`ssnr_from_fsc`),
            times a regularisation factor T if wanted: 1/(p³τ²) is then the shell's mean weight over it. Zero removes a
            shell.
        threads : int
            CPU threads of the transforms.

        Returns
        -------
        ndarray float32 [box, box, box]
            With neither, the unregularised map, such as half maps for an FSC must be. Grey values are those of which
            the images are projections.

        Raises
        ------
        InputError
            Both priors are given, or one does not reach the radius or is negative.
        """
        if len(self.plan.cosets) * len(self.plan.exact) > 1 and not self.symmetrised:
            self.symmetrise()
        mean = self.shell_weight()
        regulariser = self._regulariser(tau2, ssnr, mean).astype(np.float32)
        floor = (WEIGHT_FLOOR * mean).astype(np.float32)

        def quotient(part: slice) -> Any:
            return wiener_factor(self.weight, part, floor, regulariser, self.padding)

        volume = volume_from_half_cube(self.numerator, self.box, padding=self.padding, threads=threads, factor=quotient)
        return correct_gridding(volume, self.padding)

    def _regulariser(self, tau2: np.ndarray | None, ssnr: np.ndarray | None, mean: np.ndarray) -> np.ndarray:
        if tau2 is not None and ssnr is not None:
            raise InputError("a reconstruction takes tau2 or ssnr, not both")
        prior = tau2 if tau2 is not None else ssnr
        if prior is None:
            return np.zeros(self.radius + 1)
        prior = np.asarray(prior, np.float64)[: self.radius + 1]
        if len(prior) < self.radius + 1 or np.isnan(prior).any() or prior.min() < 0:
            raise InputError(
                f"a prior for {len(prior)} shells, least value {prior.min()}: {self.radius + 1} values, none negative, "
                "are needed"
            )
        numerator = mean if ssnr is not None else np.full(self.radius + 1, float(self.padding) ** -3)
        # A shell with no prior variance is removed: 1e30 is as good as infinity and stays finite in float32.
        return np.minimum(numerator / np.maximum(prior, 1e-30), 1e30)

    def _insert(self, values: Any, information: Any, rotations: np.ndarray, pixels: FourierPixels) -> None:
        xp = array_module(self.numerator, values, information)
        kx, ky = xp.asarray(pixels.kx), xp.asarray(pixels.ky)
        values, information = xp.ascontiguousarray(values), xp.ascontiguousarray(information)
        cosets = self.plan.cosets if self.plan.method == "copies" else self.plan.cosets[:1]
        for operator in cosets:
            poses = xp.asarray((rotations.astype(np.float64) @ operator).astype(np.float32))
            insert_slices(self.numerator, self.weight, poses, values, information, kx, ky, padding=self.padding)

    def _check_open(self, box: int, pixels: FourierPixels) -> None:
        if self.symmetrised and len(self.plan.cosets) * len(self.plan.exact) > 1:
            raise InputError("this reconstruction was symmetrised already: insert all images before symmetrise()")
        if box != self.box or pixels.radius > self.radius:
            raise InputError(
                f"images of box {box}, radius {pixels.radius} do not fit a reconstruction of box {self.box}, radius "
                f"{self.radius}"
            )


def ssnr_from_fsc(fsc: np.ndarray, *, joint: bool = False) -> np.ndarray:
    """Return the spectral signal-to-noise ratio FSC/(1 - FSC) by shell, float64.

    Parameters
    ----------
    fsc : ndarray [shells]
        Between half maps; clamped to 0.001..0.999.
    joint : bool
        For the map of both halves together: FSC' = √(2 FSC/(1 + FSC)) takes the place of FSC.
    """
    curve = np.clip(np.asarray(fsc, np.float64), 0.001, 0.999)
    if joint:
        curve = np.clip(np.sqrt(2 * curve / (1 + curve)), 0.001, 0.999)
    return curve / (1 - curve)


def tau2_from_ssnr(ssnr: np.ndarray, shell_weight: np.ndarray, padding: int) -> np.ndarray:
    """Return τ² = SSNR / (p³ mean weight) by shell, float64: the other form of the same prior."""
    return np.asarray(ssnr, np.float64) / (float(padding) ** 3 * np.maximum(shell_weight, 1e-30))


def _weighted(images: ParticleSpectra, shifts_px: np.ndarray, inverse_variance: np.ndarray) -> tuple[Any, Any]:
    xp = array_module(images.values, images.ctf)
    if xp is np:
        values = shift_values(images.values, images.pixels, shifts_px)
    else:
        values = images.values * xp.asarray(phase_table(images.pixels, shifts_px))
    factor = images.ctf * xp.asarray(inverse_variance)
    values *= factor
    return values, factor * images.ctf
