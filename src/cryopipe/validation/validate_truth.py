"""Step ``validate_truth``: a refined map, its poses and its picks against the truth of a simulation.

Three questions are answered. To which resolution is the map right (FSC 0.5 against the true map)? Which resolution could any
program reach with the same particles (the same for a map from true poses, centres and CTFs)? How large are the errors of the
estimates? The main FSC is masked by a mask made from the true map, so that no choice of the refinement enters it. The hand
and, if the group does not determine it, the frame are found first. The threshold 0.5 is that for a map against a perfect
reference (Rosenthal & Henderson 2003, doi:10.1016/j.jmb.2003.07.013).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopipe.config.declaration.base import require
from cryopipe.config.validation import ValidateTruth
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.fsc import fourier_shell_correlation, resolution_at
from cryopipe.imaging.geometry import euler_to_matrix
from cryopipe.imaging.masks import solvent_mask
from cryopipe.imaging.symmetry import symmetry_operators
from cryopipe.io.atomic import atomic_write
from cryopipe.io.fsc import fsc_frame
from cryopipe.io.mrc import write_volume
from cryopipe.io.star import StarTable, read_table
from cryopipe.io.star_blocks import write_blocks
from cryopipe.projection.noise import initial_sigma2
from cryopipe.projection.particle_spectra import load_particle_spectra
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.validation.frame import Frame, find_frame
from cryopipe.validation.maps import on_grid, read_maps
from cryopipe.validation.truth_matching import Matching, match_particles, pose_errors_deg, spread

#: FSC against a perfect reference at which signal and noise are equal (Rosenthal & Henderson 2003).
TRUTH_THRESHOLD = 0.5
#: Low-pass filter in Å of the true map before its mask is made, as in postprocess.
_MASK_LOW_PASS_A = 12.0


@dataclass(frozen=True)
class Joined:
    """Particles and truth side by side. Lengths are in Å, and both are in the micrograph's frame."""

    particles: StarTable
    truth: pd.DataFrame
    matching: Matching
    box_centres_A: NDArray[np.float64]
    centres_A: NDArray[np.float64]
    true_centres_A: NDArray[np.float64]


