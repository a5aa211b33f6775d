"""Which pose explains an image? Every (orientation, shift) of a grid against every image, as matrix products.

For image X with CTF C, noise variance σ² (of real and imaginary part each) and reference slice Y the log-likelihood
relative to pure noise is ``Re⟨C X exp(-2πi k·t/box)/σ², Y⟩ - ½ Σ C²|Y|²/σ²``: a real product of (images x shifts) by 2K
with 2K by states, and one of images by K with K by states, so the CTF is exact for every image, astigmatism included.
(Collapsing the second product to shells would be exact only for isotropic CTFs and saves less than 1/(2 shifts) of the
work: it is not done.) With ``accumulate`` the M-step follows in the same pass, again as a product, so its cost does not
grow with the number of slices an image would be inserted into. Operations: 4 n s o K for the E-step, the same for a
dense M-step, next to nothing for a peaked one.

References: Scheres 2012, doi:10.1016/j.jmb.2011.11.010 (statistical model; 99.9 % of the probability as the significant
set); Scheres 2005, doi:10.1016/j.jmb.2005.02.031 (2-D).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.search._tile import TileAnswer, TileSettings
from cryopipe.search._tile_array import ArrayTile
from cryopipe.search._tile_cpu import CpuTile
from cryopipe.search.phases import phase_table, shift_values
from cryopipe.search.posterior import PoseSums, Posterior, SignificantStates
from cryopipe.search.spectra import ParticleSpectra, content_order, inverse_variance_of

_ROWS = 1024
_ROWS_GPU = 8192


def search_poses(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    references: Any,
    shifts_px: np.ndarray,
    *,
    log_prior: np.ndarray | None = None,
    shift_log_prior: np.ndarray | None = None,
    base_shifts_px: np.ndarray | None = None,
    noise_group: np.ndarray | None = None,
    inverse_temperature: float = 1.0,
    n_references: int = 1,
    n_candidates: int = 0,
    keep_significant: bool = False,
    significant_mass: float = 0.999,
    accumulate: bool = False,
    memory_bytes: int = 1 << 30,
    threads: int | None = None,
) -> Posterior:
    """Compare every image with every reference slice at every shift.

    Parameters
    ----------
    images : ParticleSpectra
        n images of K pixels; NumPy or CuPy.
    sigma2 : ndarray [radius + 1] or [g, radius + 1]
        Noise variance of real and imaginary part each, by shell (entry 0 unused); white noise of sd 1 has 0.5. With g
        noise groups, ``noise_group`` says which row an image has.
    references : complex64 [o, K]
        Reference slices on the same pixels, without CTF: o = references x orientations, orientation running fastest.
    shifts_px : ndarray [s, 2]
        Grid of shifts (x, y): what is applied to an image to centre it.
    log_prior : ndarray [o], optional
        Log prior of the states (class shares, weights of grid points). ``-inf`` excludes a state.
    shift_log_prior : ndarray [s] or [n, s], optional
        Log prior of the shifts (`cryopipe.search.grid.shift_log_prior`).
    base_shifts_px : ndarray [n, 2], optional
        Applied to each image before the grid.
    noise_group : ndarray int [n], optional
        Row of ``sigma2`` for each image.
    inverse_temperature : float
        Multiplies the log-likelihood, not the priors (annealing).
    n_references : int
        How many references the states divide into.
    n_candidates : int
        How many of the best orientations to return for every image.
    keep_significant : bool
        Return the sparse posterior: 12 bytes an entry, which a flat posterior can have ``n s o`` of.
    significant_mass : float
        Share of the probability that the significant states hold; the M-step uses these, renormalised to one.
    accumulate : bool
        Return the M-step's sums.
    memory_bytes : int
        Budget of the tile of scores (references, their powers and the sums, 12 to 24 bytes an ``o K``, come on top).
    threads : int, optional
        CPU threads of the products; Numba's number by default.

    Returns
    -------
    Posterior
        Images are worked on in the order of their content (`content_order`): rows and sums have the same bits in
        whatever order a set of images is given and with any number of threads. Another set, or another budget, can
        change an image's row in its last digits (the place in a BLAS product decides the order of its additions).

    Raises
    ------
    InputError
        Shapes do not fit, a noise variance is not positive, or a value is not finite.
    """
    xp = array_module(images.values, references)
    n, n_states, n_shifts = len(images), len(references), len(shifts_px)
    _check(images, references, shifts_px, n_references, inverse_temperature, significant_mass)
    variance = inverse_variance_of(images, sigma2, noise_group)
    group = np.zeros(n, np.int64) if noise_group is None else np.asarray(noise_group, np.int64)
    log_state = _log_prior(log_prior, (n_states,), "log_prior")
    log_shift = np.broadcast_to(_log_prior(shift_log_prior, None, "shift_log_prior", (n, n_shifts)), (n, n_shifts))
    settings = TileSettings(
        images=_images_a_tile(n_shifts, n_states, memory_bytes, xp),
        n_shifts=n_shifts,
        n_references=n_references,
        inverse_temperature=float(inverse_temperature),
        mass=float(significant_mass),
        n_candidates=n_candidates,
        keep_significant=keep_significant,
        accumulate=accumulate,
    )
    answers: list[TileAnswer] = []
    order = content_order(images)
    data_power = np.zeros(len(images.pixels))
    with _tile(xp, references, settings, threads) as tile:
        phases = xp.asarray(phase_table(images.pixels, shifts_px))
        device_state, device_variance = xp.asarray(log_state), xp.asarray(variance)
        for start in range(0, n, settings.images):
            part = order[start : start + settings.images]
            values, ctf, inverse = _tile_data(xp, images, part, base_shifts_px, device_variance, group)
            _check_finite(xp, values, ctf, part)
            tile.score(values, ctf, inverse, phases)
            answer = tile.posterior(len(part), device_state, xp.asarray(np.ascontiguousarray(log_shift[part])))
            if accumulate:
                tile.accumulate(len(part), answer)
                data_power += _whitened_power(xp, values, inverse)
            if not keep_significant:
                answer.state, answer.shift, answer.weight = answer.state[:0], answer.shift[:0], answer.weight[:0]
            answers.append(answer)
        sums = PoseSums(*tile.sums(), data_power, n) if accumulate else None
    return _posterior(answers, settings, order, np.asarray(shifts_px, np.float64), base_shifts_px, sums)


def log_likelihoods(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    references: Any,
    shifts_px: np.ndarray,
    *,
    base_shifts_px: np.ndarray | None = None,
    noise_group: np.ndarray | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """Return all log-likelihoods (relative to pure noise) of a few images, float32 ``[n, s, o]``.

    Parameters are those of `search_poses`. It is what temperatures are chosen from (`cryopipe.search.annealing`); the
    result takes ``4 n s o`` bytes, so give it tens of images.
    """
    xp = array_module(images.values, references)
    n = len(images)
    _check(images, references, shifts_px, 1, 1.0, 1.0)
    variance = xp.asarray(inverse_variance_of(images, sigma2, noise_group))
    group = np.zeros(n, np.int64) if noise_group is None else np.asarray(noise_group, np.int64)
    images_a_tile = _images_a_tile(len(shifts_px), len(references), 1 << 30, xp)
    settings = TileSettings(images_a_tile, len(shifts_px), 1, 1.0, 1.0, 0, False, False)
    result = np.empty((n, len(shifts_px), len(references)), np.float32)
    with _tile(xp, references, settings, threads) as tile:
        phases = xp.asarray(phase_table(images.pixels, shifts_px))
        for start in range(0, n, images_a_tile):
            part = np.arange(start, min(start + images_a_tile, n))
            tile.score(*_tile_data(xp, images, part, base_shifts_px, variance, group), phases)
            result[part] = tile.log_likelihoods(len(part))
    return result


def _tile(xp: Any, references: Any, settings: TileSettings, threads: int | None) -> CpuTile | ArrayTile:
    if xp is np:
        return CpuTile(references, settings, numba.get_num_threads() if threads is None else threads)
    return ArrayTile(references, settings)


def _images_a_tile(n_shifts: int, n_states: int, memory_bytes: int, xp: Any) -> int:
    """Enough rows for a product at full speed, as the budget allows; depends on the problem, not on the images."""
    rows, bytes_a_score = (_ROWS, 4) if xp is np else (_ROWS_GPU, 40)  # array expressions keep several copies
    affordable = memory_bytes // (bytes_a_score * max(n_states, 1))
    return max(1, min(rows, affordable) // n_shifts)


def _tile_data(
    xp: Any,
    images: ParticleSpectra,
    part: np.ndarray,
    base_shifts_px: np.ndarray | None,
    variance: Any,
    group: np.ndarray,
) -> tuple[Any, Any, Any]:
    index = xp.asarray(part)
    values, ctf = images.values[index], images.ctf[index]
    if base_shifts_px is not None:
        base = np.asarray(base_shifts_px, np.float64)[part]
        on_cpu = xp is np
        values = (
            shift_values(values, images.pixels, base)
            if on_cpu
            else values * xp.asarray(phase_table(images.pixels, base))
        )
    return values, ctf, variance[xp.asarray(group[part])]


def _whitened_power(xp: Any, values: Any, inverse_variance: Any) -> np.ndarray:
    power = (values.real**2 + values.imag**2) * inverse_variance
    return to_numpy(power.sum(axis=0, dtype=np.float64))


def _posterior(
    answers: list[TileAnswer],
    settings: TileSettings,
    order: np.ndarray,
    shifts: np.ndarray,
    base: np.ndarray | None,
    sums: PoseSums | None,
) -> Posterior:
    """Put the tiles' answers together, in the order of the images given."""
    if not answers:
        answers = [TileAnswer.empty(0, settings)]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))  # where in the tiles an image was

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(answer, name) for answer in answers])

    number, best, candidate, kept = (joined(name)[place] for name in ("number", "best", "candidate", "kept"))
    offset = np.zeros((len(order), 2)) if base is None else np.asarray(base, np.float64)
    significant = None
    if settings.keep_significant:
        start = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        there = np.concatenate([[0], np.cumsum(joined("kept"))])[place]
        entry = np.repeat(there - start[:-1], kept) + np.arange(start[-1])
        significant = SignificantStates(start, *(joined(name)[entry] for name in ("state", "shift", "weight")))
    return Posterior(
        best_state=best[:, 0],
        best_shift=best[:, 1],
        shift_px=offset + shifts[best[:, 1]],
        mean_shift_px=offset + joined("shift_probability")[place] @ shifts,
        log_evidence=number[:, 0],
        max_probability=number[:, 1],
        n_effective=number[:, 2],
        n_significant=kept,
        reference_probability=joined("reference_probability")[place],
        best_dot=number[:, 3],
        best_norm=number[:, 4],
        candidate_state=candidate[:, :, 0],
        candidate_shift=candidate[:, :, 1],
        candidate_log=joined("candidate_log")[place],
        significant=significant,
        sums=sums,
    )


