"""What a pose refinement is given beside the images, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import rfft2_centred
from cryopipe.imaging.optics import CtfParameters
from cryopipe.projection.particle_images import particle_mask
from cryopipe.projection.particle_spectra import ParticleSpectra

#: shells where the mask's transform is weaker than this share of its largest value do not tell an offset
_OFFSET_FLOOR = 1e-4


@dataclass(frozen=True)
class DefocusModel:
    """How the mean defocus of each image is refined.

    Attributes
    ----------
    parameters : CtfParameters
        A row an image: the CTFs that the images carry (for phase-flipped images, those they were flipped with).
    start_A : ndarray [n], optional
        Change of both defoci to begin with; zero by default.
    centre_A : ndarray [n], optional
        Change at which the prior has its maximum; zero by default.
    sigma_A : float
        Standard deviation of the prior; infinite: none.
    range_A : float
        The change stays within plus and minus this.
    max_step_A : float
        Longest single step.
    scan : bool
        Begin at the likeliest of trials over the whole range, an eighth of a turn of the outermost CTF phase apart.
    """

    parameters: CtfParameters
    start_A: np.ndarray | None = None
    centre_A: np.ndarray | None = None
    sigma_A: float = np.inf
    range_A: float = 2000.0
    max_step_A: float = 300.0
    scan: bool = True

    def subset(self, index: Any) -> DefocusModel:
        """Return the model of the images at ``index``."""
        start, centre = (None if a is None else np.asarray(a)[index] for a in (self.start_A, self.centre_A))
        return replace(self, parameters=self.parameters.subset(index), start_A=start, centre_A=centre)

    def starting_from(self, change_A: np.ndarray) -> DefocusModel:
        """Return the model that goes on from ``change_A`` [n] without another scan."""
        return replace(self, start_A=change_A, scan=False)


@dataclass(frozen=True)
class PoseRefinement:
    """Refined poses, a row an image.

    Attributes
    ----------
    rotations : float64 [n, 3, 3]
    shifts_px : float64 [n, 2]
        (x, y) applied to centre the image.
    scale : float64 [n]
        Factor of the model (as given, or refined).
    log_likelihood : float64 [n]
        Relative to noise alone, at the refined pose, without priors.
    covariance : float64 [n, p, p]
        Of (wx, wy, wz in radians about the image's axes, tx, ty in px, then scale, defocus in Å and offset, those that
        were refined): inverse Hessian, priors included. Infinite variance: the image does not tell.
    converged : bool [n]
        No further step would gain more than the tolerance.
    iterations : int
        Evaluations made for the image that took most.
    evaluations : int64 [n]
        Evaluations made for each image.
    defocus_change_A : float64 [n]
        To be added to both defoci of the table.
    offset : float64 [n]
        Grey value of the constant in the image.
    parameters : tuple of str
        Names along the covariance.
    """

    rotations: np.ndarray
    shifts_px: np.ndarray
    scale: np.ndarray
    log_likelihood: np.ndarray
    covariance: np.ndarray
    converged: np.ndarray
    iterations: int
    evaluations: np.ndarray
    defocus_change_A: np.ndarray
    offset: np.ndarray
    parameters: tuple[str, ...]

    def angle_sd_deg(self) -> np.ndarray:
        """Return the standard error of the orientation (root of its three angles' summed variances), degrees, [n]."""
        return np.degrees(np.sqrt(np.trace(self.covariance[:, :3, :3], axis1=1, axis2=2)))

    def shift_sd_px(self) -> np.ndarray:
        """Return the standard error of the shift per axis, px, [n]."""
        return np.sqrt(np.trace(self.covariance[:, 3:5, 3:5], axis1=1, axis2=2) / 2)

    def sd(self, parameter: str) -> np.ndarray:
        """Return the standard error of one of ``parameters``, [n] (angles in radians)."""
        if parameter not in self.parameters:
            raise InputError(f"{parameter} was not refined; refined were {', '.join(self.parameters)}")
        at = self.parameters.index(parameter)
        return np.sqrt(self.covariance[:, at, at])


def offset_spectrum(images: ParticleSpectra, mask_diameter_A: float) -> np.ndarray:
    """Return what a grey offset of one adds to the spectrum of a masked image, float32 at the first K' pixels.

    The mask is that of `cryopipe.projection.particle_spectra.load_particle_spectra`; shells where its transform has fallen below
    1e-4 of its largest value are left out.
    """
    mask = np.asarray(particle_mask(images.box, mask_diameter_A, images.pixel_size_A), np.float32)
    values = images.pixels.gather(rfft2_centred(mask[None]))[0].real
    strong = np.flatnonzero(np.abs(values) > _OFFSET_FLOOR * np.abs(values).max())
    count = images.pixels.count_within(int(images.pixels.shell[strong[-1]]))
    return np.ascontiguousarray(values[:count], np.float32)
