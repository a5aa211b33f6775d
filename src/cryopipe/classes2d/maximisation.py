"""One iteration of expectation maximisation over (class, in-plane angle, shift), soft in all three."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cryopipe.classes2d.averages import ClassSums, centre_of_mass, resolution_of, solve_averages
from cryopipe.classes2d.rotation import Rotator, grids_of_images, images_of_grids, make_rotator
from cryopipe.classes2d.schedule import Stage
from cryopipe.config.classes2d import Classify2d
from cryopipe.imaging.backend import to_numpy
from cryopipe.imaging.fourier import shift_images
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

#: Images whose log-likelihoods choose the temperature.
TEMPERATURE_SAMPLE = 16


@dataclass(frozen=True, eq=False)
class State:
    """All that an iteration hands to the next; saving it makes a run resumable.

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
        Zero-based.
    frc : float64 ``[classes, shells]``
        Ring correlation of the pseudo-halves; empty before the first iteration.
    """

    averages: np.ndarray
    share: np.ndarray
    sigma2: np.ndarray
    shift_px: np.ndarray
    shift_sd_px: float
    best_class: np.ndarray
    frc: np.ndarray


@dataclass(frozen=True, eq=False)
class Expectation:
    """What the E-step found, particles in the order of the input."""

    posterior: tuple[Posterior, Posterior]
    halves: tuple[np.ndarray, np.ndarray]
    base_shift_px: np.ndarray
    inverse_temperature: float
    rotator: Rotator

    def gather(self, name: str) -> np.ndarray:
        """Return the attribute ``name`` of both halves' posteriors, back in the order of the particles."""
        parts = [np.asarray(getattr(p, name)) for p in self.posterior]
        whole = np.empty((sum(map(len, self.halves)), *parts[0].shape[1:]), dtype=parts[0].dtype)
        for members, part in zip(self.halves, parts, strict=True):
            whole[members] = part
        return whole

    def shift_px(self) -> np.ndarray:
        """Return the best shift of each particle ``[n, 2]``, what it was shifted by before the search included."""
        return self.base_shift_px + self.gather("shift_px")


def starting_state(
    spectra: ParticleSpectra,
    prior_shift_px: np.ndarray,
    classes: int,
    params: Classify2d,
    rng: np.random.Generator,
    mask: np.ndarray,
) -> State:
    """Return averages of random disjoint subsets at random angles; the noise is that of the images."""
    n = len(spectra)
    power = np.square(np.abs(spectra.values)).mean(axis=0, dtype=np.float64)
    shells = spectra.pixels.shell
    count = np.bincount(shells)
    sigma2 = np.maximum(0.5 * np.bincount(shells, weights=power) / np.maximum(count, 1), 1e-12)
    start = spectra.crop(
        min(spectra.pixels.radius, max(2, int(spectra.box * spectra.pixel_size_A / params.start_resolution_A)))
    )
    rotator = make_rotator(start.pixels, 36)
    member = rng.permutation(np.arange(n) % classes)
    state = member * 36 + rng.integers(0, 36, n)
    shape = (classes * 36, len(start.pixels))
    inverse = (1.0 / sigma2[start.pixels.shell]).astype(np.float32)
    sums = []
    for half in _halves(n):
        numerator, weight = np.zeros(shape, dtype=np.complex64), np.zeros(shape, dtype=np.float32)
        np.add.at(numerator, state[half], start.ctf[half] * start.values[half] * inverse)
        np.add.at(weight, state[half], np.square(start.ctf[half]) * inverse)
        sums.append(ClassSums(rotator.add_up(numerator, classes), rotator.add_up(weight, classes).real))
    grids, frc = solve_averages((sums[0], sums[1]), tau_fudge=params.tau_fudge)
    averages = images_of_grids(grids, spectra.box) * mask
    sd = 0.5 * max(float(params.offset_range_A or 0.0), 4.0) / spectra.pixel_size_A
    return State(
        averages, np.full(classes, 1.0 / classes), sigma2, prior_shift_px.copy(), sd, member, _padded(frc, sigma2)
    )


