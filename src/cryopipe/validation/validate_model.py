"""Step ``validate_model``: compare a map with the density of an atomic model (masked FSC, resolution at 0.5).

The atoms of the model are fitted to the map (rotation, shift, hand), and the potential of the model in ice is computed. Map
and potential are correlated inside a soft mask around the atoms. The threshold 0.5 is that for a map against a perfect
reference (Rosenthal & Henderson 2003, doi:10.1016/j.jmb.2003.07.013). Known limit: because of errors of the model the
resolution is worse than that of the map.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.declaration.base import require
from cryopipe.config.validation import ValidateModel
from cryopipe.context import Context
from cryopipe.imaging.filters import low_pass
from cryopipe.imaging.fsc import fourier_shell_correlation, resolution_at
from cryopipe.imaging.masks import soft_edge
from cryopipe.io.atomic import atomic_write
from cryopipe.io.fsc import fsc_frame
from cryopipe.io.mrc import write_volume
from cryopipe.io.star_blocks import write_blocks
from cryopipe.simulation.atoms import AtomicModel, read_model
from cryopipe.simulation.potential import potential_map
from cryopipe.validation.frame import Frame, find_frame
from cryopipe.validation.maps import read_maps

#: FSC against a perfect reference at which signal and noise are equal (Rosenthal & Henderson 2003).
MODEL_THRESHOLD = 0.5
#: Resolution in Å at which the model is fitted to the map. Secondary structure, which shows the hand, is visible there.
SEARCH_RESOLUTION_A = 8.0


def compare_with_model(
    volume: NDArray[np.float32],
    model: AtomicModel,
    *,
    pixel_size_A: float,
    params: ValidateModel,
    threads: int = 1,
) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]], NDArray[np.float32]]:
    """Correlate a map with a model.

    Parameters
    ----------
    volume : array float32 [z, y, x]
        Map with any grey scale, pose and hand, and the particle near its centre.
    model : AtomicModel
        Model of the whole particle, centred.
    pixel_size_A : float
        Å.
    params : ValidateModel
        Options.
    threads : int
        Threads.

    Returns
    -------
    numbers : dict
        Resolutions at FSC 0.5 in Å, and how the model was fitted to the map.
    curves : dict of array [box // 2 + 1]
        ``masked`` and ``unmasked``.
    density : array float32 [z, y, x]
        Potential of the model in the frame and hand of the map.
    """
    (symmetry,) = require(params, "symmetry")
    box = volume.shape[0]
    model = replace(model, b_factors_A2=model.b_factors_A2 + params.b_factor_A2)
    placed, frame = lay_over_map(
        model, volume, pixel_size_A=pixel_size_A, symmetry=symmetry, allow_hand=params.allow_hand, threads=threads
    )
    density = potential_map(placed, box=box, pixel_size_A=pixel_size_A, threads=threads)
    inside = atom_mask(placed, box=box, pixel_size_A=pixel_size_A, params=params)
    curves = {
        "masked": fourier_shell_correlation(volume * inside, density * inside, threads=threads),
        "unmasked": fourier_shell_correlation(volume, density, threads=threads),
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


def lay_over_map(
    model: AtomicModel,
    volume: NDArray[np.float32],
    *,
    pixel_size_A: float,
    symmetry: str,
    allow_hand: bool,
    threads: int = 1,
) -> tuple[AtomicModel, Frame]:
    """Fit the atoms of a model to a map. The map is not changed and nothing is interpolated.

    Parameters
    ----------
    model : AtomicModel
        Model of the whole particle, centred.
    volume : array float32 [z, y, x]
        Map, with its symmetry axes in the standard setting of ``symmetry``.
    pixel_size_A : float
        Å.
    symmetry : str
        Point group of the map, which makes the search smaller.
    allow_hand : bool
        Whether the mirror image of the model may be used (then the map has the wrong hand).
    threads : int
        Threads.
    """
    box = volume.shape[0]
    density = potential_map(model, box=box, pixel_size_A=pixel_size_A, threads=threads)
    frame = find_frame(
        density,
        low_pass(volume, pixel_size_A, max(SEARCH_RESOLUTION_A, 3 * pixel_size_A)),
        pixel_size_A,
        symmetry=symmetry,
        same_axes=False,
        allow_hand=allow_hand,
        resolution_A=SEARCH_RESOLUTION_A,
        threads=threads,
    )
    positions = -model.positions_A if frame.mirrored else model.positions_A
    moved = positions @ frame.rotation.T + frame.shift_xyz_px * pixel_size_A
    return replace(model, positions_A=moved), frame


def atom_mask(model: AtomicModel, *, box: int, pixel_size_A: float, params: ValidateModel) -> NDArray[np.float32]:
    """Return a soft mask ``[z, y, x]`` around all atoms. The origin of the model is at the centre.

    Parameters
    ----------
    model : AtomicModel
        Atoms, relative to the particle's centre.
    box : int
        Side of the mask in pixels.
    pixel_size_A : float
        Å.
    params : ValidateModel
        Extent and edge of the mask.
    """
    voxels = np.rint(model.positions_A / pixel_size_A).astype(np.int64) + box // 2
    voxels = voxels[((voxels >= 0) & (voxels < box)).all(axis=1)]
    binary = np.zeros((box,) * 3, dtype=bool)
    binary[voxels[:, 2], voxels[:, 1], voxels[:, 0]] = True
    return soft_edge(binary, params.mask_edge_A / pixel_size_A, extend_px=params.mask_extend_A / pixel_size_A)


def main(inputs: Mapping[str, Any], outputs: Mapping[str, Path], params: ValidateModel, context: Context) -> None:
    """Read a map and a model. Write the numbers, the curves and the density of the model.

    Parameters
    ----------
    inputs : mapping
        ``map`` (MRC) and ``model`` (PDB or mmCIF).
    outputs : mapping of Path
        ``fsc`` (STAR), ``density`` (MRC), ``summary`` (JSON).
    params : ValidateModel
        Options of the step.
    context : Context
        Threads and log.
    """
    (volume,), pixel_size_A = read_maps(inputs["map"])
    model = read_model(inputs["model"], assembly=params.assembly)
    numbers, curves, density = compare_with_model(
        volume, model, pixel_size_A=pixel_size_A, params=params, threads=context.threads
    )
    context.log.info("map against model: FSC 0.5 at %.2f A", numbers["fsc05_A"])
    box = volume.shape[0]
    columns = {"rlnFourierShellCorrelation": curves["masked"], "crpFourierShellCorrelationUnmasked": curves["unmasked"]}
    write_blocks(outputs["fsc"], {"fsc": fsc_frame(columns, box=box, pixel_size_A=pixel_size_A)})
    write_volume(outputs["density"], density, pixel_size_A)
    atomic_write(outputs["summary"], json.dumps({"model": numbers}, indent=1) + "\n")
