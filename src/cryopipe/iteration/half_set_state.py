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
    """Standard deviations of true values about those of the table, as estimated by a half set. 0: not determined.

    Attributes
    ----------
    defocus_A, defocus_of_micrographs_A : float
        Defoci of the particles about the mean of their micrograph, and of these means.
    astigmatism_A : float
        Both components of the astigmatism of a micrograph.
    scale, scale_of_micrographs : float
        Grey scales of the particles about the mean of their micrograph, and of these means. They are relative to 1.
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
        Changes against the table: mean defocus and the two components of astigmatism (see
        `cryopipe.poses.ctf.changed_parameters`).
    defocus_error_A : array float64 [n]
        Standard error of the mean defocus of each image. It is infinite before defoci are refined.
    sigma2 : array float64 [shells]
        Noise variance of the real part (and of the imaginary part).
    angle_change_deg : float
        Median change of the orientation in the last iteration.
    priors : Priors
        Widths of the priors from the last iteration.
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
    """Which optics parameters of posed images are refined, and their priors. A prior of None is estimated from the data.

    Attributes
    ----------
    defocus_range_A : float
        Largest change of the mean defocus and of the astigmatism.
    defocus_prior_A : float or None
        Standard deviation of the defoci of particles about those of the table.
    refine_astigmatism : bool
        Whether the astigmatism of every micrograph is refined, when defoci are refined.
    astigmatism_prior_A : float or None
        Standard deviation of the components of a micrograph's astigmatism about those of the table.
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
    """Options of the refinement of a half set. They are the same in every iteration.

    Attributes
    ----------
    search : GlobalOptions
        Options of the global search. Its point group is imposed on the map.
    optics : OpticsOptions
        Options of the optics. Those of defocus and astigmatism are used if the task asks for defoci.
    """

    search: GlobalOptions
    optics: OpticsOptions


@dataclass(frozen=True)
class Task:
    """What an iteration does with a half set.

    Attributes
    ----------
    radius : int
        Outermost shell that is used for poses.
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
        Whether the grey scale of the reference must be found first.
    own_nats : float
        Mean increase of a particle's log-likelihood at its pose, because the particle itself is part of the reference.
    """

    radius: int
    reconstruct_radius: int
    box: int
    search: str
    random_share: float
    defocus: bool
    grey: bool
    own_nats: float = 0.0