def expectation(
    spectra: ParticleSpectra,
    prior_shift_px: np.ndarray,
    state: State,
    stage: Stage,
    *,
    psi_offset_deg: float = 0.0,
    threads: int = 1,
    on_gpu: bool = False,
) -> Expectation:
    """Compare all particles with all averages; the sums are kept for two halves of the particles.

    Parameters
    ----------
    spectra : ParticleSpectra
        To the finest radius; cropped here to the stage's.
    prior_shift_px : ``[n, 2]``
        Where the picker saw the particles.
    psi_offset_deg : float
        Turns the grid of angles, so that no angle is favoured over the iterations.
    """
    radius = min(spectra.pixels.radius, max(2, int(spectra.box * spectra.pixel_size_A / stage.resolution_A)))
    images = spectra.crop(radius)
    rotator = make_rotator(images.pixels, stage.n_psi, offset_deg=psi_offset_deg)
    references = rotator.references(grids_of_images(state.averages, rotator.radius, workers=threads))
    lattice = shift_grid(stage.shift_range_A / images.pixel_size_A, stage.shift_step_A / images.pixel_size_A)
    base = state.shift_px if stage.around_best else prior_shift_px
    images = replace(images, values=shift_values(np.ascontiguousarray(images.values), images.pixels, base))
    prior = shift_log_prior(lattice, state.shift_sd_px, base_shifts_px=base - prior_shift_px)
    shifts, noise, resources = ShiftGrid(lattice, prior), NoiseModel(state.sigma2), Resources(threads=threads)
    beta = 1.0
    if stage.spread is not None:
        sample = np.unique(np.linspace(0, len(images) - 1, TEMPERATURE_SAMPLE).round().astype(int))
        likelihood = log_likelihoods(
            images.subset(sample), noise, ReferenceSlices(references), ShiftGrid(lattice), resources=resources
        )
        beta = temperature_for_spread(likelihood, stage.spread, log_prior=prior[sample][:, :, None], tolerance=0.02)
    # tempered like the likelihood: otherwise, while hot, large classes swallow the others
    log_prior = np.repeat(beta * np.log(np.maximum(state.share, 1e-12)), stage.n_psi)
    device_references = references
    if on_gpu:
        import cupy

        device_references = cupy.asarray(references)
    found = []
    halves = _halves(len(images))
    for members in halves:
        part = images.subset(members)
        found.append(
            search_poses(
                part.to_gpu() if on_gpu else part,
                noise,
                ReferenceSlices(device_references, log_prior, len(state.averages)),
                shifts.subset(members),
                options=SearchOptions(inverse_temperature=beta, accumulate=True),
                resources=resources,
            )
        )
    return Expectation((found[0], found[1]), halves, base, beta, rotator)


