"""A map from nothing by stochastic gradient descent with momentum, as in RELION 3.1's 3D initial model.

One iteration takes a mini-batch, spreads every particle over all poses (expectation), makes a map of the mini-batch and
moves the current map V towards it: ``dV <- mu dV + (1 - mu) step (V_batch - V)``, ``V <- V + dV``. Resolution and batch
size grow linearly between an initial and a final phase. As in RELION the start is the reconstruction of the first
particles in random orientations, and noise spectra are running averages with the same mu. RELION's mu = 0.9 and
step = 0.5 belong to 300 small mini-batches; the defaults here (0.5 and 1 for 30 larger ones) take a tenth of the time.

What keeps a hollow, highly symmetric shell out of the trap "right radial profile, wrong orientations" differs from
RELION 3.1: a map of the mini-batch regularised by a share of each shell's mean weight (a prior from the current map's
power starves just the shells that could tell the orientations), resolutions from 15 to 10 Å, images masked widely
enough for what the CTF delocalises around a tightly masked map, no removal of negative density, and several seeds that
compete by the likelihood of particles that none has used. Orientations are searched in the asymmetric unit alone.
Annealing and RELION's removal of negative density in the first phase are options.

Sources: Punjani et al. 2017 (doi:10.1038/nmeth.4169) for the method, RELION 3.1 (Zivanov et al. 2018,
doi:10.7554/eLife.42166; ``ml_optimiser.cpp``) for schedule and update. Known limits: one class; the hand is not
determined; in C1 the map's frame is arbitrary; half or more of the seeds end in the trap, which their held-out
likelihood shows: if all evidences lie close together, take more seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.base import require
from cryopipe.config.initial_volume import InitialRelionSgd
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.fingerprint import fingerprint
from cryopipe.imaging.geometry import matrix_to_euler, random_rotations
from cryopipe.imaging.masks import soft_sphere
from cryopipe.imaging.symmetry import reduce_to_asymmetric_unit, symmetrise_volume
from cryopipe.initial_volume.schedule import Iteration, draw_batch, schedule
from cryopipe.io.atomic import atomic_path, atomic_write
from cryopipe.io.mrc import image_size, parse_image_name, write_volume
from cryopipe.io.star import StarTable, read_table, write_table
from cryopipe.kernels.devices import Resources
from cryopipe.kernels.slices import extract_slices
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_keys import canonical_order, particle_keys
from cryopipe.projection.particle_spectra import ParticleSpectra, load_particle_spectra
from cryopipe.projection.pose_sums import PoseSums
from cryopipe.projection.references import ReferenceSlices, reference_cube
from cryopipe.projection.working_box import in_box, resize_map, working_box
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.search.annealing import temperature_for_spread
from cryopipe.search.exhaustive.search import log_likelihoods, search_poses
from cryopipe.search.grid import orientation_grid, orientation_weights, random_displacement
from cryopipe.search.options import SearchOptions
from cryopipe.search.posterior import Posterior
from cryopipe.search.shifts import ShiftGrid, shift_grid

PADDING = 2
#: particles from whose likelihoods the temperature is found
_TEMPERATURE_SAMPLE = 32


@dataclass(frozen=True)
class Setting:
    """What does not change during the runs: group, box of the working map, masks, grids of shifts."""

    symmetry: str
    box: int
    mask: NDArray[np.float32]
    shifts_px: NDArray[np.float64]
    params: InitialRelionSgd
    threads: int


@dataclass
class State:
    """A run between two iterations; all of it goes into the checkpoint."""

    iteration: int
    volume: NDArray[np.float32]
    step: NDArray[np.float32]
    sigma2: NDArray[np.float64]
    history: list[list[float]]


HISTORY = (
    "seed",
    "iteration",
    "resolution_A",
    "batch",
    "inverse_temperature",
    "mean_max_probability",
    "relative_step",
    "held_out",
)


def setting_for(images: ParticleSpectra, params: InitialRelionSgd, *, threads: int) -> Setting:
    """Return mask and shift grid for particles in their working box."""
    symmetry, diameter = require(params, "symmetry", "particle_diameter_A")
    radius_px = 0.5 * params.mask_diameter_factor * diameter / images.pixel_size_A
    mask = soft_sphere(images.box, min(radius_px, images.box / 2 - 4), edge_px=3.0)
    range_A, step_A = require(params, "offset_range_A", "offset_step_A")
    shifts = shift_grid(range_A / images.pixel_size_A, step_A / images.pixel_size_A)
    return Setting(symmetry, images.box, mask, shifts, params, threads)


def start_state(images: ParticleSpectra, setting: Setting, first: Iteration, rng: np.random.Generator) -> State:
    """Reconstruct the first particles in random orientations; the noise starts as the images' own power."""
    sigma2 = image_power(images)
    chosen = images.subset(np.sort(rng.permutation(len(images))[: first.batch])).crop(first.radius)
    sums = Reconstruction.empty(setting.box, first.radius, symmetry=setting.symmetry, expected_slices=len(chosen))
    sums.insert(chosen, random_rotations(rng, len(chosen)), np.zeros((len(chosen), 2)), 1 / sigma2)
    volume = _constrain(sums.solve(threads=setting.threads), setting, positive=True)
    return State(0, volume, np.zeros_like(volume), sigma2, [])


