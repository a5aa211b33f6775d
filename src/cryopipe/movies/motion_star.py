"""The motion file of a movie that RELION's polishing reads (`data_general`, `data_global_shift`); motion figures.

``rlnMicrographShiftX/Y`` are the shifts to apply to each frame, in unbinned pixels of the movie, as RELION's own
program writes them. Early motion is the part up to 4 e/Å² (RELION); without a known exposure all motion counts as
early.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cryopipe.errors import InputError
from cryopipe.io.star import read_blocks, write_blocks

_EARLY_E_A2 = 4.0
_NO_LOCAL_MODEL = 0


@dataclass(frozen=True)
class Motion:
    """Trajectory of one movie as stored.

    Attributes
    ----------
    shifts_px : ndarray ``[n, 2]``
        (x, y) to apply, unbinned pixels of the movie.
    pixel_size_A : float
        Of the movie.
    frames : ndarray ``[n]``
        Frame numbers from 1; gaps are dropped frames.
    """

    shifts_px: np.ndarray
    pixel_size_A: float
    frames: np.ndarray


def write_motion(
    path: Path,
    shifts_px: np.ndarray,
    *,
    movie: Path,
    frame_shape: tuple[int, int],
    pixel_size_A: float,
    voltage_kV: float,
    binning: int,
    gain: Path | None,
    dose_per_frame_e_A2: float | None,
    pre_exposure_e_A2: float,
) -> None:
    """Write the motion of one movie, ``shifts_px`` [n, 2] (x, y)."""
    general: dict[str, object] = {
        "rlnImageSizeX": frame_shape[1],
        "rlnImageSizeY": frame_shape[0],
        "rlnImageSizeZ": len(shifts_px),
        "rlnMicrographMovieName": str(movie),
    }
    if gain is not None:
        general["rlnMicrographGainName"] = str(gain)
    general |= {
        "rlnMicrographBinning": float(binning),
        "rlnMicrographOriginalPixelSize": pixel_size_A,
        "rlnMicrographDoseRate": dose_per_frame_e_A2 or 0.0,
        "rlnMicrographPreExposure": pre_exposure_e_A2,
        "rlnVoltage": voltage_kV,
        "rlnMicrographStartFrame": 1,
        "rlnMotionModelVersion": _NO_LOCAL_MODEL,
    }
    shifts = pd.DataFrame(
        {
            "rlnMicrographFrameNumber": np.arange(1, len(shifts_px) + 1),
            "rlnMicrographShiftX": shifts_px[:, 0].astype(np.float64),
            "rlnMicrographShiftY": shifts_px[:, 1].astype(np.float64),
        }
    )
    write_blocks(path, {"general": general, "global_shift": shifts})


def read_motion(path: Path) -> Motion:
    """Read a motion file of ours or of RELION.

    Raises
    ------
    InputError
        A block or column is missing.
    """
    blocks = read_blocks(path)
    for block, column in (("general", "rlnMicrographOriginalPixelSize"), ("global_shift", "rlnMicrographShiftX")):
        if block not in blocks or column not in blocks[block]:
            raise InputError(f"{path}: no {column} in data_{block}: not a motion file. Align the movie again.")
    table = blocks["global_shift"].sort_values("rlnMicrographFrameNumber")
    return Motion(
        shifts_px=table[["rlnMicrographShiftX", "rlnMicrographShiftY"]].to_numpy(dtype=np.float64),
        pixel_size_A=float(blocks["general"]["rlnMicrographOriginalPixelSize"].iloc[0]),
        frames=table["rlnMicrographFrameNumber"].to_numpy(dtype=np.int64),
    )


def accumulated_motion_A(
    shifts_px: np.ndarray, pixel_size_A: float, dose_per_frame_e_A2: float | None, pre_exposure_e_A2: float
) -> tuple[float, float, float]:
    """Return the length of the trajectory ``shifts_px`` [n, 2] in Å: total, early (up to 4 e/Å²) and late."""
    steps = np.hypot(*np.diff(shifts_px, axis=0).T) * pixel_size_A
    if dose_per_frame_e_A2:
        ends = pre_exposure_e_A2 + dose_per_frame_e_A2 * np.arange(2, len(shifts_px) + 1)
        early = float(steps[ends <= _EARLY_E_A2].sum())
    else:
        early = float(steps.sum())
    total = float(steps.sum())
    return total, early, total - early
