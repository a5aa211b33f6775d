"""FSC curves as files: STAR blocks with RELION's column names, and EMDB's XML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopipe.io.atomic import atomic_write


def fsc_frame(curves: Mapping[str, NDArray[np.float64]], *, box: int, pixel_size_A: float) -> pd.DataFrame:
    """Return a table of curves with one row per shell.

    Parameters
    ----------
    curves : mapping
        ``{column name: curve [shells]}``, all with the same length.
    box : int
        Side of the maps in px.
    pixel_size_A : float
        Å.

    Returns
    -------
    DataFrame
        ``rlnSpectralIndex``, ``rlnResolution`` (1/Å), ``rlnAngstromResolution`` (999 at zero frequency, as RELION
        writes) and the curves.
    """
    shells = len(next(iter(curves.values())))
    index = np.arange(shells)
    frequency = index / (box * pixel_size_A)
    columns: dict[str, NDArray] = {
        "rlnSpectralIndex": index,
        "rlnResolution": frequency,
        "rlnAngstromResolution": np.where(index > 0, 1 / np.maximum(frequency, 1e-9), 999.0),
    }
    return pd.DataFrame(columns | dict(curves))


def masked_fsc_frame(
    corrected: NDArray[np.float64],
    unmasked: NDArray[np.float64],
    masked: NDArray[np.float64],
    randomised: NDArray[np.float64],
    *,
    box: int,
    pixel_size_A: float,
) -> pd.DataFrame:
    """Return the table of the four curves of two half maps under RELION's names, as `fsc_frame`.

    Parameters
    ----------
    corrected, unmasked, masked, randomised : array float64 [shells]
        Masked and corrected for the mask; unmasked; masked; masked after phase randomisation.
    box : int
        Side of the maps in px.
    pixel_size_A : float
        Å.
    """
    curves = {
        "rlnFourierShellCorrelationCorrected": corrected,
        "rlnFourierShellCorrelationUnmaskedMaps": unmasked,
        "rlnFourierShellCorrelationMaskedMaps": masked,
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": randomised,
    }
    return fsc_frame(curves, box=box, pixel_size_A=pixel_size_A)


def write_emdb_fsc(path: str | Path, curve: NDArray[np.float64], *, box: int, pixel_size_A: float, title: str) -> None:
    """Write a curve in EMDB's XML format for FSCs: x is the spatial frequency in 1/Å, y the correlation.

    Parameters
    ----------
    path : path
        File to make or replace.
    curve : ndarray float64 ``[shells]``
        Correlations, shell 0 first.
    box : int
        Side of the maps, px.
    pixel_size_A : float
        Å per pixel of the maps.
    title : str
        Title of the curve.
    """
    points = "\n".join(
        f"  <coordinate>\n    <x>{shell / (box * pixel_size_A):.6f}</x>\n    <y>{value:.6f}</y>\n  </coordinate>"
        for shell, value in enumerate(curve)
    )
    head = f'<fsc title="{title}" xaxis="Resolution (A-1)" yaxis="Correlation Coefficient">'
    atomic_write(path, f'<?xml version="1.0" encoding="UTF-8"?>\n{head}\n{points}\n</fsc>\n')
