"""What is known of one half set between two iterations, and what an iteration is asked to do with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopipe.iteration.global_search import GlobalOptions
from cryopipe.iteration.particle_store import ParticleStore
from cryopipe.iteration.pose_table import Poses
from cryopipe.projection.noise import ImagePower


@dataclass(frozen=True, eq=False)
class HalfSet:
    """State of one half set; changes of CTFs against the table in Å.

    Attributes
    ----------
    poses : Poses
        Shifts in px of the full-size images.
    scale : array float64 [n]
        Grey scale of each image, median 1.
    ctf_change_A : array float64 [n, 3]
        Mean defocus and the astigmatism's two components (see `cryopipe.poses.ctf.changed_parameters`).
    sigma2 : array float64 [shells]
        Noise variance of each of real and imaginary part.
    angle_change_deg : float
        Median change of the orientation in the last iteration.
    """

    poses: Poses
    scale: NDArray[np.float64]
    ctf_change_A: NDArray[np.float64]
    sigma2: NDArray[np.float64]
    angle_change_deg: float

    @classmethod
    def start(cls, store: ParticleStore) -> HalfSet:
        """Return the state before any pose is known; the noise model is that of the images' power."""
        n = len(store)
        power = ImagePower(store.pixels(store.radius))
        for _, images in store.blocks(store.radius):
            power.add(images)
        poses = Poses.centred(store.centres_A / store.pixel_size_A)
        return cls(poses, np.ones(n), np.zeros((n, 3)), power.initial_sigma2(), 180.0)


@dataclass(frozen=True)
class CtfOptions:
    """How the CTFs of posed images are refined.

    Attributes
    ----------
    range_A : float
        The mean defocus moves by at most this.
    prior_A : float
        Standard deviation of the particles' heights about the table's defocus.
    astigmatism_prior_A : float or None
        Standard deviation of the components of a micrograph's astigmatism about those of the table; None: the
        astigmatism stays.
    """

    range_A: float
    prior_A: float
    astigmatism_prior_A: float | None = None


@dataclass(frozen=True)
class HalfSetOptions:
    """How a half set is refined, the same in every iteration.

    Attributes
    ----------
    search : GlobalOptions
        Of the global search; its point group is imposed on the map.
    ctf : CtfOptions
        Used where the task asks for defoci.
    refine_scale : bool
        Whether every image has a grey scale of its own.
    """

    search: GlobalOptions
    ctf: CtfOptions
    refine_scale: bool = False


@dataclass(frozen=True)
class Task:
    """What an iteration does with a half set.

    Attributes
    ----------
    radius : int
        Shells that decide poses.
    reconstruct_radius : int
        Shells that are reconstructed; those beyond ``radius`` tell how far the next iteration can go.
    box : int
        Working box of references and reconstructions.
    search : {"all", "weak"}
        Whether all particles are searched globally, or those of low confidence and ``random_share`` of the others.
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
