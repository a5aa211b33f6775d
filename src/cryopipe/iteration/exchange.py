"""All that the two half sets of a refinement exchange: an FSC curve, and the shells of the maps coarser than a limit.

The next reference of a half is made from its own sums and from this alone. So the halves stay independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryopipe.errors import InputError
from cryopipe.imaging.backend import to_numpy
from cryopipe.imaging.filters import low_pass_transfer
from cryopipe.imaging.fourier import irfftn_centred, radial_frequency, rfftn_centred
from cryopipe.imaging.masks import soft_sphere
from cryopipe.iteration.next_radius import THRESHOLD, half_map_fsc
from cryopipe.reconstruction.dynamic_mask import dynamic_mask
from cryopipe.reconstruction.prior import ssnr_from_fsc
from cryopipe.reconstruction.reconstruct import Reconstruction

#: from this order on (T, O, I) a point group gives all parts of a shell the same information
ISOTROPIC_ORDER = 12
#: number of shells beyond the shared ones that are affected by the sphere and by the soft edge of the shared shells. Both spread
#: the agreement of the shared shells to these shells. There the lower of two curves is used: in the sphere and in the whole box.
_SMEARED = 2


@dataclass(frozen=True)
class Shared:
    """All data that both halves share.

    Attributes
    ----------
    fsc : array float64 [reconstruct radius + 1]
        Curve between the unfiltered half maps. It is corrected for the mask if one was used.
    shell : float
        Interpolated shell at which the curve falls below 0.143.
    coarse : array float32 [z, y, x]
        Mean of both halves. Only its shells up to ``join_radius`` are used.
    join_radius : int
    masked : bool
        Whether the maps were compared inside a solvent mask, and not inside a sphere.
    """

    fsc: NDArray[np.float64]
    shell: float
    coarse: NDArray[np.float32]
    join_radius: int
    masked: bool


def compare(
    maps: tuple[NDArray[np.float32], NDArray[np.float32]],
    *,
    radius: int,
    join_radius: int,
    pixel_size_A: float,
    diameter_A: float,
    mask_options: dict[str, float] | None,
    rng: np.random.Generator,
    threads: int,
) -> Shared:
    """Compare the unfiltered maps of the halves.

    Parameters
    ----------
    maps : pair of array float32 [z, y, x]
        Half maps, unfiltered and unmasked.
    radius : int
        Outermost shell of the maps.
    join_radius : int
        Shells up to this one are averaged.
    pixel_size_A : float
        Pixel size of the working box.
    diameter_A : float
        Diameter of the particle. Without a solvent mask the halves are compared inside the sphere that masks references. The
        corners of the box have only noise, twice as much as the sphere. With them the curve would fall at coarser shells,
        before a solvent mask begins to help.
    mask_options : dict, optional
        Options of :func:`cryopipe.reconstruction.dynamic_mask.dynamic_mask`. None: the sphere is used.
    rng : Generator
        Draws the random phases for the correction of the mask.
    threads : int
        CPU threads.
    """
    mean = 0.5 * (maps[0] + maps[1])
    solvent = _mask(mean, pixel_size_A, mask_options, threads)
    mask = _sphere(mean.shape[0], pixel_size_A, diameter_A) if solvent is None else solvent
    curve = half_map_fsc(maps[0], maps[1], mask=mask, rng=rng, threads=threads)
    if solvent is None:
        smeared = slice(join_radius + 1, join_radius + 1 + _SMEARED)
        curve[smeared] = np.minimum(curve[smeared], half_map_fsc(maps[0], maps[1], threads=threads)[smeared])
    fsc = np.array(curve[: radius + 1])
    fsc[0] = 1.0
    return Shared(fsc, crossing_shell(fsc), low_shells(mean, join_radius + 2), join_radius, solvent is not None)


def crossing_shell(fsc: NDArray[np.float64]) -> float:
    """Return the interpolated shell at which a curve first falls below 0.143, or the last shell if it never does."""
    below = np.flatnonzero(fsc[1:] < THRESHOLD)
    if len(below) == 0:
        return float(len(fsc) - 1)
    first = int(below[0]) + 1
    left, right = fsc[first - 1], fsc[first]
    return float(first - 1 + (left - THRESHOLD) / max(left - right, 1e-9))


def low_shells(volume: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Return a map without its shells beyond ``radius``."""
    box = volume.shape[0]
    keep = radial_frequency(volume.shape) * box < radius + 0.5
    result: NDArray[np.float32] = irfftn_centred(rfftn_centred(volume) * keep, box)
    return result


