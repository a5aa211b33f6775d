"""How well the map of a run explains particles: the best poses of the particles, and the evidence that compares runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryopipe.initial_volume.descent import DescentState, Setting, map_slices
from cryopipe.initial_volume.schedule import SHIFT_SHARE
from cryopipe.iteration.particle_store import ParticleStore
from cryopipe.kernels.devices import Resources
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.references import ReferenceSlices
from cryopipe.projection.working_box import in_box
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.grid import orientation_grid, orientation_weights
from cryopipe.search.options import SearchOptions
from cryopipe.search.posterior import Posterior
from cryopipe.search.shifts import ShiftGrid


def scores(store: ParticleStore, state: DescentState, setting: Setting) -> NDArray[np.float64]:
    """Return the log evidence of each particle [n], relative to noise with the mean power of the images.

    Every run has its own noise spectrum, and its evidence is relative to that noise. Evidences of runs can be compared only
    relative to a noise that is the same for all. Otherwise a run that takes signal for noise could win.
    """
    found = expectation(store, state, setting)
    shell = store.pixels(store.radius).shell
    count = np.bincount(shell)[1:]
    power = image_power(store)[1:]
    sigma2 = state.sigma2[1 : len(power) + 1]
    weights = orientation_weights(orientation_grid(setting.healpix_order, setting.symmetry), setting.symmetry)
    evidence = found.log_evidence - np.log(weights.sum() * len(all_shifts_px(store, setting)))  # priors sum to one
    own: NDArray[np.float64] = evidence - np.sum(count * (power / sigma2 - 1 + np.log(sigma2 / power)))
    return own


def all_shifts_px(store: ParticleStore, setting: Setting) -> NDArray[np.float64]:
    """Return the whole grid of shifts for the full radius of a store. It is the same for all runs."""
    return setting.shifts_px(SHIFT_SHARE * store.side_A / store.radius)


def image_power(store: ParticleStore) -> NDArray[np.float64]:
    """Return the mean variance of the real (or imaginary) part by shell. Shell 0 has no pixels and repeats shell 1."""
    pixels, shells = store.pixels(store.radius), store.radius + 1
    power = np.zeros(len(pixels))
    for _, images in store.blocks(store.radius):
        power += (np.square(images.values.real) + np.square(images.values.imag)).sum(axis=0, dtype=np.float64)
    total = np.bincount(pixels.shell, power / len(store), shells)
    mean: NDArray[np.float64] = total / np.maximum(2 * np.bincount(pixels.shell, minlength=shells), 1)
    mean[0] = mean[1]
    return mean


def expectation(store: ParticleStore, state: DescentState, setting: Setting, *, candidates: int = 0) -> Posterior:
    """Search all poses of all particles against the map of a finished run, at full resolution and temperature one.

    Parameters
    ----------
    store : ParticleStore
    state : DescentState
        The finished run.
    setting : Setting
        Point group and range of shifts.
    candidates : int
        Number of best orientations to return for every particle.
    """
    grid = orientation_grid(setting.healpix_order, setting.symmetry)
    prior = np.log(orientation_weights(grid, setting.symmetry))
    noise, shifts_px = NoiseModel(state.sigma2), all_shifts_px(store, setting)
    options, resources = SearchOptions(candidates=candidates), Resources(threads=setting.threads)
    parts, references = [], None
    centres_px = store.centres_A / setting.pixel_size_A
    for rows, block in store.blocks(store.radius):
        images, shifts = in_box(block, setting.box), ShiftGrid(shifts_px, base_px=centres_px[rows])
        if references is None:
            references = ReferenceSlices(map_slices(state.volume, images, grid, setting.threads), prior)
        parts.append(search_poses(images, noise, references, shifts, options=options, resources=resources))
    return Posterior.joined(parts)