def join_truth(particles: StarTable, truth: pd.DataFrame, *, radius_A: float) -> Joined:
    """Join particles with true particles by micrograph and nearest place.

    Parameters
    ----------
    particles : StarTable
        Refined particles with crpItem, rlnCoordinateX/Y and rlnOriginX/YAngst.
    truth : DataFrame
        True particles with crpItem and rlnCoordinateX/Y in px of the same micrographs.
    radius_A : float
        Largest distance of a pair.

    Raises
    ------
    InputError
        A column is missing, or no particle is near a true one.
    """
    rows = particles.with_optics()
    needed = ("crpItem", "rlnCoordinateX", "rlnCoordinateY")
    for name, frame in (("particles", rows), ("truth_particles", truth)):
        missing = [column for column in needed if column not in frame]
        if missing:
            raise InputError(
                f"{name}: the table lacks {', '.join(missing)}, by which it is joined with the truth. Use tables of this run."
            )
    column = "rlnMicrographPixelSize" if "rlnMicrographPixelSize" in rows else "rlnMicrographOriginalPixelSize"
    pixel_A = particles.single(column)
    box_centres = rows[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(dtype=np.float64) * pixel_A
    # a particle that is displaced by +d from the centre of the box has the origin -d
    origins = rows[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=np.float64)
    true_centres = truth[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(dtype=np.float64) * pixel_A
    matching = match_particles(
        rows["crpItem"].astype(str).to_numpy(object),
        box_centres - origins,
        truth["crpItem"].astype(str).to_numpy(object),
        true_centres,
        radius_A=radius_A,
    )
    if not (matching.truth >= 0).any():
        raise InputError(
            f"none of {len(rows)} particles is within {radius_A:g} Å of a true one: the truth is that of other movies, "
            "or the coordinates are shifted. Use the truth of the simulation of this run."
        )
    return Joined(particles, truth, matching, box_centres, box_centres - origins, true_centres)


def reconstruct_from_truth(joined: Joined, *, symmetry: str, threads: int) -> NDArray[np.float32]:
    """Reconstruct one unfiltered map of all matched particles from their true poses, centres and CTFs."""
    kept = np.flatnonzero(joined.matching.truth >= 0)
    true = joined.truth.iloc[joined.matching.truth[kept]].reset_index(drop=True)
    rows = joined.particles.rows.iloc[kept].reset_index(drop=True)
    ctf_columns = [c for c in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle") if c in true]
    rows = rows.assign(**{column: true[column].to_numpy() for column in ctf_columns})
    table = joined.particles.with_rows(rows)
    box = int(table.single("rlnImageSize"))
    images = load_particle_spectra(table, radius=box // 2 - 1, threads=threads)
    poses = euler_to_matrix(true["rlnAngleRot"], true["rlnAngleTilt"], true["rlnAnglePsi"])
    displaced = joined.true_centres_A[joined.matching.truth[kept]] - joined.box_centres_A[kept]
    sums = Reconstruction.empty(box, images.pixels.radius, symmetry=symmetry, expected_slices=len(images))
    sums.insert(images, poses, -displaced / images.pixel_size_A, 1 / initial_sigma2(images))
    volume: NDArray[np.float32] = sums.solve(threads=threads)
    return volume


def particle_errors(
    joined: Joined, frame: Frame, *, pixel_size_A: float, symmetry: str, kinds: tuple[str, ...]
) -> dict[str, Any]:
    """Return counts, and errors of poses (°), centres (Å) and defoci (Å) of the matched particles.

    Where the group leaves the centre of a map open, a particle's centre is where the map's own lies in its view.

    Parameters
    ----------
    joined : Joined
        Particles and truth side by side.
    frame : Frame
        Brings the refined map into the truth's frame and hand.
    pixel_size_A : float
        Pixel size of the map.
    symmetry : str
        Point group of the particle.
    kinds : tuple of str
        Kinds of true particles (``crpKind``) that the pipeline should find. Errors are those of these particles.
    """
    pairs, truth = joined.matching.truth, joined.truth
    kind = truth["crpKind"].astype(str).to_numpy() if "crpKind" in truth else np.full(len(truth), kinds[0])
    wanted = np.isin(kind, kinds)
    matched = np.flatnonzero(pairs >= 0)
    good = matched[wanted[pairs[matched]]]
    rows, true = joined.particles.rows.iloc[good], truth.iloc[pairs[good]]
    angles = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    true_poses = euler_to_matrix(*(true[a].to_numpy(dtype=np.float64) for a in angles))
    turned = pose_errors_deg(
        euler_to_matrix(*(rows[a].to_numpy(dtype=np.float64) for a in angles)),
        true_poses,
        operators=symmetry_operators(symmetry),
        map_to_truth=frame.rotation,
        mirrored=frame.mirrored,
    )
    seen_centre_A = (true_poses @ frame.shift_xyz_px)[:, :2] * pixel_size_A
    away = joined.centres_A[good] - joined.true_centres_A[pairs[good]] - seen_centre_A
    items = rows["crpItem"].astype(str).to_numpy()
    drift = np.zeros_like(away)
    for item in np.unique(items):
        drift[items == item] = np.median(away[items == item], axis=0)
    numbers: dict[str, Any] = {
        "particles": len(pairs),
        "matched": len(matched),
        "matched_wanted": len(good),
        "true_wanted": int(wanted.sum()),
        "true_unwanted": int((~wanted).sum()),
        "precision": round(len(good) / max(len(pairs), 1), 4),
        "recall": round(len(good) / max(int(wanted.sum()), 1), 4),
        "unwanted_share": round(1 - len(good) / max(len(matched), 1), 4),
        "unwanted_share_in_truth": round(float((~wanted).mean()), 4),
        "pose_error_deg": spread(turned),
        "centre_error_A": spread(np.linalg.norm(away, axis=1)),
        "centre_error_within_micrograph_A": spread(np.linalg.norm(away - drift, axis=1)),
    }
    if "rlnDefocusU" in true:
        estimated, known = (
            0.5 * (t["rlnDefocusU"] + t["rlnDefocusV"]).to_numpy(dtype=np.float64) for t in (rows, true)
        )
        numbers["defocus_error_A"] = spread(estimated - known)
        numbers["defocus_bias_A"] = round(float(np.median(estimated - known)), 2)
    return numbers


def truth_curves(
    volumes: Mapping[str, NDArray[np.float32]], truth: NDArray[np.float32], mask: NDArray[np.float32], *, threads: int
) -> dict[str, NDArray[np.float64]]:
    """Return the FSC of each map with the truth: ``<name>_masked`` and ``<name>_unmasked``, arrays ``[shells]``.

    Parameters
    ----------
    volumes : mapping of array float32 [z, y, x]
        Maps by name, in the truth's frame.
    truth, mask : array float32 [z, y, x]
        The true map, and the mask made from it.
    threads : int
        Threads of the transforms.
    """
    curves = {}
    for name, volume in volumes.items():
        curves[f"{name}_masked"] = fourier_shell_correlation(volume * mask, truth * mask, threads=threads)
        curves[f"{name}_unmasked"] = fourier_shell_correlation(volume, truth, threads=threads)
    return curves


def main(inputs: Mapping[str, Any], outputs: Mapping[str, Path], params: ValidateTruth, context: Context) -> None:
    """Read maps, particles and truth. Write the numbers, the curves and the map from true poses.

    Parameters
    ----------
    inputs : mapping
        ``half1``, ``half2``, ``truth_map`` (MRC), ``particles``, ``truth_particles`` (STAR).
    outputs : mapping of Path
        ``fsc`` (STAR), ``true_poses_map`` (MRC), ``summary`` (JSON).
    params : ValidateTruth
        Options of the step.
    context : Context
        Threads and log.
    """
    symmetry, radius_A = require(params, "symmetry", "match_radius_A")
    (half1, half2), pixel_size_A = read_maps(inputs["half1"], inputs["half2"])
    box = half1.shape[0]
    (truth,), true_pixel_A = read_maps(inputs["truth_map"])
    truth = on_grid(truth, true_pixel_A, box=box, new_pixel_size_A=pixel_size_A, threads=context.threads)
    mask = solvent_mask(
        truth,
        pixel_size_A,
        low_pass_A=_MASK_LOW_PASS_A,
        threshold=params.mask_threshold,
        extend_A=params.mask_extend_A,
        edge_A=params.mask_edge_A,
        threads=context.threads,
    )
    refined = 0.5 * (half1 + half2)
    frame = find_frame(refined, truth, pixel_size_A, symmetry=symmetry, same_axes=True, threads=context.threads)
    joined = join_truth(
        read_table(inputs["particles"], "particles"),
        read_table(inputs["truth_particles"], "particles").rows,
        radius_A=radius_A,
    )
    from_truth = reconstruct_from_truth(joined, symmetry=symmetry, threads=context.threads)
    maps = {"refined": frame.apply(refined, threads=context.threads), "true_poses": from_truth}
    curves = truth_curves(maps, truth, mask, threads=context.threads)
    at = {name: float(resolution_at(curve, TRUTH_THRESHOLD, box, pixel_size_A)) for name, curve in curves.items()}
    numbers: dict[str, Any] = {
        "fsc05_A": round(at["refined_masked"], 3),
        "fsc05_true_poses_A": round(at["true_poses_masked"], 3),
        "fsc05_unmasked_A": round(at["refined_unmasked"], 3),
        "fsc05_true_poses_unmasked_A": round(at["true_poses_unmasked"], 3),
        "headline_curve": "masked by the true map's mask",
        "threshold": TRUTH_THRESHOLD,
        "mirrored": bool(frame.mirrored),
        "box_px": box,
        "pixel_size_A": pixel_size_A,
        **particle_errors(joined, frame, pixel_size_A=pixel_size_A, symmetry=symmetry, kinds=params.kinds),
    }
    context.log.info(
        "FSC 0.5 with the truth: %.2f A; true poses: %.2f A", at["refined_masked"], at["true_poses_masked"]
    )
    columns = {f"crpFsc{''.join(part.title() for part in name.split('_'))}": curve for name, curve in curves.items()}
    write_blocks(outputs["fsc"], {"fsc": fsc_frame(columns, box=box, pixel_size_A=pixel_size_A)})
    write_volume(outputs["true_poses_map"], from_truth, pixel_size_A)
    atomic_write(outputs["summary"], json.dumps({"truth": numbers}, indent=1) + "\n")
