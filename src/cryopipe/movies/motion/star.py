"""The motion file of a movie, as RELION's polishing reads it (`data_general`, `data_global_shift`); amounts of motion.

``rlnMicrographShiftX/Y`` are the shifts to apply to each frame, in unbinned pixels of the movie, as RELION's own
program writes them. The local field is stored twice. The first is RELION's polynomial (`data_local_motion_model`: 1, x,
x², y, y², xy, each times z, z², z³; zero in the first frame, as in RELION). The second is the exact spline
(`data_local_spline`). Early motion is the part up to 4 e/Å² (RELION). If the exposure is not known, all motion counts
as early.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cryopipe.errors import InputError
from cryopipe.io.star import read_blocks, write_blocks
from cryopipe.movies.motion.local_alignment import LocalMotion

#: Exposure that ends early motion, as in RELION's motion correction.
_EARLY_E_A2 = 4.0
#: RELION's numbers of the versions of its motion model: none, and the polynomial of third order.
_NO_LOCAL_MODEL, _POLYNOMIAL_MODEL = 0, 1
#: Places along each side at which the polynomial is fitted to the spline: 81 for its 6 terms in space. The field is smooth,
#: so that more places would change nothing but the time.
_SAMPLES = 9


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
    dose_per_frame_e_A2, pre_exposure_e_A2 : float
        Exposure of a frame (0: not known), and before the first one.
    voltage_kV : float
        Acceleration voltage.
    """

    shifts_px: np.ndarray
    pixel_size_A: float
    frames: np.ndarray
    dose_per_frame_e_A2: float = 0.0
    pre_exposure_e_A2: float = 0.0
    voltage_kV: float = 300.0


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
    local: LocalMotion | None = None,
) -> None:
    """Write the motion of one movie and its local field.

    Parameters
    ----------
    path : Path
        The motion file (STAR).
    shifts_px : ndarray ``[n, 2]``
        Global shifts (x, y) to apply to the frames, unbinned pixels.
    movie : Path
        The movie, under the path at which RELION will look for it.
    frame_shape : (int, int)
        Rows and columns (y, x) of a frame, unbinned.
    pixel_size_A : float
        Unbinned pixel size.
    voltage_kV : float
        Acceleration voltage.
    binning : int
        Factor by which the micrograph is smaller than the frames.
    gain : Path or None
        The gain that frames are multiplied by.
    dose_per_frame_e_A2 : float or None
        Exposure of one frame; None, unknown, is written as 0.
    pre_exposure_e_A2 : float
        Exposure before the first frame.
    local : LocalMotion, optional
        Local field, written as RELION's polynomial and as a spline.
    """
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
        "rlnMotionModelVersion": _NO_LOCAL_MODEL if local is None else _POLYNOMIAL_MODEL,
    }
    shifts = pd.DataFrame(
        {
            "rlnMicrographFrameNumber": np.arange(1, len(shifts_px) + 1),
            "rlnMicrographShiftX": shifts_px[:, 0].astype(np.float64),
            "rlnMicrographShiftY": shifts_px[:, 1].astype(np.float64),
        }
    )
    blocks: dict[str, pd.DataFrame | dict[str, object]] = {"general": general, "global_shift": shifts}
    if local is not None:
        polynomial = polynomial_model(local).ravel()
        blocks["local_motion_model"] = pd.DataFrame(
            {"rlnMotionModelCoeffsIdx": np.arange(len(polynomial)), "rlnMotionModelCoeff": polynomial}
        )
        axis, t, y, x = np.indices(local.coefficients.shape).reshape(4, -1)
        blocks["local_spline"] = pd.DataFrame(
            {
                "crpSplineAxis": axis,
                "crpSplineT": t,
                "crpSplineY": y,
                "crpSplineX": x,
                "crpSplineCoefficient": local.coefficients.ravel(),
            }
        )
    write_blocks(path, blocks)


