"""Picks of every picker that ran: how many became particles of the map, and where they are on some micrographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopipe.io.mrc import read_image
from cryopipe.io.star import concatenate, read_table
from cryopipe.report.drawing import figures
from cryopipe.report.reads import MICROGRAPHS, REFINED_PARTICLES, Reads
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section

#: Largest number of pictures of each picker. The limit of the report for a section may be lower.
_PICTURES = 6
#: Largest distance of a used particle from its pick, in diameters: boxes are cut at whole pixels and particles recentred.
_NEAR = 0.2
#: Diameter in Å that is used if none is known.
_DIAMETER_A = 100.0

PICKS = Reads("coordinates", every=True)
_XY = ["rlnCoordinateX", "rlnCoordinateY"]


def build(run: RunFiles) -> Part:
    """Return the numbers and pictures of each picker."""
    micrographs = run.table(MICROGRAPHS.name, "micrographs").with_optics()
    used = positions(run.used_positions) if REFINED_PARTICLES.name in run else {}
    numbers, pictures = {}, []
    for step, paths in run.by_step(PICKS.name).items():
        picks = positions(read_picks(paths))
        numbers[step] = pick_numbers(micrographs, picks, used, _diameter_A(run))
        pictures.append({"picker": step, "pictures": pick_pictures(run, micrographs, picks, used)})
    return Part(numbers={"picking": numbers}, page={"picking": {"pickers": pictures}})


def read_picks(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the coordinates of all batches of one picker."""
    return concatenate([read_table(path, "coordinates") for path in paths]).rows


def positions(rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Return ``{item: positions (x, y) in pixels [n, 2]}``."""
    return {str(item): part[_XY].to_numpy(np.float64) for item, part in rows.groupby("crpItem", sort=False)}


def is_used(
    picks: NDArray[np.float64], used: NDArray[np.float64] | None, pixel_size_A: float, diameter_A: float
) -> NDArray[np.bool_]:
    """Tell for each of ``picks`` [n, 2] whether there is a particle of the map near it.

    Parameters
    ----------
    picks : float64 ``[n, 2]``
        Positions (x, y) in pixels.
    used : float64 ``[m, 2]`` or None
        Positions of the particles of the map in this micrograph.
    pixel_size_A, diameter_A : float
        Pixel size of the micrograph and diameter of the particle, Å.
    """
    if used is None or not len(used):
        return np.zeros(len(picks), dtype=bool)
    near: NDArray[np.bool_] = cKDTree(used).query(picks)[0] < _NEAR * diameter_A / pixel_size_A
    return near


def pick_numbers(
    micrographs: pd.DataFrame,
    picks: Mapping[str, NDArray[np.float64]],
    used: Mapping[str, NDArray[np.float64]],
    diameter_A: float,
) -> dict[str, int]:
    """Return how many picks a picker made, on how many micrographs, and how many became particles of the map.

    Parameters
    ----------
    micrographs : DataFrame
        Micrographs that the pickers saw, joined with their optics.
    picks, used : mapping
        ``{item: positions (x, y) in pixels [n, 2]}`` of the picks and of the particles of the map.
    diameter_A : float
        Particle diameter, Å.
    """
    pixels = dict(zip(micrographs["crpItem"].astype(str), micrographs["rlnMicrographPixelSize"], strict=True))
    near = [
        is_used(xy, used.get(item), float(pixels[item]), diameter_A) for item, xy in picks.items() if item in pixels
    ]
    return {
        "micrographs": len(picks),
        "picks": sum(len(xy) for xy in picks.values()),
        "used": int(sum(flags.sum() for flags in near)),
    }


def pick_pictures(
    run: RunFiles,
    micrographs: pd.DataFrame,
    picks: Mapping[str, NDArray[np.float64]],
    used: Mapping[str, NDArray[np.float64]],
) -> list[tuple[str, str]]:
    """Return (caption, picture) of the first micrographs with their picks, both used and unused ones.

    Parameters
    ----------
    run : RunFiles
        The run.
    micrographs : DataFrame
        Micrographs that the pickers saw, joined with their optics.
    picks, used : mapping
        ``{item: positions (x, y) in pixels [n, 2]}`` of the picks and of the particles of the map.
    """
    found = []
    diameter_A = _diameter_A(run)
    rows: list[Any] = list(micrographs.head(min(run.params.max_pictures, _PICTURES)).itertuples())
    for row in rows:
        item = str(row.crpItem)
        xy = picks.get(item, np.zeros((0, 2)))
        image, pixel_size_A = read_image(run.folder / str(row.rlnMicrographName))
        pixel_size_A = pixel_size_A or float(row.rlnMicrographPixelSize)
        chosen = is_used(xy, used.get(item), pixel_size_A, diameter_A)
        picture = figures.picks_picture(image, pixel_size_A, xy, chosen, diameter_A)
        found.append((f"{item}: {chosen.sum()} of {len(xy)} picks used", picture))
    return found


def _diameter_A(run: RunFiles) -> float:
    return run.params.particle_diameter_A or _DIAMETER_A


SECTION = Section(
    name="picking",
    anchors={"picking": "Particles"},
    reads=(PICKS, MICROGRAPHS, REFINED_PARTICLES),
    needs=(PICKS.name,),
    build=build,
)
