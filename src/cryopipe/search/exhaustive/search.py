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

from dataclasses import replace
from typing import Any

import numba
import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.kernels._memory import in_batches
from cryopipe.projection.particle_spectra import ParticleSpectra, content_order, inverse_variance_of
from cryopipe.projection.phases import phase_table
from cryopipe.search.exhaustive.tile import TileAnswer, TileData, TileSettings, group_images
from cryopipe.search.exhaustive.tile_cpu import CpuTile, held_bytes, tile_bytes
from cryopipe.search.exhaustive.tile_gpu import ArrayTile, tile_bytes_an_image
from cryopipe.search.posterior import PoseSums, Posterior, SignificantStates

_ROWS_GPU = 8192
"""Rows of a product on a GPU."""


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
    scale: np.ndarray | None = None,
    scale_sd: float = 0.0,
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
    scale : ndarray [n], optional
        Grey scale a of each image (X = a C Y + noise); 1 by default.
    scale_sd : float
        Standard deviation of a about ``scale``. Where positive, the likelihood is averaged over a Gaussian prior of a
        in closed form, state by state, and the M-step uses each image's posterior mean and mean square at its best
        state. A bright particle then explains itself by its scale instead of by a wrong pose. A wide prior (above
        0.5) admits inverted contrast.
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
        Budget of the tile of scores (`search_bytes` tells what comes on top).
    threads : int, optional
        CPU threads of the products; Numba's number by default.

    Returns
    -------
    Posterior
        Images are worked on in the order of their content (`content_order`): rows and sums have the same bits in
        whatever order a set of images is given, with any number of threads and any memory budget. In another set of
        images an image's row can differ in its last digits (the place in a BLAS product decides the order of its
        additions). On a GPU a tile that does not fit into free memory is halved.

    Raises
    ------
    InputError
        Shapes do not fit, a noise variance is not positive, a value is not finite, or the budget is too small.
    """
    xp = array_module(images.values, references)
    n, n_states, n_shifts = len(images), len(references), len(shifts_px)
    _check(images, references, shifts_px, n_references, inverse_temperature, significant_mass)
    log_state = _log_prior(log_prior, (n_states,), "log_prior")
    log_shift = np.broadcast_to(_log_prior(shift_log_prior, None, "shift_log_prior", (n, n_shifts)), (n, n_shifts))
    data = _tile_data(images, sigma2, shifts_px, base_shifts_px, noise_group, scale, xp)
    threads = numba.get_num_threads() if threads is None else threads
    settings = TileSettings(
        group_images=group_images(n_shifts, n_states),
        groups=1,
        n_shifts=n_shifts,
        n_references=n_references,
        inverse_temperature=float(inverse_temperature),
        mass=float(significant_mass),
        n_candidates=n_candidates,
        keep_significant=keep_significant,
        accumulate=accumulate,
        scale_sd=_checked_scale_sd(scale_sd),
    )
    settings = _fitted(settings, n, n_states, len(images.pixels), memory_bytes, threads, xp)
    order = content_order(images)
    host_state = xp.asarray(log_state)

    def work(part: np.ndarray) -> TileAnswer:
        _check_finite(tile.score(data, part), part)
        answer = tile.posterior(len(part), host_state, np.ascontiguousarray(log_shift[part]))
        if accumulate:
            tile.accumulate(len(part), answer)
        if not keep_significant:
            answer.state, answer.shift, answer.weight = answer.state[:0], answer.shift[:0], answer.weight[:0]
        return answer

    with _tile(xp, references, settings, threads) as tile:
        answers = in_batches(work, order, settings.images, what="image", halve=xp is not np)
        sums = PoseSums(*tile.sums(), n) if accumulate else None
    return _posterior(answers, settings, order, np.asarray(shifts_px, np.float64), data.base_shifts_px, sums)


def log_likelihoods(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    references: Any,
    shifts_px: np.ndarray,
    *,
    base_shifts_px: np.ndarray | None = None,
    noise_group: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    scale_sd: float = 0.0,
    threads: int | None = None,
) -> np.ndarray:
    """Return all log-likelihoods (relative to pure noise) of a few images, float32 ``[n, s, o]``.

    Parameters are those of `search_poses`. It is what temperatures are chosen from (`cryopipe.search.annealing`); the
    result takes ``4 n s o`` bytes, so give it tens of images.
    """
    xp = array_module(images.values, references)
    n, n_shifts, n_states = len(images), len(shifts_px), len(references)
    _check(images, references, shifts_px, 1, 1.0, 1.0)
    data = _tile_data(images, sigma2, shifts_px, base_shifts_px, noise_group, scale, xp)
    threads = numba.get_num_threads() if threads is None else threads
    sd = _checked_scale_sd(scale_sd)
    settings = TileSettings(group_images(n_shifts, n_states), 1, n_shifts, 1, 1.0, 1.0, 0, False, False, sd)
    settings = _fitted(settings, n, n_states, len(images.pixels), 1 << 30, threads, xp)
    result = np.empty((n, n_shifts, n_states), np.float32)

    def work(part: np.ndarray) -> None:
        _check_finite(tile.score(data, part), part)
        result[part] = tile.log_likelihoods(len(part))

    with _tile(xp, references, settings, threads) as tile:
        in_batches(work, np.arange(n), settings.images, what="image", halve=xp is not np)
    return result


def search_bytes(
    n_images: int, n_states: int, n_shifts: int, n_pixels: int, *, accumulate: bool = False, on_gpu: bool = False
) -> int:
    """Return the least memory that `search_poses` needs, in bytes: what to check before a job starts.

    Images (12 n K), references, their powers, the sums and the smallest tile. On a GPU all of it is device memory.
    """
    tile = TileSettings(group_images(n_shifts, n_states), 1, n_shifts, 1, 1.0, 1.0, 0, False, accumulate)
    smallest = (
        tile_bytes_an_image(n_shifts, n_states, n_pixels, accumulate=accumulate)
        if on_gpu
        else tile_bytes(tile, n_states, n_pixels)
    )
    given = 12 * n_images * n_pixels + 8 * n_states * n_pixels
    return given + held_bytes(n_states, n_pixels, accumulate=accumulate) + smallest


def _tile(xp: Any, references: Any, settings: TileSettings, threads: int) -> CpuTile | ArrayTile:
    return CpuTile(references, settings, threads) if xp is np else ArrayTile(references, settings)


def _fitted(
    settings: TileSettings, n: int, n_states: int, n_pixels: int, memory_bytes: int, threads: int, xp: Any
) -> TileSettings:
    """Return settings whose tile fits the budget and, on the CPU, gives every thread work."""
    if xp is not np:
        each = tile_bytes_an_image(settings.n_shifts, n_states, n_pixels, accumulate=settings.accumulate)
        images = min(memory_bytes // each, max(1, _ROWS_GPU // settings.n_shifts))
        _check_budget(memory_bytes, each, images, n_states)
        return replace(settings, group_images=images)
    each = tile_bytes(settings, n_states, n_pixels)
    groups = memory_bytes // each
    _check_budget(memory_bytes, each, groups, n_states)
    useful = -(-n // settings.group_images)
    return replace(settings, groups=max(1, min(groups, max(2, threads), useful)))


def _check_budget(memory_bytes: int, needed: int, affordable: int, n_states: int) -> None:
    if affordable < 1:
        raise InputError(
            f"the smallest tile of a search of {n_states} states takes {needed / 2**20:.0f} MB, memory_bytes allows "
            f"{memory_bytes / 2**20:.0f}: allow more, use fewer states or shifts, or search_adaptive"
        )


def _tile_data(
    images: ParticleSpectra,
    sigma2: np.ndarray,
    shifts_px: np.ndarray,
    base_shifts_px: np.ndarray | None,
    noise_group: np.ndarray | None,
    scale: np.ndarray | None,
    xp: Any,
) -> TileData:
    n = len(images)
    base, factor = checked_offsets(n, base_shifts_px, scale)
    return TileData(
        pixels=images.pixels,
        values=images.values,
        ctf=images.ctf,
        inverse_variance=xp.asarray(inverse_variance_of(images, sigma2, noise_group)),
        noise_group=np.zeros(n, np.int64) if noise_group is None else np.asarray(noise_group, np.int64),
        base_shifts_px=base,
        scale=factor,
        phases=xp.asarray(phase_table(images.pixels, shifts_px)),
    )


def checked_offsets(
    n: int, base_shifts_px: np.ndarray | None, scale: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return base shifts float64 [n, 2] (zero by default) and grey scales float32 [n] (one), or raise `InputError`."""
    base = np.zeros((n, 2)) if base_shifts_px is None else np.asarray(base_shifts_px, np.float64)
    if base.shape != (n, 2) or not np.isfinite(base).all():
        raise InputError(f"base shifts of shape {base.shape}: a finite (x, y) for each of {n} images is needed")
    factor = np.ones(n, np.float32) if scale is None else np.asarray(scale, np.float32)
    if factor.shape != (n,) or not np.isfinite(factor).all() or (n > 0 and factor.min() <= 0):
        raise InputError(f"grey scales of shape {factor.shape}: a positive number for each of {n} images is needed")
    return base, factor


