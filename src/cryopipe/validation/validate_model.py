"""A map against the density of an atomic model: masked FSC, resolution at 0.5.

The model's potential in ice is computed on the map's grid, the map is laid over it (rotation, shift, hand), and both are correlated inside a
soft mask around the atoms. The threshold 0.5 is that for a map against a perfect reference (Rosenthal & Henderson 2003,
doi:10.1016/j.jmb.2003.07.013). Known limit: a model fitted to other data bounds the figure from its own errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.base import require
from cryopipe.config.validation import ValidateModel
from cryopipe.context import Context
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.fsc import fourier_shell_correlation, resolution_at
from cryopipe.imaging.masks import soft_edge
from cryopipe.io.atomic import atomic_write
from cryopipe.io.mrc import write_volume
from cryopipe.io.star_blocks import write_blocks
from cryopipe.simulation.atoms import AtomicModel, read_model
from cryopipe.simulation.potential import potential_map
from cryopipe.validation.frame import find_frame
from cryopipe.validation.fsc_files import fsc_frame
from cryopipe.validation.maps import read_maps

MODEL_THRESHOLD = 0.5


def compare_with_model(
    volume: NDArray[np.float32],
    model: AtomicModel,
    *,
    pixel_size_A: float,
    params: ValidateModel,
    workers: int = 1,
) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]], NDArray[np.float32]]:
    """Correlate a map with a model.

    Parameters
    ----------
    volume : array float32 [z, y, x]
        Map, any grey scale, pose and hand; its centre near the particle's.
    model : AtomicModel
        The whole particle, centred.
    pixel_size_A : float
        Å.
    params : ValidateModel
        Options.
    workers : int
        Threads.

    Returns
    -------
    numbers : dict
        Resolutions at FSC 0.5 in Å and how the map was laid over the model.
    curves : dict of array [box // 2 + 1]
        ``masked`` and ``unmasked``.
    density : array float32 [z, y, x]
        The model's density in the frame and hand of the map's grid.
    """
    (symmetry,) = require(params, "symmetry")
    box = volume.shape[0]
    broadened = replace(model, b_factors_A2=model.b_factors_A2 + params.b_factor_A2)
    density = potential_map(broadened, box=box, pixel_size_A=pixel_size_A, workers=workers)
    inside = atom_mask(model, box=box, pixel_size_A=pixel_size_A, params=params)
    # the model keeps its own axes, so the group only tells how far the search may be thinned out: not at all
    frame = find_frame(
        low_pass(volume, pixel_size_A, max(6.0, 3 * pixel_size_A)),
        density,
        pixel_size_A,
        symmetry="C1",
        same_axes=False,
        allow_hand=params.allow_hand,
        resolution_A=8.0,
        workers=workers,
    )
    aligned = frame.apply(volume, workers=workers)
    curves = {
        "masked": fourier_shell_correlation(aligned * inside, density * inside, workers=workers),
        "unmasked": fourier_shell_correlation(aligned, density, workers=workers),
    }
    resolution = {name: resolution_at(curve, MODEL_THRESHOLD, box, pixel_size_A) for name, curve in curves.items()}
    numbers = {
        "fsc05_A": round(float(resolution["masked"]), 3),
        "fsc05_unmasked_A": round(float(resolution["unmasked"]), 3),
        "at_nyquist": resolution["masked"].at_nyquist,
        "threshold": MODEL_THRESHOLD,
        "headline_curve": "masked by the atoms",
        "mirrored": bool(frame.mirrored),
        "rotation": np.round(frame.rotation, 5).tolist(),
        "shift_xyz_A": np.round(frame.shift_xyz_px * pixel_size_A, 3).tolist(),
        "atoms": len(model.elements),
        "symmetry": symmetry,
        "pixel_size_A": pixel_size_A,
        "box_px": box,
    }
    return numbers, curves, density


def atom_mask(model: AtomicModel, *, box: int, pixel_size_A: float, params: ValidateModel) -> NDArray[np.float32]:
    """Return a soft mask ``[z, y, x]`` around all atoms, the model's origin at the centre."""
    voxels = np.rint(model.positions_A / pixel_size_A).astype(np.int64) + box // 2
    voxels = voxels[((voxels >= 0) & (voxels < box)).all(axis=1)]
    binary = np.zeros((box,) * 3, dtype=bool)
    binary[voxels[:, 2], voxels[:, 1], voxels[:, 0]] = True
    return soft_edge(binary, params.mask_edge_A / pixel_size_A, extend_px=params.mask_extend_A / pixel_size_A)


def main(inputs: Mapping[str, Any], outputs: Mapping[str, Path], params: ValidateModel, context: Context) -> None:
    """Read a map and a model; write the numbers, the curves and the model's density."""
    (volume,), pixel_size_A = read_maps(inputs["map"])
    model = read_model(inputs["model"], assembly=params.assembly)
    numbers, curves, density = compare_with_model(
        volume, model, pixel_size_A=pixel_size_A, params=params, workers=context.threads
    )
    context.log.info("map against model: FSC 0.5 at %.2f A", numbers["fsc05_A"])
    box = volume.shape[0]
    columns = {"rlnFourierShellCorrelation": curves["masked"], "crpFourierShellCorrelationUnmasked": curves["unmasked"]}
    write_blocks(outputs["fsc"], {"fsc": fsc_frame(columns, box=box, pixel_size_A=pixel_size_A)})
    write_volume(outputs["density"], density, pixel_size_A)
    atomic_write(outputs["summary"], json.dumps({"model": numbers}, indent=1) + "\n")