def _check_finite(xp: Any, values: Any, ctf: Any, part: np.ndarray) -> None:
    finite = to_numpy(xp.isfinite(values.sum(axis=1)) & xp.isfinite(ctf.sum(axis=1)))
    if not finite.all():
        image = int(part[~finite].min())
        raise InputError(f"image {image + 1} or its CTF contains NaN or infinite values: remove the particle")


def _check(
    images: ParticleSpectra,
    references: Any,
    shifts: np.ndarray,
    n_references: int,
    inverse_temperature: float,
    mass: float,
) -> None:
    if references.ndim != 2 or references.shape[1] != len(images.pixels) or len(references) == 0:
        raise InputError(
            f"references of shape {tuple(references.shape)} do not fit images with {len(images.pixels)} Fourier "
            "pixels: "
            "extract them on images.pixels"
        )
    if np.ndim(shifts) != 2 or np.shape(shifts)[1] != 2 or len(shifts) == 0:
        raise InputError(
            f"shifts of shape {np.shape(shifts)}: a grid [s, 2] of (x, y) is needed, one zero shift at least"
        )
    if n_references < 1 or len(references) % n_references:
        raise InputError(f"{len(references)} states do not divide into {n_references} references")
    if not 0 <= inverse_temperature < np.inf:
        raise InputError(f"inverse temperature {inverse_temperature}: it must be zero or a positive number")
    if not 0 < mass <= 1:
        raise InputError(f"significant mass {mass}: it must lie above 0 and at most at 1")
    if not bool(array_module(references).isfinite(references).all()):
        raise InputError("references contain NaN or infinite values: the map they come from is damaged")


def _log_prior(
    prior: np.ndarray | None, shape: tuple[int, ...] | None, name: str, either: tuple[int, int] = (0, 0)
) -> np.ndarray:
    if prior is None:
        return np.zeros(shape if shape is not None else (1, 1), np.float32)
    prior = np.asarray(prior, np.float32)
    fits = prior.shape == shape if shape is not None else prior.shape in {either, either[1:]}
    if not fits or np.isnan(prior).any() or np.any(prior == np.inf):
        raise InputError(f"{name} of shape {prior.shape} does not fit, or has NaN or +inf")
    # -inf would turn into NaN in differences; -1e30 is as impossible.
    return np.maximum(prior, np.float32(-1e30))