def maximisation(
    spectra: ParticleSpectra,
    prior_shift_px: np.ndarray,
    state: State,
    stage: Stage,
    found: Expectation,
    params: Classify2d,
    *,
    mask: np.ndarray,
    threads: int = 1,
) -> State:
    """Return new averages, shares, noise and shifts from the sums of the E-step."""
    classes = len(state.averages)
    halves = [_class_sums(p.sums, found.rotator, classes) for p in found.posterior]
    grids, frc = solve_averages((halves[0], halves[1]), tau_fudge=params.tau_fudge)
    averages = images_of_grids(grids, spectra.box, workers=threads) * mask
    probability = found.gather("reference_probability").sum(axis=0)
    # a Dirichlet prior of 2 % of a fair share keeps one class from taking everything
    share = probability + 0.02 * len(spectra) / classes
    shift = found.shift_px()
    psi = found.gather("best_state") % stage.n_psi
    best = (found.gather("best_state") // stage.n_psi).astype(np.int64)
    if params.recentre:
        averages, shift = _recentred(averages, shift, best, found.rotator.rotations[psi], mask)
    moved = shift - prior_shift_px
    sd = float(np.clip(np.sqrt(np.mean(moved**2)), 2.0 / spectra.pixel_size_A, 10.0 / spectra.pixel_size_A))
    new = State(averages, share / share.sum(), _new_noise(state, found), shift, sd, best, _padded(frc, state.sigma2))
    return _revived(spectra, new, found, stage, params, mask) if stage.revive else new


def class_resolutions(state: State, box_A: float) -> np.ndarray:
    """Return each class's resolution in Å (FRC of its pseudo-halves falls below 0.5)."""
    return resolution_of(state.frc, box_A)


def _class_sums(sums: PoseSums | None, rotator: Rotator, classes: int) -> ClassSums:
    if sums is None:
        raise RuntimeError("the E-step did not accumulate")
    numerator, weight = to_numpy(sums.numerator), to_numpy(sums.weight)
    return ClassSums(rotator.add_up(numerator, classes), rotator.add_up(weight, classes).real)


def _new_noise(state: State, found: Expectation) -> np.ndarray:
    first, second = (p.sums for p in found.posterior)
    if first is None or second is None:
        raise RuntimeError("the E-step did not accumulate")
    pixels = found.rotator.pixels
    references = found.rotator.references(grids_of_images(state.averages, found.rotator.radius))
    host = PoseSums(to_numpy(first.numerator), to_numpy(first.weight), first.data_power, first.n_images).merge(
        PoseSums(to_numpy(second.numerator), to_numpy(second.weight), second.data_power, second.n_images)
    )
    ratio = host.noise_ratio(references, pixels)
    sigma2 = state.sigma2.copy()
    inside = slice(1, pixels.radius + 1)
    sigma2[inside] *= np.clip(ratio[inside], 0.2, 5.0)
    return sigma2


def _recentred(
    averages: np.ndarray, shift: np.ndarray, best: np.ndarray, rotations: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move each average's centre of mass to the centre and its members' shifts along: t becomes t + A d."""
    move = np.clip(-centre_of_mass(averages), -0.05 * averages.shape[-1], 0.05 * averages.shape[-1])
    turned = np.einsum("nij,nj->ni", rotations[:, :2, :2], move[best])
    return shift_images(averages, move) * mask, shift + turned


def _revived(
    spectra: ParticleSpectra, state: State, found: Expectation, stage: Stage, params: Classify2d, mask: np.ndarray
) -> State:
    """Give each class that lost nearly all probability the worse explained half of one of the largest classes."""
    classes = len(state.share)
    probability = found.gather("reference_probability").sum(axis=0) / len(spectra)
    empty = np.flatnonzero(probability < 0.1 / classes)
    donors = np.argsort(-np.bincount(state.best_class, minlength=classes), kind="stable")
    if empty.size == 0:
        return state
    images = spectra.crop(found.rotator.pixels.radius)
    inverse = (1.0 / state.sigma2[images.pixels.shell]).astype(np.float32)
    residual = (
        (np.square(np.abs(images.values)) * inverse).sum(axis=1)
        - 2 * found.gather("best_dot")
        + found.gather("best_norm")
    )
    psi = found.gather("best_state") % stage.n_psi
    shifted = shift_values(np.ascontiguousarray(images.values), images.pixels, found.shift_px())
    averages, share = state.averages.copy(), state.share.copy()
    for c, donor in zip(empty, donors, strict=False):
        members = np.flatnonzero(state.best_class == donor)
        if len(members) < 8:
            break
        members = members[np.argsort(-residual[members], kind="stable")][: len(members) // 2]
        sums = []
        for half in (members[0::2], members[1::2]):
            numerator = np.zeros((stage.n_psi, len(images.pixels)), dtype=np.complex64)
            weight = np.zeros(numerator.shape, dtype=np.float32)
            np.add.at(numerator, psi[half], images.ctf[half] * shifted[half] * inverse)
            np.add.at(weight, psi[half], np.square(images.ctf[half]) * inverse)
            sums.append(ClassSums(found.rotator.add_up(numerator, 1), found.rotator.add_up(weight, 1).real))
        grids, _ = solve_averages((sums[0], sums[1]), tau_fudge=params.tau_fudge)
        averages[c] = images_of_grids(grids, spectra.box)[0] * mask
        share[c] = share[donor] = 0.5 * share[donor]
    return replace(state, averages=averages, share=share / share.sum())


def _halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(0, n, 2), np.arange(1, n, 2)


def _padded(frc: np.ndarray, sigma2: np.ndarray) -> np.ndarray:
    """Return the curves cut or filled with zeros to the shells of ``sigma2``."""
    result = np.zeros((len(frc), len(sigma2)))
    shells = min(frc.shape[1], len(sigma2))
    result[:, :shells] = frc[:, :shells]
    return result
