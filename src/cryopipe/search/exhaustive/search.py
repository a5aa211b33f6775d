"""Which pose explains an image? Compare all (orientation, shift) of a grid with all images, by matrix products.

Let X be an image with CTF C, σ² its noise variance (of the real and of the imaginary part) and Y a reference slice. The
log-likelihood relative to pure noise is ``Re⟨C X exp(-2πi k·t/box)/σ², Y⟩ - ½ Σ C²|Y|²/σ²``. The first term is a real product
of (images x shifts) by 2K with 2K by states. The second is a product of images by K with K by states. So the CTF is exact for
every image, with astigmatism. (To reduce the second product to shells would be exact only for isotropic CTFs, and it would
save less than 1/(2 shifts) of the work, so this is not done.) With ``accumulate`` the M-step follows in the same pass, also as
a product, so its cost does not depend on the number of slices into which an image is inserted. The E-step takes 4 n s o K
operations, a dense M-step takes as many, and a peaked one takes very few.

References: Scheres 2012, doi:10.1016/j.jmb.2011.11.010 (statistical model; 99.9 % of the probability as the significant
set); Scheres 2005, doi:10.1016/j.jmb.2005.02.031 (2-D).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.imaging.backend import array_module
from cryopipe.kernels._memory import in_batches
from cryopipe.kernels.devices import Resources, over_devices, to_device
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra, content_order
from cryopipe.projection.phases import phase_table
from cryopipe.projection.pose_sums import PoseSums
from cryopipe.projection.references import ReferenceSlices
from cryopipe.search.exhaustive.answers import posterior_of
from cryopipe.search.exhaustive.tile import TileAnswer, TileData, TileSettings, group_images
from cryopipe.search.exhaustive.tile_cpu import CpuTile, held_bytes, tile_bytes
from cryopipe.search.exhaustive.tile_gpu import ArrayTile, tile_bytes_an_image
from cryopipe.search.options import GreyScale, SearchOptions
from cryopipe.search.posterior import Posterior
from cryopipe.search.shifts import ShiftGrid

_ROWS_GPU = 8192
"""Number of rows of a product on a GPU."""
_ONE = GreyScale()
_PLAIN = SearchOptions()
_HERE = Resources()


def search_poses(
    images: ParticleSpectra,
    noise: NoiseModel,
    references: ReferenceSlices,
    shifts: ShiftGrid,
    *,
    scale: GreyScale = _ONE,
    options: SearchOptions = _PLAIN,
    resources: Resources = _HERE,
) -> Posterior:
    """Compare every image with every reference slice at every shift.

    Parameters
    ----------
    images : ParticleSpectra
        n images of K pixels, NumPy or CuPy.
    noise : NoiseModel
        Noise variances of the images.
    references : ReferenceSlices
        o states on the same pixels, on the same device as the images.
    shifts : ShiftGrid
        s shifts.
    scale : GreyScale
        Grey scale of each image, and its standard deviation.
    options : SearchOptions
        Temperature, and what to return.
    resources : Resources
        Threads, the memory of the tile of scores (`search_bytes` tells how much is needed in total), and GPUs over which
        images are spread. With GPUs, images, references and the result are in host memory.

    Returns
    -------
    Posterior
        Images are processed in the order of their content (`content_order`). So rows and sums have the same bits for any
        order of the images, any number of threads and any memory budget. In another set of images the row of an image
        can differ in its last digits (its place in a BLAS product decides the order of additions). On a GPU a tile that
        does not fit into free memory is halved.

    Raises
    ------
    InputError
        Shapes are wrong, a noise variance is not positive, a value is not finite, or the budget is too small.
    """
    if resources.devices is not None:
        return _on_devices(images, noise, references, shifts, scale=scale, options=options, resources=resources)
    xp = array_module(images.values, references.slices)
    n, n_states = len(images), len(references)
    references.check(images)
    log_state, log_shift = references.state_log_prior(), shifts.shift_log_prior(n)
    data = tile_data(images, noise, shifts, scale, xp)
    settings = TileSettings(
        group_images=group_images(len(shifts), n_states),
        groups=1,
        n_shifts=len(shifts),
        n_references=references.n_references,
        inverse_temperature=float(options.inverse_temperature),
        mass=float(options.significant_mass),
        n_candidates=options.candidates,
        keep_significant=options.keep_significant,
        accumulate=options.accumulate,
        scale_sd=float(scale.sd),
    )
    settings = _fitted(settings, n, n_states, len(images.pixels), resources, xp)
    order = content_order(images)
    host_state = xp.asarray(log_state)

    def work(part: np.ndarray) -> TileAnswer:
        _check_finite(tile.score(data, part), part)
        answer = tile.posterior(len(part), host_state, np.ascontiguousarray(log_shift[part]))
        if options.accumulate:
            tile.accumulate(len(part), answer)
        if not options.keep_significant:
            answer.state, answer.shift, answer.weight = answer.state[:0], answer.shift[:0], answer.weight[:0]
        return answer

    with _tile(xp, references.slices, settings, resources.cpu_threads) as tile:
        answers = in_batches(work, order, settings.images, what="image", halve=xp is not np)
        sums = PoseSums(*tile.sums(), n) if options.accumulate else None
    return posterior_of(answers, settings, order, shifts.shifts_px, data.base_shifts_px, sums)


def log_likelihoods(
    images: ParticleSpectra, noise: NoiseModel, references: ReferenceSlices, shifts: ShiftGrid, *,
    scale: GreyScale = _ONE, resources: Resources = _HERE,
) -> np.ndarray:  # fmt: skip
    """Return all log-likelihoods (relative to pure noise) of a few images, float32 ``[n, s, o]``.

    Temperatures are chosen from them (`cryopipe.search.annealing`). The result takes ``4 n s o`` bytes, so give only tens of
    images.

    Parameters
    ----------
    images, noise, references, shifts, scale
        As for `search_poses`. Priors are not used.
    resources : Resources
        Threads and memory. Devices are not used.
    """
    xp = array_module(images.values, references.slices)
    n, n_states = len(images), len(references)
    references.check(images)
    data = tile_data(images, noise, shifts, scale, xp)
    settings = TileSettings(
        group_images(len(shifts), n_states), 1, len(shifts), 1, 1.0, 1.0, 0, False, False, float(scale.sd)
    )
    settings = _fitted(settings, n, n_states, len(images.pixels), resources, xp)
    result = np.empty((n, len(shifts), n_states), np.float32)

    def work(part: np.ndarray) -> None:
        _check_finite(tile.score(data, part), part)
        result[part] = tile.log_likelihoods(len(part))

    with _tile(xp, references.slices, settings, resources.cpu_threads) as tile:
        in_batches(work, np.arange(n), settings.images, what="image", halve=xp is not np)
    return result


def _on_devices(
    images: ParticleSpectra, noise: NoiseModel, references: ReferenceSlices, shifts: ShiftGrid, *, scale: GreyScale,
    options: SearchOptions, resources: Resources,
) -> Posterior:  # fmt: skip
    """Search blocks of images on several GPUs. The sums of the blocks are added in their order."""
    here = replace(resources, devices=None)
    given: dict[int, Any] = {}

    def work(device: int, rows: slice) -> Posterior:
        if device not in given:
            given[device] = to_device(references.slices)
        part = images.subset(rows)
        found = search_poses(
            replace(part, values=to_device(part.values), ctf=to_device(part.ctf)),
            noise.subset(rows),
            replace(references, slices=given[device]),
            shifts.subset(rows),
            scale=scale.subset(rows),
            options=options,
            resources=here,
        )
        return found if found.sums is None else replace(found, sums=found.sums.to_host())

    return Posterior.joined(over_devices(work, len(images), resources.block, resources.devices or ()))


def search_bytes(
    n_images: int, n_states: int, n_shifts: int, n_pixels: int, *, accumulate: bool = False, on_gpu: bool = False
) -> int:
    """Return the least memory in bytes that `search_poses` needs, to check it before a job starts.

    It includes images (12 n K), references, their powers, the sums and the smallest tile. On a GPU this is device memory.

    Parameters
    ----------
    n_images, n_states, n_shifts, n_pixels : int
        Numbers of images, states, shifts and Fourier pixels of the search.
    accumulate : bool
        Whether the sums of the M-step are made.
    on_gpu : bool
        Whether the arrays are on a GPU.
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
    settings: TileSettings, n: int, n_states: int, n_pixels: int, resources: Resources, xp: Any
) -> TileSettings:
    """Return settings whose tile fits the budget and, on the CPU, gives every thread work."""
    memory_bytes = resources.memory_bytes
    if xp is not np:
        each = tile_bytes_an_image(settings.n_shifts, n_states, n_pixels, accumulate=settings.accumulate)
        images = min(memory_bytes // each, max(1, _ROWS_GPU // settings.n_shifts))
        _check_budget(memory_bytes, each, images, n_states)
        return replace(settings, group_images=images)
    each = tile_bytes(settings, n_states, n_pixels)
    groups = memory_bytes // each
    _check_budget(memory_bytes, each, groups, n_states)
    useful = -(-n // settings.group_images)
    return replace(settings, groups=max(1, min(groups, max(2, resources.cpu_threads), useful)))


def _check_budget(memory_bytes: int, needed: int, affordable: int, n_states: int) -> None:
    if affordable < 1:
        raise InputError(
            f"the smallest tile of a search of {n_states} states takes {needed / 2**20:.0f} MB, but memory_bytes allows "
            f"{memory_bytes / 2**20:.0f} MB. Allow more, or use fewer states or shifts."
        )


def tile_data(images: ParticleSpectra, noise: NoiseModel, shifts: ShiftGrid, scale: GreyScale, xp: Any) -> TileData:
    """Check the data of each image of a search, and return them in the form for its tiles.

    Parameters
    ----------
    images, noise, shifts, scale
        As for `search_poses`.
    xp : module
        NumPy or CuPy, as the images.
    """
    n = len(images)
    return TileData(
        pixels=images.pixels,
        values=images.values,
        ctf=images.ctf,
        inverse_variance=xp.asarray(noise.inverse_variance(images)),
        noise_group=noise.groups(n),
        base_shifts_px=shifts.bases_px(n),
        scale=scale.means(n),
        phases=xp.asarray(phase_table(images.pixels, shifts.shifts_px)),
    )


def _check_finite(finite: np.ndarray, part: np.ndarray) -> None:
    if not finite.all():
        image = int(part[~finite].min())
        raise InputError(f"image {image + 1} or its CTF contains NaN or infinite values. Remove the particle.")
