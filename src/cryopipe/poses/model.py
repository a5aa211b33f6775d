"""Settings of a pose refinement: the parameters that are refined, their largest steps, and their priors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cryopipe.imaging.fourier import rfft2_centred
from cryopipe.imaging.optics import CtfParameters
from cryopipe.projection.particle_images import particle_mask
from cryopipe.projection.particle_spectra import ParticleSpectra

#: shells in which the mask's transform is weaker than this fraction of its maximum are not used for an offset
_OFFSET_FLOOR = 1e-4


@dataclass(frozen=True)
class DefocusModel:
    """How the mean defocus of each image is refined.

    Attributes
    ----------
    parameters : CtfParameters
        One row for each image: the CTFs of the images (for phase-flipped images, those with which they were flipped).
    start_A : ndarray [n], optional
        Start value of the change of both defoci. Zero by default.
    centre_A : ndarray [n], optional
        Change at which the prior has its maximum. Zero by default.
    sigma_A : float
        Standard deviation of the prior. Infinite: no prior.
    range_A : float
        The change stays between minus and plus this value.
    max_step_A : float
        Longest single step.
    scan : bool
        Start from the likeliest of trial values over the whole range. Their distance turns the CTF phase at the outermost
        shell by an eighth of a turn.
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
        """Return the model that continues from ``change_A`` [n] without another scan."""
        return replace(self, start_A=change_A, scan=False)


@dataclass(frozen=True, eq=False)
class ScaleModel:
    """The grey scale of each image, that is the factor of the model.

    Attributes
    ----------
    start : ndarray [n], optional
        Start value of the scale. One by default.
    refine : bool
        Refine the scale (between 0.2 and 5). Otherwise it is fixed.
    sigma : float
        Standard deviation of a Gaussian prior about one. Infinite: no prior.
    """

    start: np.ndarray | None = None
    refine: bool = False
    sigma: float = np.inf

    def subset(self, index: Any) -> ScaleModel:
        """Return the model of the images at ``index``."""
        return self if self.start is None else replace(self, start=np.asarray(self.start)[index])


@dataclass(frozen=True, eq=False)
class OffsetModel:
    """A grey constant in each image, refined with the pose.

    Attributes
    ----------
    mask_diameter_A : float
        Diameter of the soft mask by which the images were multiplied when they were loaded.
    start : ndarray [n], optional
        Start value of the offset. Zero by default.
    """

    mask_diameter_A: float
    start: np.ndarray | None = None

    def subset(self, index: Any) -> OffsetModel:
        """Return the model of the images at ``index``."""
        return self if self.start is None else replace(self, start=np.asarray(self.start)[index])


@dataclass(frozen=True, eq=False)
class ImageModel:
    """Parameters of an image that are refined beside its pose.

    Attributes
    ----------
    scale : ScaleModel
        Grey scale.
    defocus : DefocusModel, optional
        Mean defocus. The images' CTFs are then those of its parameters.
    offset : OffsetModel, optional
        Grey offset.
    """

    scale: ScaleModel = ScaleModel()  # frozen
    defocus: DefocusModel | None = None
    offset: OffsetModel | None = None

    def subset(self, index: Any) -> ImageModel:
        """Return the model of the images at ``index``."""
        return ImageModel(
            self.scale.subset(index),
            None if self.defocus is None else self.defocus.subset(index),
            None if self.offset is None else self.offset.subset(index),
        )

    def starting_from(self, scale: np.ndarray, defocus_change_A: np.ndarray, offset: np.ndarray) -> ImageModel:
        """Return the model that continues from the values [n] that a refinement found."""
        return ImageModel(
            replace(self.scale, start=scale),
            None if self.defocus is None else self.defocus.starting_from(defocus_change_A),
            None if self.offset is None else replace(self.offset, start=offset),
        )


@dataclass(frozen=True, eq=False)
class PosePrior:
    """Gaussian priors of the poses.

    Attributes
    ----------
    shift_sigma_px : float
        Standard deviation of each shift component about ``shift_centre_px``. Infinite: no prior.
    shift_centre_px : ndarray [n, 2], optional
        Centre of the prior of the shifts. Zero by default.
    rotation_sigma_deg : float
        Standard deviation of the rotation from ``rotation_centre``, about each axis. Infinite: no prior.
    rotation_centre : ndarray [n, 3, 3], optional
        Centre of the prior of the rotations. The start poses by default.
    """

    shift_sigma_px: float = np.inf
    shift_centre_px: np.ndarray | None = None
    rotation_sigma_deg: float = np.inf
    rotation_centre: np.ndarray | None = None

    def subset(self, index: Any) -> PosePrior:
        """Return the priors of the images at ``index``."""
        shift, rotation = (
            None if one is None else np.asarray(one)[index] for one in (self.shift_centre_px, self.rotation_centre)
        )
        return replace(self, shift_centre_px=shift, rotation_centre=rotation)


@dataclass(frozen=True)
class Steps:
    """How far poses may move in one step, and when their refinement stops.

    Attributes
    ----------
    evaluations : int
        Largest number of evaluations of the normal equations.
    max_angle_deg, max_shift_px : float
        Longest single step.
    tolerance : float
        In nats. The refinement of an image stops when the predicted gain in log-likelihood of its next step, or the gain
        of its last step, is below this. A gain of 0.01 is a step of a seventh of the pose's own standard error. It also
        stops if a step fails whose predicted gain is below ten times this value, because the interpolated reference has
        kinks that smaller steps do not resolve.
    """

    evaluations: int = 12
    max_angle_deg: float = 4.0
    max_shift_px: float = 2.0
    tolerance: float = 0.01


def offset_spectrum(images: ParticleSpectra, mask_diameter_A: float) -> np.ndarray:
    """Return the change of a masked image's spectrum by a grey offset of one, float32 at the first K' pixels.

    The mask is that of `cryopipe.projection.particle_spectra.load_particle_spectra`; shells where its transform has fallen below
    1e-4 of its largest value are left out.
    """
    mask = np.asarray(particle_mask(images.box, mask_diameter_A, images.pixel_size_A), np.float32)
    values = images.pixels.gather(rfft2_centred(mask[None]))[0].real
    strong = np.flatnonzero(np.abs(values) > _OFFSET_FLOOR * np.abs(values).max())
    count = images.pixels.count_within(int(images.pixels.shell[strong[-1]]))
    return np.ascontiguousarray(values[:count], np.float32)
