"""From a map of responses to a list of particles: thresholds, non-maximum suppression, sub-pixel positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cryopipe.kernels.peaks import find_peaks
from cryopipe.picking.blobs import Response

#: Share of all maxima below which the brightest are contaminants. On ten micrographs of EMPIAR-10146 they are up to 7 %;
#: where so few are particles, the price is some picks of noise.
_FEW = 0.1


@dataclass(frozen=True, eq=False)
class Picks:
    """Positions ``xy`` float64 ``[n, 2]`` in pixels of the map and figures of merit ``[n]``, best first."""

    xy: np.ndarray
    merit: np.ndarray


def pick_maxima(
    response: Response,
    roughness: np.ndarray,
    *,
    threshold: float,
    noise_threshold: float,
    distance_px: float,
    border_px: float,
    min_merit_ratio: float,
    max_merit_ratio: float,
    max_roughness: float,
) -> Picks:
    """Return the maxima of a response that are particles.

    Parameters
    ----------
    response : Response
        Map ``[y, x]``. Only places ``in_range`` are used.
    roughness : float32 ``[y, x]``
        Local contrast.
    threshold : float
        Smallest figure of merit.
    noise_threshold : float
        Smallest figure of merit in standard deviations of the response to shot noise.
    distance_px, border_px : float
        Smallest distance between two picks (the stronger one is kept), and from the border.
    min_merit_ratio, max_merit_ratio : float
        Maxima below the first times the median merit are noise. Those above the second times the median are contaminants.
    max_roughness : float
        Maxima at places with more than this many times the median contrast of the picks are contaminants, too. Contaminants
        are not picked, but they still suppress maxima near them, because the flank of a crystal is not a particle either.
    """
    floor = np.maximum(threshold, noise_threshold * response.noise_sd)
    nothing = float(response.merit.min()) - 1.0
    merit = np.where(response.in_range & (response.merit >= floor), response.merit, nothing).astype(np.float32)
    rows, columns, _ = find_peaks(merit, distance_px, threshold=nothing, border=int(np.ceil(border_px)))
    values = merit[rows, columns].astype(np.float64)
    good = np.ones(len(values), dtype=bool)
    if len(values):
        rough = roughness[rows, columns]
        good = rough <= max_roughness * np.median(rough)
        typical = float(np.median(values[good]))
        good &= (values >= min_merit_ratio * typical) & (values <= max_merit_ratio * typical)
    offset = _parabola_offsets(response.merit, rows[good], columns[good])
    xy = np.stack([columns[good], rows[good]], axis=1) + offset
    return Picks(xy, values[good])


def parting_merit(response: Response, *, distance_px: float, border_px: float, certain: float) -> float:
    """Return the figure of merit that parts the maxima of a response into particles and what else there is.

    It is that of Otsu (1979, doi:10.1109/TSMC.1979.4310076): between the two groups whose means differ most for their
    sizes. A small upper group is contaminants, and the rest is parted again. Where nearly all maxima are particles it
    would part their views; so it never exceeds ``certain`` times the median of the upper group.

    Parameters
    ----------
    response : Response
        Map ``[y, x]``; only places ``in_range`` count.
    distance_px, border_px : float
        Smallest distance between two maxima and from the border.
    certain : float
        Share of the typical particle's merit from which on a maximum is taken for a particle.
    """
    nothing = float(response.merit.min()) - 1.0
    merit = np.where(response.in_range, response.merit, nothing).astype(np.float32)
    rows, columns, _ = find_peaks(merit, distance_px, threshold=max(nothing, 0.0), border=int(np.ceil(border_px)))
    values = np.sort(merit[rows, columns].astype(np.float64))
    if len(values) < 2:
        return 0.0
    parting = _parting(values)
    while len(values) - parting < _FEW * len(values) and parting > 1:
        values = values[:parting]
        parting = _parting(values)
    middle = 0.5 * (values[parting - 1] + values[parting])
    return float(min(middle, certain * np.median(values[parting:])))


def _parting(values: np.ndarray) -> int:
    """Return how many of the sorted ``values`` form the lower of two groups."""
    below = np.arange(1, len(values))
    total = np.cumsum(values)
    apart = total[:-1] / below - (total[-1] - total[:-1]) / (len(values) - below)
    return int(np.argmax(below * (len(values) - below) * apart**2)) + 1


def _parabola_offsets(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the (x, y) offsets ``[n, 2]`` of the vertices of parabolas through each maximum and its neighbours."""
    padded = np.pad(image.astype(np.float64), 1, mode="edge")
    offsets = np.zeros((len(rows), 2))
    for axis, (dy, dx) in enumerate(((0, 1), (1, 0))):
        before = padded[rows + 1 - dy, columns + 1 - dx]
        centre = padded[rows + 1, columns + 1]
        after = padded[rows + 1 + dy, columns + 1 + dx]
        curvature = before - 2.0 * centre + after
        offsets[:, axis] = np.where(
            curvature < 0, 0.5 * (before - after) / np.where(curvature < 0, curvature, 1.0), 0.0
        )
    return np.clip(offsets, -0.5, 0.5)
