"""The state of one half set between two iterations, and the task of an iteration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopipe.iteration.global_search import GlobalOptions
from cryopipe.iteration.particle_store import ParticleStore
from cryopipe.iteration.pose_table import Poses
from cryopipe.projection.noise import ImagePower


@dataclass(frozen=True)
class Priors:
    """Standard deviations of true values about those of the table that a half set has learned; 0: it cannot tell.

    Attributes
    ----------
    defocus_A, defocus_of_micrographs_A : float
        Of the particles about their micrograph's mean, and of these means.
    astigmatism_A : float
        Of both components of a micrograph's astigmatism.
    scale, scale_of_micrographs : float
        Relative; of the particles about their micrograph's mean, and of these means.
    """

    defocus_A: float = 0.0
    defocus_of_micrographs_A: float = 0.0
    astigmatism_A: float = 0.0
    scale: float = 0.0
    scale_of_micrographs: float = 0.0


@dataclass(frozen=True, eq=False)
class HalfSet:
    """State of one half set.

    Attributes
    ----------
    poses : Poses
        Shifts in px of the full-size images.
    scale : array float64 [n]
        Grey scale of each image, mean 1.
    ctf_change_A : array float64 [n, 3]
        Mean defocus and the astigmatism's two components (see `cryopipe.poses.ctf.changed_parameters`).
    defocus_error_A : array float64 [n]
        Standard error of each image's mean defocus; infinite where it was never looked at.
    sigma2 : array float64 [shells]
        Noise variance of the real part (and of the imaginary part).
    angle_change_deg : float
        Median change of the orientation in the last iteration.
    priors : Priors
        Learned in the last iteration.
    """

    poses: Poses
    scale: NDArray[np.float64]
    ctf_change_A: NDArray[np.float64]
    defocus_error_A: NDArray[np.float64]
    sigma2: NDArray[np.float64]
    angle_change_deg: float
    priors: Priors

    @classmethod
    def start(cls, store: ParticleStore) -> HalfSet:
        """Return the state before any pose is known. Its noise spectrum is the power spectrum of the images."""
        n = len(store)
        power = ImagePower(store.pixels(store.radius))
        for _, images in store.blocks(store.radius):
            power.add(images)
        poses, unknown = Poses.centred(store.centres_A / store.pixel_size_A), np.full(n, np.inf)
        return cls(poses, np.ones(n), np.zeros((n, 3)), unknown, power.initial_sigma2(), 180.0, Priors())


@dataclass(frozen=True)
class OpticsOptions:
    """What is refined of the optics of posed images, and what is known of it; a prior of None is learned from the data.

    Attributes
    ----------
    defocus_range_A : float
        Mean defocus and astigmatism move by at most this.
    defocus_prior_A : float or None
        Standard deviation of the particles' defoci about that of the table.
    refine_astigmatism : bool
        Whether every micrograph has a change of astigmatism, where defoci are refined.
    astigmatism_prior_A : float or None
        Standard deviation of its components.
    refine_scale : bool
        Whether every image has a grey scale of its own.
    scale_prior : float or None
        Standard deviation of the grey scales about one.
    """

    defocus_range_A: float
    defocus_prior_A: float | None = None
    refine_astigmatism: bool = False
    astigmatism_prior_A: float | None = None
    refine_scale: bool = False
    scale_prior: float | None = None


@dataclass(frozen=True)
class HalfSetOptions:
    """How a half set is refined, the same in every iteration.

    Attributes
    ----------
    search : GlobalOptions
        Of the global search; its point group is imposed on the map.
    optics : OpticsOptions
        Its defocus and astigmatism are used where the task asks for defoci.
    """

    search: GlobalOptions
    optics: OpticsOptions


@dataclass(frozen=True)
class Task:
    """What an iteration does with a half set.

    Attributes
    ----------
    radius : int
        Outermost shell that poses are determined from.
    reconstruct_radius : int
        Outermost shell that is reconstructed. Shells beyond ``radius`` show how far the next iteration can go.
    box : int
        Working box of references and reconstructions.
    search : {"all", "weak"}
        Whether all particles are searched globally, or only those of low confidence and ``random_share`` of the others.
    random_share : float
    defocus : bool
        Whether defoci are refined.
    grey : bool
        Whether the reference's grey scale has to be found first.
    own_nats : float
        What a particle's own part in the reference adds to the log-likelihood of its pose, in the mean.
    """

    radius: int
    reconstruct_radius: int
    box: int
    search: str
    random_share: float
    defocus: bool
    grey: bool
    own_nats: float = 0.0