def polynomial_model(local: LocalMotion) -> np.ndarray:
    """Return RELION's coefficients ``[2, 18]`` (x, y) nearest to the field minus the field of the first frame.

    Each of 1, x, x², y, y², xy (x and y from -½ to ½ across the frame) has three: for z, z², z³, where z is the frame
    number from 0.
    """
    n, ny, nx = local.shape
    y, x = np.linspace(0, ny, _SAMPLES), np.linspace(0, nx, _SAMPLES)
    field = np.stack([local.at(frame, np.minimum(y, ny - 1), np.minimum(x, nx - 1)) for frame in range(n)])
    field -= field[0]
    space = _space(y / ny - 0.5, x / nx - 0.5).reshape(6, -1).T
    # in units of the movie's length the powers of time stay comparable
    time = (np.arange(n) / max(n - 1, 1))[:, None] ** np.arange(1, 4)
    design = np.einsum("ps,ft->fpst", space, time).reshape(n * len(space), 18)
    target = field.transpose(0, 2, 3, 1).reshape(-1, 2)
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    scale = np.tile(float(max(n - 1, 1)) ** -np.arange(1.0, 4.0), 6)
    result: np.ndarray = solution.T * scale
    return result


def _space(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return 1, x, x², y, y², xy ``[6, a, b]`` at rows ``y`` [a] and columns ``x`` [b]."""
    v, u = np.meshgrid(y, x, indexing="ij")
    return np.stack([np.ones_like(u), u, u**2, v, v**2, u * v])


def read_polynomial(path: Path) -> np.ndarray | None:
    """Return the coefficients ``[2, 18]`` of RELION's local model in a motion file of ours or of RELION, or None.

    Raises
    ------
    InputError
        The file does not have 36 coefficients.
    """
    blocks = read_blocks(path)
    if "local_motion_model" not in blocks:
        return None
    table = blocks["local_motion_model"].sort_values("rlnMotionModelCoeffsIdx")
    values = table["rlnMotionModelCoeff"].to_numpy(dtype=np.float64)
    if len(values) != 36:
        raise InputError(f"{path}: data_local_motion_model has {len(values)} coefficients, not 2 x 18. Align again.")
    return values.reshape(2, 18)


def polynomial_field(coefficients: np.ndarray, frames: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the field ``[n, 2, a, b]`` of RELION's local model, in px, zero in frame 0.

    Parameters
    ----------
    coefficients : ndarray ``[2, 18]``
        Of :func:`polynomial_model` or :func:`read_polynomial`, (x, y).
    frames : ndarray ``[n]``
        Frame numbers from 0.
    y, x : ndarray ``[a]``, ``[b]``
        Rows and columns, from -1/2 to 1/2 across the frame.
    """
    time = np.asarray(frames, dtype=np.float64)[:, None] ** np.arange(1, 4)
    field: np.ndarray = np.einsum("cst,sab,nt->ncab", coefficients.reshape(2, 6, 3), _space(y, x), time)
    return field


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
            raise InputError(f"{path}: data_{block} lacks {column}; it is not a motion file. Align the movie again.")
    table = blocks["global_shift"].sort_values("rlnMicrographFrameNumber")
    general = blocks["general"].iloc[0]
    return Motion(
        shifts_px=table[["rlnMicrographShiftX", "rlnMicrographShiftY"]].to_numpy(dtype=np.float64),
        pixel_size_A=float(general["rlnMicrographOriginalPixelSize"]),
        frames=table["rlnMicrographFrameNumber"].to_numpy(dtype=np.int64),
        dose_per_frame_e_A2=float(general.get("rlnMicrographDoseRate", 0.0)),
        pre_exposure_e_A2=float(general.get("rlnMicrographPreExposure", 0.0)),
        voltage_kV=float(general.get("rlnVoltage", 300.0)),
    )


def accumulated_motion_A(
    shifts_px: np.ndarray, pixel_size_A: float, dose_per_frame_e_A2: float | None, pre_exposure_e_A2: float
) -> tuple[float, float, float]:
    """Return the length of a trajectory in Å: total, early (up to 4 e/Å²) and late.

    Parameters
    ----------
    shifts_px : ndarray ``[n, 2]``
        Shifts (x, y) of the frames, unbinned pixels.
    pixel_size_A : float
        Unbinned pixel size.
    dose_per_frame_e_A2 : float or None
        Exposure of one frame; where it is unknown (None or 0) all motion counts as early.
    pre_exposure_e_A2 : float
        Exposure before the first frame.
    """
    steps = np.hypot(*np.diff(shifts_px, axis=0).T) * pixel_size_A
    if dose_per_frame_e_A2:
        ends = pre_exposure_e_A2 + dose_per_frame_e_A2 * np.arange(2, len(shifts_px) + 1)
        early = float(steps[ends <= _EARLY_E_A2].sum())
    else:
        early = float(steps.sum())
    total = float(steps.sum())
    return total, early, total - early
