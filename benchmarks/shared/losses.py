"""Where true particles are lost on the way from movies to the refined map, and whether that depends on their view.

A true particle is carried by a step if the step's table has a row within a quarter of a diameter of it. Particles of movies
that no map wants (they drift far or have a bad CTF) are left out; iron-loaded ones too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from cryopipe.imaging.geometry import euler_to_matrix
from cryopipe.io.mrc import read_volume
from cryopipe.io.star_blocks import read_blocks
from cryopipe.validation.truth_matching import match_particles
from cryopipe.workflow.plan import Plan

#: Tables that hold micrographs (by ``crpItem``) and particles (by place) in the order of the data flow: step, port, block.
MICROGRAPHS = (
    ("align_movies", "aligned_micrographs"),
    ("screen_motion", "micrographs"),
    ("consensus_ctf", "micrographs_with_ctf"),
)
PARTICLES = (
    ("picking", "coordinates"),
    ("extract_particles", "particles"),
    ("select_classes_2d", "selected_particles"),
    ("refine_homogeneous", "refined_particles"),
)
#: Kinds of movies that a good run leaves out.
UNWANTED = ("drift", "bad_ctf")
#: Classes of equal numbers of random views, by the angle to an axis of the particle.
BINS = 4


@dataclass(frozen=True)
class Losses:
    """What each step still carries.

    Attributes
    ----------
    truth : DataFrame
        Wanted true particles of good movies, with ``along_long`` and ``along_short``: |cos| of the view to these axes.
    carried : dict of bool [n]
        By step.
    items, precision : dict
        Micrographs, and share of rows that are true particles, by step.
    """

    truth: pd.DataFrame
    carried: dict[str, np.ndarray]
    items: dict[str, list[str]]
    precision: dict[str, float]

    def by_view(self, step: str, axis: str) -> tuple[np.ndarray, float]:
        """Return the share that ``step`` lost of what the picker had to find, in classes of views, and chi-square's p."""
        offered = np.isin(self.truth["crpItem"], self.items["consensus_ctf"])
        lost = ~self.carried[step][offered]
        bins = np.minimum((self.truth[axis][offered] * BINS).astype(int), BINS - 1)
        table = np.array(
            [[np.count_nonzero(lost & (bins == b)), np.count_nonzero(~lost & (bins == b))] for b in range(BINS)]
        )
        shares = table[:, 0] / np.maximum(table.sum(axis=1), 1)
        p = float(chi2_contingency(table).pvalue) if (table.sum(axis=0) > 0).all() else 1.0
        return shares, p


def particle_axes(truth_map: Path) -> np.ndarray:
    """Return the particle's principal axes [3, 3 (x, y, z)] in rows, the longest first."""
    volume, _ = read_volume(truth_map)
    dense = np.argwhere(volume > 0.3 * np.percentile(volume, 99.9))[:, ::-1].astype(np.float64)
    return np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)[2]


def losses(plan: Plan) -> Losses:
    """Follow the true particles through the tables of a run, as far as it has come."""
    folder, ports = plan.results, plan.ports
    movies = read_blocks(folder / ports["truth_movies"])["movies"]
    good = movies.loc[~movies["crpKind"].isin(UNWANTED), "crpItem"].astype(str)
    truth = read_blocks(folder / ports["truth_particles"])["particles"]
    truth = truth[truth["crpItem"].astype(str).isin(good) & (truth["crpKind"] != "iron")].reset_index(drop=True)
    views = euler_to_matrix(truth["rlnAngleRot"], truth["rlnAngleTilt"], truth["rlnAnglePsi"])[:, 2]
    along = np.abs(views @ particle_axes(folder / ports["truth_map"]).T)
    truth = truth.assign(along_long=along[:, 0], along_short=along[:, 2])
    items, carried, precision = {}, {}, {}
    for step, port in MICROGRAPHS:
        rows = _rows(plan, port, "micrographs")
        if rows is not None:
            items[step] = sorted(set(rows["crpItem"].astype(str)))
            carried[step] = truth["crpItem"].isin(items[step]).to_numpy()
    for step, port in PARTICLES:
        rows = _rows(plan, port, "coordinates" if step == "picking" else "particles")
        if rows is not None:
            carried[step], precision[step] = _matched(rows, truth, plan)
    return Losses(truth, carried, items, precision)


def _rows(plan: Plan, port: str, block: str) -> pd.DataFrame | None:
    paths = [plan.results / path for path in plan.ports.all(port)]
    tables = [read_blocks(path)[block] for path in paths if path.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else None


def _matched(rows: pd.DataFrame, truth: pd.DataFrame, plan: Plan) -> tuple[np.ndarray, float]:
    pixel_A = float(plan.facts.pixel_size_A or 0)
    centres = rows[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(np.float64) * pixel_A
    if "rlnOriginXAngst" in rows:
        centres = centres - rows[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(np.float64)
    found = match_particles(
        rows["crpItem"].astype(str).to_numpy(object),
        centres,
        truth["crpItem"].astype(str).to_numpy(object),
        truth[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(np.float64) * pixel_A,
        radius_A=float(plan.facts.particle_diameter_A or 0) / 4,
    )
    good = rows["crpItem"].astype(str).isin(set(truth["crpItem"].astype(str)))
    return found.found, float((found.truth >= 0).sum() / max(int(good.sum()), 1))


def lines(found: Losses) -> list[str]:
    """Return the table of losses as text: carried and lost at each step, by view, with the p of chi-square."""
    text = [
        "| step | carried | lost here | precision | lost so far, views beside to along the long axis | p | short axis | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    before = np.ones(len(found.truth), dtype=bool)
    for step, carried in found.carried.items():
        row = f"| {step} | {carried.sum()} of {len(carried)} | {np.count_nonzero(before & ~carried)} | "
        if step in found.precision:
            cells = [found.by_view(step, axis) for axis in ("along_long", "along_short")]
            row += f"{found.precision[step]:.3f} | "
            row += " | ".join(f"{' '.join(f'{x:.2f}' for x in shares)} | {p:.3g}" for shares, p in cells)
        else:
            row += " | | | |"
        text.append(row + " |")
        before = carried
    return text
