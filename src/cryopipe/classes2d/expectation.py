"""The E-step of a classification: compare all particles, in blocks, with all averages at all angles and shifts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cryopipe.classes2d.particle_stack import ParticleStack
from cryopipe.classes2d.rotation import Rotator, grids_of_images, make_rotator
from cryopipe.classes2d.schedule import Stage
from cryopipe.classes2d.state import ClassificationState, pseudo_halves
from cryopipe.iteration.particle_store import ParticleStore
from cryopipe.kernels.devices import Resources
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.phases import shift_values
from cryopipe.projection.pose_sums import PoseSums
from cryopipe.projection.references import ReferenceSlices
from cryopipe.search.annealing import temperature_for_spread
from cryopipe.search.exhaustive.search import log_likelihoods, search_poses
from cryopipe.search.options import SearchOptions
from cryopipe.search.posterior import Posterior
from cryopipe.search.shifts import ShiftGrid, shift_grid, shift_log_prior

#: Number of images from whose log-likelihoods the temperature is chosen.
TEMPERATURE_SAMPLE = 16


@dataclass(frozen=True, eq=False)
class Expectation:
    """Result of the E-step, with particles in the order of the input. Each particle takes ``8 classes + 60`` bytes.

    Attributes
    ----------
    best_state : int32 ``[n]``
        Class times the number of angles, plus the angle.
    shift_px : float64 ``[n, 2]``
        Best shift, including the shift before the search.
    log_evidence, max_probability : float64 ``[n]``
    n_significant : int64 ``[n]``
    reference_probability : float64 ``[n, classes]``
    best_dot, best_norm : float64 ``[n]``
        As in `cryopipe.search.posterior.Posterior`.
    sums : (PoseSums, PoseSums)
        Sums for the M-step, of two halves of the particles.
    inverse_temperature : float
    rotator : Rotator
    """

    best_state: np.ndarray
    shift_px: np.ndarray
    log_evidence: np.ndarray
    max_probability: np.ndarray
    n_significant: np.ndarray
    reference_probability: np.ndarray
    best_dot: np.ndarray
    best_norm: np.ndarray
    sums: tuple[PoseSums, PoseSums]
    inverse_temperature: float
    rotator: Rotator


#: fields of the posterior that are kept for each particle
_REMEMBERED = (
    "best_state",
    "shift_px",
    "log_evidence",
    "max_probability",
    "n_significant",
    "reference_probability",
    "best_dot",
    "best_norm",
)


def expectation(
    stack: ParticleStack,
    state: ClassificationState,
    stage: Stage,
    *,
    psi_offset_deg: float = 0.0,
    threads: int = 1,
    on_gpu: bool = False,
) -> Expectation:
    """Compare all particles with all averages. The sums are made for two halves of the particles.

    Parameters
    ----------
    stack, state, stage : ParticleStack, ClassificationState, Stage
        The particles; averages, priors and noise; resolution, angles, shifts and temperature.
    psi_offset_deg : float
        Rotation of the grid of angles, so that no angle is favoured over the iterations.
    threads : int
        CPU threads.
    on_gpu : bool
        Search on CuPy's current device.
    """
    store = stack.store
    radius = stack.radius_at(stage.resolution_A)
    rotator = make_rotator(store.pixels(radius), stage.n_psi, offset_deg=psi_offset_deg)
    references = rotator.references(grids_of_images(state.averages, rotator.radius, threads=threads))
    lattice = shift_grid(stage.shift_range_A / store.pixel_size_A, stage.shift_step_A / store.pixel_size_A)
    base = state.shift_px if stage.around_best else stack.prior_shift_px
    moved = base - stack.prior_shift_px
    noise, resources = NoiseModel(state.sigma2), Resources(threads=threads)
    beta = 1.0
    if stage.spread is not None:
        sample = np.unique(np.linspace(0, len(store) - 1, TEMPERATURE_SAMPLE).round().astype(int))
        images = _shifted(store.block(sample, radius), base[sample])
        prior = shift_log_prior(lattice, state.shift_sd_px, base_shifts_px=moved[sample])
        compared = ReferenceSlices(references), ShiftGrid(lattice)
        likelihood = log_likelihoods(images, noise, *compared, resources=resources)
        beta = temperature_for_spread(likelihood, stage.spread, log_prior=prior[:, :, None], tolerance=0.02)
    # the prior has the same temperature as the likelihood, or large classes would take over the others during annealing
    log_prior = np.repeat(beta * np.log(np.maximum(state.share, 1e-12)), stage.n_psi)
    options = SearchOptions(inverse_temperature=beta, accumulate=True)
    if on_gpu:
        import cupy

        references = cupy.asarray(references)
    states = ReferenceSlices(references, log_prior, state.classes)

    def search(images: ParticleSpectra, rows: np.ndarray) -> Posterior:
        images = _shifted(images, base[rows])
        prior = shift_log_prior(lattice, state.shift_sd_px, base_shifts_px=moved[rows])
        shifts = ShiftGrid(lattice, prior)
        images = images.to_gpu() if on_gpu else images
        return search_poses(images, noise, states, shifts, options=options, resources=resources)

    of_particles: dict[str, np.ndarray] = {}
    first, second = (_searched(store, half, radius, search, of_particles) for half in pseudo_halves(len(store)))
    of_particles["shift_px"] += base
    return Expectation(**of_particles, sums=(first, second), inverse_temperature=beta, rotator=rotator)


def _searched(
    store: ParticleStore,
    members: np.ndarray,
    radius: int,
    search: Callable[[ParticleSpectra, np.ndarray], Posterior],
    of_particles: dict[str, np.ndarray],
) -> PoseSums:
    """Search the particles ``members`` block by block, fill in ``of_particles``, and return the sums of all blocks."""
    sums = None
    for some, images in store.subset(members).blocks(radius):
        found = search(images, members[some])
        del images  # frees the memory before the next block is loaded
        if found.sums is None:
            raise RuntimeError("the E-step did not accumulate")
        sums = found.sums if sums is None else sums.merge(found.sums)
        for name in _REMEMBERED:
            part = getattr(found, name)
            if name not in of_particles:
                of_particles[name] = np.empty((len(store), *part.shape[1:]), part.dtype)
            of_particles[name][members[some]] = part
    if sums is None:
        raise RuntimeError("the E-step has no particles")
    return sums


def _shifted(images: ParticleSpectra, shifts_px: np.ndarray) -> ParticleSpectra:
    """Return the shifted images of a block. Its own array is overwritten."""
    return replace(images, values=shift_values(images.values, images.pixels, shifts_px, in_place=True))
