"""One half set of a gold-standard refinement: its poses, noise and map, and the step that improves them.

Nothing here sees the other half. What passes between the halves is in :mod:`cryopipe.iteration.exchange`. The particle
store gives images in blocks, twice in an iteration: first for poses, CTFs and residuals, then, when the noise of the
whole half is known, for the reconstruction.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cryopipe.imaging.geometry import angular_distance_deg
from cryopipe.iteration.half_set_state import HalfSet, HalfSetOptions, Task
from cryopipe.iteration.halves import Half
from cryopipe.iteration.improver import Improver, with_ctfs
from cryopipe.iteration.optics import update_optics
from cryopipe.iteration.residuals import Residuals
from cryopipe.kernels.devices import Resources
from cryopipe.poses.optics_evidence import OpticsEvidence
from cryopipe.projection.working_box import in_box
from cryopipe.reconstruction.reconstruct import Reconstruction

#: least weight of an image in the reconstruction of an iteration that searches all poses globally
_LEAST_WEIGHT = 0.05


def advance(
    state: HalfSet,
    half: Half,
    reference: NDArray[np.float32],
    task: Task,
    options: HalfSetOptions,
    rng: np.random.Generator,
    resources: Resources,
) -> tuple[HalfSet, Reconstruction]:
    """Improve poses, noise, scales and defoci against the reference, then reconstruct.

    Parameters
    ----------
    state : HalfSet
        Not modified.
    half : Half
        The particles.
    reference : array float32 [box, box, box]
        The half's own filtered and masked map in the working box.
    task : Task
        What to do.
    options : HalfSetOptions
        Symmetry, search, CTFs.
    rng : Generator
        Displaces the grid and draws the particles of a random re-search.
    resources : Resources
        Threads and CUDA devices. Images are searched and refined on all devices, and reconstructed on the current one.

    Returns
    -------
    state : HalfSet
    sums : Reconstruction
        Accumulators in the working box, up to ``task.reconstruct_radius``. They are on the GPU if there is one.
    """
    to_box = task.box / half.store.box
    improver = Improver.against(reference, state, half, task, options, rng, resources)
    poses = replace(state.poses.subset(slice(None)), shifts_px=state.poses.shifts_px * to_box)
    improved = replace(state, poses=poses)
    blocks = half.store.blocks(task.reconstruct_radius)
    told = [improver.improve(improved, rows, in_box(images, task.box)) for rows, images in blocks]
    sigma2 = state.sigma2.copy()
    sigma2[: task.radius + 1] = Residuals.joined([residuals for residuals, _ in told]).sigma2
    improved = replace(improved, sigma2=sigma2)
    evidence = [one for _, one in told if one is not None]
    if evidence:
        joined = OpticsEvidence.joined(evidence)
        improved = update_optics(improved, joined, half.micrographs, task, options.optics)
    weights = np.maximum(poses.confidence, _LEAST_WEIGHT) if task.search == "all" else None
    sums = reconstruct(
        improved,
        half,
        task.reconstruct_radius,
        box=task.box,
        symmetry=options.search.symmetry,
        weights=weights,
        gpu=resources.devices is not None,
    )
    turned = angular_distance_deg(state.poses.rotations, poses.rotations, options.search.operators)
    back = replace(poses, shifts_px=poses.shifts_px / to_box)
    return replace(improved, poses=back, angle_change_deg=float(np.median(turned))), sums


def reconstruct(
    state: HalfSet,
    half: Half,
    radius: int,
    *,
    symmetry: str,
    box: int | None = None,
    weights: NDArray[np.float64] | None = None,
    gpu: bool = False,
) -> Reconstruction:
    """Insert all images of a half set at their poses.

    Parameters
    ----------
    state : HalfSet
        Shifts in px of ``box``.
    half : Half
        The particles.
    radius : int
        Outermost shell.
    symmetry : str
        Point group.
    box : int, optional
        Working box. The default is that of the images.
    weights : array [n], optional
        Factor on each image.
    gpu : bool
        Keep the accumulators on the GPU.
    """
    store, parameters = half.store, half.store.parameters
    edge = store.box if box is None else box
    sums = Reconstruction.empty(edge, radius, symmetry=symmetry, expected_slices=len(half), gpu=gpu)
    for rows, images in store.blocks(radius):
        small = images if box is None else in_box(images, box)
        posed = with_ctfs(small, parameters.subset(rows), state.ctf_change_A[rows]).scaled(state.scale[rows])
        poses = state.poses.subset(rows)
        mine = None if weights is None else weights[rows]
        sums.insert(posed, poses.rotations, poses.shifts_px, 1 / state.sigma2, weights=mine)
    return sums
