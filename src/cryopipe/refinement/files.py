"""Input and output of a refinement: it reads particles and an initial map, and writes maps, curves and poses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.filters import apply_shell_curve, fsc_weight
from cryopipe.imaging.fsc import masked_fsc, resolution_at
from cryopipe.io.fsc import masked_fsc_frame
from cryopipe.io.mrc import read_volume, write_volume
from cryopipe.io.star import StarTable, read_table, write_table
from cryopipe.io.star_blocks import write_blocks
from cryopipe.iteration.halves import Halves
from cryopipe.iteration.history import write_history
from cryopipe.iteration.improver import needed_columns
from cryopipe.iteration.next_radius import THRESHOLD
from cryopipe.iteration.particle_store import ParticleStore
from cryopipe.iteration.pose_table import with_poses
from cryopipe.poses.ctf import changed_parameters
from cryopipe.projection.particle_keys import canonical_order
from cryopipe.reconstruction.dynamic_mask import dynamic_mask
from cryopipe.refinement.progress import Iteration, Progress


def read_particles(path: Path) -> StarTable:
    """Return the particles in canonical order.

    Raises
    ------
    InputError
        The table has no particles.
    """
    table = read_table(path, "particles")
    if len(table) == 0:
        raise InputError(f"{path}: the table has no particles. Look at what the steps before it rejected.")
    return table.with_rows(table.rows.iloc[canonical_order(table.rows)])


def read_initial_map(path: Path, store: ParticleStore) -> NDArray[np.float32]:
    """Return a map, which must have the box and the pixel size of the particles."""
    initial, pixel_size_A = read_volume(path)
    if initial.shape != (store.box,) * 3 or abs((pixel_size_A or 0) / store.pixel_size_A - 1) > 1e-3:
        raise InputError(
            f"{path}: the map has {initial.shape} voxels of {pixel_size_A or 0:.5g} Å, but the particles have box "
            f"{store.box} with {store.pixel_size_A:g} Å per pixel. Resize the map (resize_volume)."
        )
    return initial


def write_maps(
    outputs: Mapping[str, Path],
    halves: Sequence[NDArray[np.float32]],
    mask_options: dict[str, float],
    context: Context,
    *,
    pixel_size_A: float,
) -> None:
    """Write the half maps, their filtered mean, the mask and the curves between them.

    Parameters
    ----------
    outputs : mapping
        Paths of ``half1``, ``half2``, ``map``, ``mask`` and ``fsc``.
    halves : pair of array float32 [z, y, x]
        Half maps, unfiltered and unmasked.
    mask_options : dict
        Options of :func:`cryopipe.reconstruction.dynamic_mask.dynamic_mask`.
    context : Context
        Random numbers for the random phases, threads.
    pixel_size_A : float
    """
    half1, half2 = halves
    box, threads = len(half1), context.threads
    mask = dynamic_mask(0.5 * (half1 + half2), pixel_size_A, threads=threads, **mask_options)
    curves = masked_fsc(half1, half2, mask, context.rng("final phases"), threads=threads)
    weight = fsc_weight(curves.corrected) ** 2
    mean = apply_shell_curve(0.5 * (half1 + half2), weight, threads=threads)
    for name, volume in (("half1", half1), ("half2", half2), ("map", mean), ("mask", mask)):
        write_volume(outputs[name], volume, pixel_size_A)
    general = {
        "crpResolutionUnmasked": float(resolution_at(curves.unmasked, THRESHOLD, box, pixel_size_A)),
        "crpResolutionMasked": float(resolution_at(curves.masked, THRESHOLD, box, pixel_size_A)),
        "rlnFinalResolution": float(resolution_at(curves.corrected, THRESHOLD, box, pixel_size_A)),
    }
    frame = masked_fsc_frame(
        curves.corrected, curves.unmasked, curves.masked, curves.randomised, box=box, pixel_size_A=pixel_size_A
    )
    write_blocks(outputs["fsc"], {"general": general, "fsc": frame})


def write_poses(
    outputs: Mapping[str, Path], table: StarTable, halves: Halves, progress: Progress, symmetry: str
) -> None:
    """Write poses in the asymmetric unit, half sets, refined defoci and their errors, scales and likelihoods, and the history.

    Parameters
    ----------
    outputs : mapping
        Paths of ``particles`` and ``history``.
    table : StarTable
        The particles.
    halves : Halves
        The particles of each half.
    progress : Progress
        Result of the refinement.
    symmetry : str
        Point group.
    """
    states = progress.pair.states
    poses = [state.poses for state in states]
    changed = [
        changed_parameters(half.store.parameters, needed_columns(state.ctf_change_A))
        for half, state in zip(halves, states, strict=True)
    ]
    defocus_u, defocus_v, angle = (
        halves.gather([np.asarray(getattr(one, name), np.float64) for one in changed])
        for name in ("defocus_u_A", "defocus_v_A", "defocus_angle_deg")
    )
    errors = halves.gather([state.defocus_error_A for state in states])
    columns = {"crpDefocusError": errors} if np.isfinite(errors).all() else {}
    found = with_poses(
        table,
        halves.gather([p.rotations for p in poses]),
        halves.gather([p.shifts_px for p in poses]),
        symmetry=symmetry,
        pixel_size_A=halves.store.pixel_size_A,
        rlnLogLikeliContribution=halves.gather([p.log_likelihood for p in poses]),
        rlnMaxValueProbDistribution=halves.gather([p.confidence for p in poses]),
        crpScale=halves.gather([state.scale for state in states]),
        rlnDefocusU=defocus_u,
        rlnDefocusV=defocus_v,
        rlnDefocusAngle=angle,
        rlnRandomSubset=halves.gather([np.full(len(half), i) for i, half in enumerate(halves, start=1)]),
        **columns,
    )
    write_table(outputs["particles"], found)
    write_history(outputs["history"], Iteration, progress.history)