def _checked_scale_sd(scale_sd: float) -> float:
    if not 0 <= scale_sd < np.inf:
        raise InputError(f"standard deviation {scale_sd} of the grey scale: it must be zero or a positive number")
    return float(scale_sd)


def _posterior(
    answers: list[TileAnswer],
    settings: TileSettings,
    order: np.ndarray,
    shifts: np.ndarray,
    offset: np.ndarray,
    sums: PoseSums | None,
) -> Posterior:
    """Put the tiles' answers together, in the order of the images given."""
    if not answers:
        answers = [TileAnswer.empty(0, settings)]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))  # where in the tiles an image was

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(answer, name) for answer in answers])

    def in_order(name: str) -> np.ndarray:
        """One copy, from the tiles to the images' places."""
        first = getattr(answers[0], name)
        whole, start = np.empty((len(order), *first.shape[1:]), first.dtype), 0
        for answer in answers:
            part = getattr(answer, name)
            whole[order[start : start + len(part)]] = part
            start += len(part)
        return whole

    number, best, candidate, kept = (in_order(name) for name in ("number", "best", "candidate", "kept"))
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
        mean_shift_px=offset + in_order("shift_probability") @ shifts,
        log_evidence=number[:, 0],
        max_probability=number[:, 1],
        n_effective=number[:, 2],
        n_significant=kept,
        reference_probability=in_order("reference_probability"),
        best_dot=number[:, 3],
        best_norm=number[:, 4],
        grey_scale=number[:, 5],
        candidate_state=candidate[:, :, 0],
        candidate_shift=candidate[:, :, 1],
        candidate_log=in_order("candidate_log"),
        significant=significant,
        sums=sums,
    )


def _check_finite(finite: np.ndarray, part: np.ndarray) -> None:
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
