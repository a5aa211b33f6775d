"""What a pose refinement is given beside the images: what it may move, how far, and what holds it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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
        One row for each image: the CTFs that the images carry (for phase-flipped images, those they were flipped with).
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


@dataclass(frozen=True, eq=False)
class ScaleModel:
    """The grey scale of each image: the factor of the model.

    Attributes
    ----------
    start : ndarray [n], optional
        Scale to begin with, one by default.
    refine : bool
        Refine the scale (kept within 0.2 to 5); otherwise it stays.
    sigma : float
        Standard deviation of a Gaussian prior about one; infinite: none.
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
        Diameter of the soft mask that the images were multiplied by when they were loaded.
    start : ndarray [n], optional
        Offset to begin with, zero by default.
    """

    mask_diameter_A: float
    start: np.ndarray | None = None

    def subset(self, index: Any) -> OffsetModel:
        """Return the model of the images at ``index``."""
        return self if self.start is None else replace(self, start=np.asarray(self.start)[index])


@dataclass(frozen=True, eq=False)
class ImageModel:
    """What is refined of an image beside its pose.

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
        """Return the model that goes on from values [n] that a refinement has found."""
        return ImageModel(
            replace(self.scale, start=scale),
            None if self.defocus is None else self.defocus.starting_from(defocus_change_A),
            None if self.offset is None else replace(self.offset, start=offset),
        )


@dataclass(frozen=True, eq=False)
class PosePrior:
    """Gaussian priors that hold poses near given ones.

    Attributes
    ----------
    shift_sigma_px : float
        Standard deviation of each shift component about ``shift_centre_px``; infinite: no prior.
    shift_centre_px : ndarray [n, 2], optional
        Zero by default.
    rotation_sigma_deg : float
        Standard deviation of the rotation away from ``rotation_centre``, about each axis; infinite: no prior.
    rotation_centre : ndarray [n, 3, 3], optional
        The start poses by default.
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
    """How far poses may move at a time, and when they are done.

    Attributes
    ----------
    evaluations : int
        Most evaluations of the normal equations.
    max_angle_deg, max_shift_px : float
        Longest single step.
    tolerance : float
        In nats. An image is done when its next step promises, or its last step brought, a gain in log-likelihood below
        this; 0.01 is a step of a seventh of the pose's own standard error. A step that fails although it promised less
        than ten times as much ends it too: the interpolated reference has kinks that no smaller step resolves.
    """

    evaluations: int = 12
    max_angle_deg: float = 4.0
    max_shift_px: float = 2.0
    tolerance: float = 0.01


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