def iterate(
    state: State, images: ParticleSpectra, plan: Iteration, setting: Setting, rng: np.random.Generator
) -> tuple[State, dict[str, float]]:
    """Take one mini-batch: expectation over all poses, Wiener map, momentum step, constraints.

    Parameters
    ----------
    state : State
        Not modified.
    images : ParticleSpectra
        The mini-batch.
    plan : Iteration
        Radius, grid, temperature.
    setting : Setting
        Group, masks, grids.
    rng : Generator
        Displaces the grid.
    """
    params = setting.params
    batch = images.crop(plan.radius)
    grid = orientation_grid(plan.order, setting.symmetry)
    prior = np.log(orientation_weights(grid, setting.symmetry))
    grid = random_displacement(rng, plan.order) @ grid
    slices = _slices(state.volume, batch, grid, setting.threads)
    noise, references, shifts = NoiseModel(state.sigma2), ReferenceSlices(slices, prior), ShiftGrid(setting.shifts_px)
    resources = Resources(threads=setting.threads)
    temperature = 1.0
    if plan.effective_poses > 0:
        sample = batch.subset(slice(0, _TEMPERATURE_SAMPLE))
        likelihoods = log_likelihoods(sample, noise, references, shifts, resources=resources)
        temperature = temperature_for_spread(likelihoods, plan.effective_poses, log_prior=prior)
    options = SearchOptions(inverse_temperature=temperature, accumulate=True)
    found = search_poses(batch, noise, references, shifts, options=options, resources=resources)
    posed = cast(PoseSums, found.sums)
    sums = Reconstruction.empty(setting.box, plan.radius, symmetry=setting.symmetry, expected_slices=len(grid))
    sums.insert_sums(posed, grid, batch.pixels)
    target = sums.solve(ssnr=np.full(plan.radius + 1, 1 / params.regularisation), threads=setting.threads)
    step = params.momentum * state.step + (1 - params.momentum) * params.step_size * (target - state.volume)
    volume = _constrain(state.volume + step, setting, positive=plan.positive)
    sigma2 = state.sigma2.copy()
    ratio = posed.noise_ratio(slices, batch.pixels)
    sigma2[: plan.radius + 1] *= params.momentum + (1 - params.momentum) * ratio
    size = float(np.linalg.norm(volume - state.volume) / max(float(np.linalg.norm(volume)), 1e-30))
    numbers = {
        "inverse_temperature": temperature,
        "max_probability": float(found.max_probability.mean()),
        "relative_step": size,
    }
    return State(state.iteration + 1, volume, step, sigma2, state.history), numbers


