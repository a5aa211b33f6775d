"""What all pickers share: they read micrographs and write one table of coordinates.

A picker is a function from a micrograph and its CTF to positions. Everything else is here, so that a new picker consists
only of its method.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from pydantic import BaseModel

from cryopipe.context import Context
from cryopipe.imaging.optics import CtfParameters, from_row
from cryopipe.io.micrographs import micrograph_path, micrograph_rows, read_micrograph
from cryopipe.io.star import StarTable, read_table, write_rejections, write_table
from cryopipe.items import Row, process_items
from cryopipe.picking.maxima import Picks

#: Columns of a table of coordinates, with their types.
COLUMNS = {
    "rlnMicrographName": object,
    "rlnCoordinateX": np.float64,
    "rlnCoordinateY": np.float64,
    "rlnAutopickFigureOfMerit": np.float64,
    "rlnClassNumber": np.int64,
    "rlnAnglePsi": np.float64,
    "rlnOpticsGroup": np.int64,
    "crpItem": object,
}


class Pick(Protocol):
    """A method of picking."""

    def __call__(self, micrograph: np.ndarray, pixel_size_A: float, /, *, optics: CtfParameters | None) -> Picks:
        """Return the particles of an image ``[y, x]``, in its pixels. ``optics`` is None if its CTF is not known."""


def pick_micrographs(
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    params: BaseModel,
    context: Context,
    *,
    pick: Pick,
) -> None:
    """Pick the micrographs of a batch. This is the ``main`` of a picker.

    The dose-weighted sum (``crpMicrographNameDW``) is used if there is one. A micrograph that cannot be read is
    quarantined and has no coordinates.

    Parameters
    ----------
    inputs, outputs : mapping
        Input ``micrographs``. Outputs ``coordinates`` and, if asked for, ``rejected``.
    params : BaseModel
        Parameters of the step.
    context : Context
        Context of the job.
    pick : callable
        The method. It must use only the parameters and its arguments.
    """
    table = read_table(inputs["micrographs"], "micrographs")
    rows = micrograph_rows(table, inputs["micrographs"])

    def work(item: str, row: dict[str, Any]) -> Row:
        micrograph = read_micrograph(row, dose_weighted=True)
        picks = pick(micrograph.image, micrograph.pixel_size_A, optics=from_row(row))
        return {"item": item, "x": picks.xy[:, 0].tolist(), "y": picks.xy[:, 1].tolist(), "merit": picks.merit.tolist()}

    results = process_items(
        rows,
        work,
        context,
        params=params,
        reads=lambda item, row: [micrograph_path(row, dose_weighted=True)],
    )
    coordinates = coordinate_rows([_coordinates(rows[result["item"]], result) for result in results.rows])
    write_table(outputs["coordinates"], StarTable("coordinates", table.optics, coordinates))
    if "rejected" in outputs:
        write_rejections(outputs["rejected"], results.rejections)
    context.log.info("%d particles on %d micrographs", len(coordinates), len(results.rows))


def coordinate_rows(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several micrographs as one table. It has all columns even if there are no rows."""
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    return pd.concat([part for part in parts if len(part)] or [empty], ignore_index=True)


def _coordinates(row: dict[str, Any], result: Row) -> pd.DataFrame:
    values = {
        "rlnMicrographName": row["rlnMicrographName"],
        "rlnCoordinateX": result["x"],
        "rlnCoordinateY": result["y"],
        "rlnAutopickFigureOfMerit": result["merit"],
        "rlnClassNumber": 0,
        "rlnAnglePsi": 0.0,
        "rlnOpticsGroup": row["rlnOpticsGroup"],
        "crpItem": row["crpItem"],
    }
    return pd.DataFrame(values, columns=list(COLUMNS)).astype(COLUMNS)
