"""The state of a classification between two iterations, and the state at the start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.classes2d.averages import ClassSums, resolution_of, solve_averages
from cryopipe.classes2d.particle_stack import ParticleStack
from cryopipe.classes2d.rotation import images_of_grids, make_rotator
from cryopipe.config.classes2d import Classify2d

#: number of in-plane angles at which the first averages are added up
_START_ANGLES = 36


@dataclass(frozen=True, eq=False)
class ClassificationState:
    """Averages, priors, noise, and the best class and shift of each particle.

    Attributes
    ----------
    averages : float32 ``[classes, b, b]``
    share : float64 ``[classes]``
        Prior probability of the classes.
    sigma2 : float64 ``[shells]``
        Noise variance of real and imaginary part.
    shift_px : float64 ``[n, 2]``
        Best shift of each particle.
    shift_sd_px : float
        Width of the prior of the shifts.
    best_class : int64 ``[n]``
        Best class of each particle, zero-based.
    frc : float64 ``[classes, shells]``
        Ring correlation of the pseudo-halves. It is empty before the first iteration.
    """

    averages: np.ndarray
    share: np.ndarray
    sigma2: np.ndarray
    shift_px: np.ndarray
    shift_sd_px: float
    best_class: np.ndarray
    frc: np.ndarray

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.averages)


def starting_state(
    stack: ParticleStack, classes: int, params: Classify2d, rng: np.random.Generator, mask: np.ndarray
) -> ClassificationState:
    """Return averages of random disjoint subsets at random angles. The noise spectrum is that of the images.

    Parameters
    ----------
    stack : ParticleStack
    classes : int
        Number of classes.
    params : Classify2d
        Start resolution, regularisation, range of shifts.
    rng : Generator
        Draws the class and angle of each particle.
    mask : float32 ``[b, b]``
        Mask of the averages.
    """
    store, n = stack.store, len(stack.store)
    power = np.zeros(len(store.pixels(store.radius)))
    for _, images in store.blocks(store.radius):
        magnitude = np.abs(images.values)
        del images  # frees the memory before the next block is loaded
        power += np.square(magnitude, out=magnitude).sum(axis=0, dtype=np.float64)
    shells = store.pixels(store.radius).shell
    count = np.bincount(shells)
    sigma2 = np.maximum(0.5 * np.bincount(shells, weights=power / n) / np.maximum(count, 1), 1e-12)
    radius = stack.radius_at(params.start_resolution_A)
    pixels = store.pixels(radius)
    rotator = make_rotator(pixels, _START_ANGLES)
    member = rng.permutation(np.arange(n) % classes)
    row = member * _START_ANGLES + rng.integers(0, _START_ANGLES, n)
    shape = (classes * _START_ANGLES, len(pixels))
    inverse = (1.0 / sigma2[pixels.shell]).astype(np.float32)
    sums = []
    for half in pseudo_halves(n):
        numerator, weight = np.zeros(shape, dtype=np.complex64), np.zeros(shape, dtype=np.float32)
        for some, images in store.subset(half).blocks(radius):
            np.add.at(numerator, row[half[some]], images.ctf * images.values * inverse)
            np.add.at(weight, row[half[some]], np.square(images.ctf) * inverse)
        sums.append(ClassSums(rotator.add_up(numerator, classes), rotator.add_up(weight, classes).real))
    grids, frc = solve_averages((sums[0], sums[1]), tau_fudge=params.tau_fudge)
    averages = images_of_grids(grids, store.box) * mask
    sd = 0.5 * max(float(params.offset_range_A or 0.0), 4.0) / store.pixel_size_A
    share, shift = np.full(classes, 1.0 / classes), stack.prior_shift_px.copy()
    return ClassificationState(averages, share, sigma2, shift, sd, member, padded_curves(frc, sigma2))


def class_resolutions(state: ClassificationState, box_A: float) -> np.ndarray:
    """Return the resolution of each class in Å (where the FRC of its pseudo-halves falls below 0.5)."""
    return resolution_of(state.frc, box_A)


def pseudo_halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of every other particle, and the other rows. Both are aligned to the same averages."""
    return np.arange(0, n, 2), np.arange(1, n, 2)


def padded_curves(frc: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
    """Return the curves cut or filled with zeros to the shells of ``sigma2``."""
    result = np.zeros((len(frc), len(sigma2)))
    shells = min(frc.shape[1], len(sigma2))
    result[:, :shells] = frc[:, :shells]
    return result