def run_seed(
    training: ParticleSpectra, held_out: ParticleSpectra, setting: Setting, context: Context, *, seed: int
) -> tuple[State, float]:
    """Carry one seed through its schedule, from its checkpoint if there is one, and judge it by unused particles.

    Returns
    -------
    state : State
        After the last iteration.
    score : float
        Of the held-out particles (`score`).
    """
    params = setting.params
    side_A = training.box * training.pixel_size_A
    plans = schedule(params, particles=len(training), side_A=side_A, largest_radius=training.pixels.radius)
    checkpoint = context.work_dir / f"seed_{seed}.npz"
    stamp = fingerprint(context, params, training, seed)
    state = _load(checkpoint, stamp)
    if state is None:
        state = start_state(training, setting, plans[0], context.rng(f"seed {seed} start"))
    while state.iteration < len(plans):
        i = state.iteration
        plan = plans[i]
        epochs = range(plan.start // len(training), (plan.start + plan.batch - 1) // len(training) + 1)
        order = {e: context.rng(f"seed {seed} epoch {e}").permutation(len(training)) for e in epochs}
        batch = training.subset(draw_batch(plan, order, len(training)))
        state, numbers = iterate(state, batch, plan, setting, context.rng(f"seed {seed} iteration {i}"))
        row = [seed, i + 1, side_A / plan.radius, len(batch), *numbers.values()]
        state.history.append([float(value) for value in row])
        _save(checkpoint, state, stamp)
        context.progress(i + 1, len(plans), f"iterations of seed {seed}")
    return state, score(held_out, state, setting)


def score(images: ParticleSpectra, state: State, setting: Setting) -> float:
    """Return the mean log evidence of an image, over noise that has the images' own mean power.

    Every run has a noise spectrum of its own, and its evidence counts over that noise: only against a noise that all
    runs share do their evidences compare. Without this a run that calls signal noise can win.
    """
    found = expectation(images, state, setting)
    shell = images.pixels.shell
    count = np.bincount(shell)[1:]
    power = image_power(images)[1:]
    sigma2 = state.sigma2[1 : len(power) + 1]
    weights = orientation_weights(orientation_grid(setting.params.healpix_order, setting.symmetry), setting.symmetry)
    evidence = found.log_evidence.mean() - np.log(weights.sum() * len(setting.shifts_px))  # priors sum to one
    return float(evidence - np.sum(count * (power / sigma2 - 1 + np.log(sigma2 / power))))


def image_power(images: ParticleSpectra) -> NDArray[np.float64]:
    """Return the mean variance of real and imaginary part each, by shell; shell 0, which no pixel has, as shell 1."""
    shells = images.pixels.radius + 1
    power = np.square(images.values.real) + np.square(images.values.imag)
    total = np.bincount(images.pixels.shell, power.mean(axis=0, dtype=np.float64), shells)
    mean: NDArray[np.float64] = total / np.maximum(2 * np.bincount(images.pixels.shell, minlength=shells), 1)
    mean[0] = mean[1]
    return mean


def expectation(images: ParticleSpectra, state: State, setting: Setting, *, candidates: int = 0) -> Posterior:
    """Search all poses of all images against the map of a finished run, at full resolution and temperature one."""
    grid = orientation_grid(setting.params.healpix_order, setting.symmetry)
    slices = _slices(state.volume, images, grid, setting.threads)
    return search_poses(
        images,
        NoiseModel(state.sigma2),
        ReferenceSlices(slices, np.log(orientation_weights(grid, setting.symmetry))),
        ShiftGrid(setting.shifts_px),
        options=SearchOptions(candidates=candidates),
        resources=Resources(threads=setting.threads),
    )


def _slices(
    volume: NDArray[np.float32], images: ParticleSpectra, grid: NDArray[np.float64], threads: int
) -> NDArray[np.complex64]:
    pixels = images.pixels
    cube = reference_cube(volume, pixels.radius, padding=PADDING, threads=threads)
    slices: NDArray[np.complex64] = extract_slices(cube, grid, pixels.kx, pixels.ky, padding=PADDING)
    return slices


def _constrain(volume: NDArray[np.float32], setting: Setting, *, positive: bool) -> NDArray[np.float32]:
    if positive:
        volume = np.maximum(volume, 0)
    return symmetrise_volume(volume * setting.mask, setting.symmetry)


def _save(path: Path, state: State, stamp: str) -> None:
    with atomic_path(path) as temporary:
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(state).items()}
        np.savez(temporary, stamp=np.array(stamp), **arrays)