def next_reference(
    own: NDArray[np.float32], sums: Reconstruction, shared: Shared, *, threads: int
) -> NDArray[np.float32]:
    """Return the Wiener-filtered map of a half, float32 ``[z, y, x]``. Its coarse shells are the mean of both halves.

    The signal-to-noise ratio is FSC / (1 - FSC). It is zero beyond the shell at which the curve first falls below 0.143.

    Parameters
    ----------
    own : array float32 [z, y, x]
        Unfiltered map of the half.
    sums : Reconstruction
        Accumulators of the half.
    shared : Shared
        Result of the comparison.
    threads : int
        CPU threads.
    """
    shells = np.arange(len(shared.fsc))
    ssnr = np.where(shells <= shared.shell, ssnr_from_fsc(shared.fsc), 0.0)
    operators = len(sums.plan.exact) * len(sums.plan.cosets)
    if operators >= ISOTROPIC_ORDER:
        # the weight is the same in all parts of a shell, so the Wiener filter is one factor per shell, which saves a transform
        filtered = own
        wiener = np.append(ssnr / (1 + ssnr), 0.0)
    else:
        filtered = to_numpy(sums.solve(ssnr=ssnr, threads=threads))
        wiener = np.append(np.ones(len(ssnr)), 0.0)
    box = filtered.shape[0]
    k = radial_frequency(filtered.shape) * box
    join = low_pass_transfer(k, shared.join_radius, width=2.0).astype(np.float32)
    spectrum = rfftn_centred(filtered, threads=threads)
    spectrum *= np.interp(k, np.arange(len(wiener)), wiener).astype(np.float32)
    spectrum += join * (rfftn_centred(shared.coarse, threads=threads) - spectrum)
    result: NDArray[np.float32] = irfftn_centred(spectrum, box, threads=threads)
    return result


def masked_reference(
    volume: NDArray[np.float32],
    *,
    pixel_size_A: float,
    diameter_A: float,
    mask_options: dict[str, float] | None,
    threads: int,
) -> NDArray[np.float32]:
    """Return a reference inside its own solvent mask, or inside a soft sphere if no options are given.

    Parameters
    ----------
    volume : array float32 [z, y, x]
    pixel_size_A : float
        Pixel size of the map.
    diameter_A : float
        Diameter of the particle. The diameter of the sphere is 1.25 times as large.
    mask_options : dict, optional
        Options of :func:`cryopipe.reconstruction.dynamic_mask.dynamic_mask`. None: the sphere is used.
    threads : int
        CPU threads.
    """
    mask = _mask(volume, pixel_size_A, mask_options, threads)
    return volume * (_sphere(volume.shape[0], pixel_size_A, diameter_A) if mask is None else mask)


def _sphere(box: int, pixel_size_A: float, diameter_A: float) -> NDArray[np.float32]:
    """Return the soft sphere of 1.25 particle diameters, or the largest that fits into the box."""
    radius = min(0.625 * diameter_A / pixel_size_A, 0.5 * box - 4)
    return soft_sphere(box, radius, edge_px=3.0)


def _mask(
    volume: NDArray[np.float32], pixel_size_A: float, options: dict[str, float] | None, threads: int
) -> NDArray[np.float32] | None:
    """Return the dynamic mask. It is None without options, or if the map has no solid density."""
    if options is None:
        return None
    try:
        return dynamic_mask(volume, pixel_size_A, threads=threads, **options)
    except InputError:
        return None