def _load(path: Path, stamp: str) -> State | None:
    """Read a checkpoint; None where there is none or it belongs to other particles or parameters."""
    if not path.exists():
        return None
    with np.load(path) as kept:
        if str(kept["stamp"]) != stamp:
            return None
        return State(int(kept["iteration"]), kept["volume"], kept["step"], kept["sigma2"], kept["history"].tolist())


def split_particles(keys: list[str], *, held_out: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows for training, and rows that no mini-batch sees: those of smallest hash, at most a fifth of all."""
    count = min(held_out, len(keys) // 5)
    if count < 2 or len(keys) < 20:
        raise InputError(
            f"{len(keys)} particles are too few for an initial model; 20 is the least, hundreds are sensible."
        )
    order = np.argsort([hashlib.sha256(key.encode()).hexdigest() for key in keys], kind="stable")
    return np.sort(order[count:]), np.sort(order[:count])


def image_box(table: StarTable) -> int:
    """Return the side in px of the particle images, from the first stack's header."""
    return int(image_size(parse_image_name(table.rows["rlnImageName"].iloc[0])[1]).shape[-1])


def load_images(table: StarTable, params: InitialRelionSgd, *, threads: int) -> ParticleSpectra:
    """Read particles to the final resolution, soft-masked, as of a box whose Nyquist frequency is 1.5 times finer."""
    diameter, final_A = require(params, "particle_diameter_A", "final_resolution_A")
    size = image_box(table)
    side_A = size * table.single("rlnImagePixelSize")
    radius = min(round(side_A / final_A), size // 2 - 1)
    mask_A = min(params.image_mask_diameter_factor * diameter, 0.95 * side_A)
    images = load_particle_spectra(table, radius=radius, mask_diameter_A=mask_A, threads=threads)
    return in_box(images, working_box(radius, largest=size, oversampling=1.5))


def with_poses(table: StarTable, found: Posterior, setting: Setting, pixel_size_A: float) -> StarTable:
    """Return the table with the best grid pose of each particle, moved into the asymmetric unit."""
    grid = orientation_grid(setting.params.healpix_order, setting.symmetry)
    angles = matrix_to_euler(reduce_to_asymmetric_unit(grid[found.best_state], setting.symmetry))
    columns = {
        "rlnAngleRot": angles[:, 0],
        "rlnAngleTilt": angles[:, 1],
        "rlnAnglePsi": angles[:, 2],
        "rlnOriginXAngst": found.shift_px[:, 0] * pixel_size_A,
        "rlnOriginYAngst": found.shift_px[:, 1] * pixel_size_A,
        "rlnMaxValueProbDistribution": found.max_probability,
    }
    return table.with_rows(table.rows.assign(**columns))


def main(inputs: Mapping[str, Any], outputs: Mapping[str, Path], params: InitialRelionSgd, context: Context) -> None:
    """Read particles; write the best seed's map at their box and pixel size, their poses, the history of all seeds."""
    table = read_table(inputs["particles"], "particles")
    table = table.with_rows(table.rows.iloc[canonical_order(table.rows)])
    training_rows, held_out_rows = split_particles(particle_keys(table.rows), held_out=params.held_out)
    images = load_images(table, params, threads=context.threads)
    setting = setting_for(images, params, threads=context.threads)
    training, held_out = images.subset(training_rows), images.subset(held_out_rows)
    runs = []
    for seed in range(1, params.seeds + 1):
        state, score = run_seed(training, held_out, setting, context, seed=seed)
        context.log.info("seed %d: held-out log evidence %.3f", seed, score)
        runs.append((score, state))
    best = max(range(len(runs)), key=lambda i: runs[i][0])
    state = runs[best][1]
    found = expectation(images, state, setting, candidates=1)
    volume = resize_map(state.volume, image_box(table), workers=context.threads)
    write_volume(outputs["map"], symmetrise_volume(volume, setting.symmetry), table.single("rlnImagePixelSize"))
    write_table(outputs["particles"], with_poses(table, found, setting, images.pixel_size_A))
    lines = ["\t".join(HISTORY)]
    for score, run in runs:
        lines += ["\t".join(f"{v:.6g}" for v in [*row, score]) for row in run.history]
    atomic_write(outputs["history"], "\n".join(lines) + "\n")
