"""What all CTF estimators share: they read micrographs, and write tables with CTF columns, pictures and rejections.

An estimator is a function from one micrograph to the columns that it adds to the micrograph's row. Everything else is
here, so that a further estimator consists only of its method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.image import imsave
from pydantic import BaseModel
from threadpoolctl import threadpool_limits

from cryopipe.context import Context
from cryopipe.ctf.defocus import Defocus, Microscope
from cryopipe.ctf.sector_errors import ERROR_COLUMNS, DefocusError, error_columns
from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_path
from cryopipe.io.micrographs import MICROSCOPE, micrograph_path, micrograph_rows, read_micrograph
from cryopipe.io.mrc import write_image
from cryopipe.io.star import read_table, write_rejections, write_table
from cryopipe.items import Row, process_items

#: The columns that every estimator adds, with their types.
CTF_COLUMNS = {
    "rlnCtfImage": "object",
    "rlnDefocusU": "float64",
    "rlnDefocusV": "float64",
    "rlnDefocusAngle": "float64",
    "rlnPhaseShift": "float64",
    "rlnCtfAstigmatism": "float64",
    "rlnCtfFigureOfMerit": "float64",
    "rlnCtfMaxResolution": "float64",
    **dict.fromkeys(ERROR_COLUMNS, "float64"),
}


@dataclass(frozen=True, eq=False)
class CtfMicrograph:
    """One micrograph whose CTF is to be estimated.

    Attributes
    ----------
    item : str
        Name of the micrograph.
    path : Path
        The file.
    image : ndarray ``[y, x]`` float32
        Average of the aligned frames without dose weighting, which would remove the rings.
    pixel_size_A : float
        Å per pixel.
    microscope : Microscope
        Voltage, spherical aberration, amplitude contrast.
    folder : Path
        Folder of the step's results.
    start : object
        Further knowledge about this micrograph (a CTF to start from), or None.
    """

    item: str
    path: Path
    image: np.ndarray
    pixel_size_A: float
    microscope: Microscope
    folder: Path
    start: Any = None

    def diagnostic(self, ending: str) -> Path:
        """Return the path of a diagnostic file of this micrograph."""
        return self.folder / "diagnostics" / f"{self.item}_{ending}"

    def picture(self, ending: str) -> Path:
        """Return the path of a picture of this micrograph."""
        return self.folder / "pictures" / f"{self.item}_{ending}.png"


@dataclass(frozen=True)
class CtfFiles:
    """Endings of the files that an estimator writes for each micrograph: ``<item>_<ending>``, pictures with ``.png``."""

    diagnostics: tuple[str, ...]
    pictures: tuple[str, ...]

    def of(self, item: str, folder: Path) -> list[Path]:
        """Return the files of an item."""
        return [
            *(folder / "diagnostics" / f"{item}_{ending}" for ending in self.diagnostics),
            *(folder / "pictures" / f"{item}_{ending}.png" for ending in self.pictures),
        ]


def microscope_of(row: Mapping[str, Any], path: Path) -> Microscope:
    """Return the microscope of a row that is joined with its optics.

    Raises
    ------
    InputError
        A column is missing.
    """
    missing = [name for name in MICROSCOPE if name not in row]
    if missing:
        raise InputError(f"{path}: the optics table lacks {', '.join(missing)}. Make it with an import step.")
    return Microscope(*(float(row[name]) for name in MICROSCOPE))


def check_band(pixel_size_A: float, min_resolution_A: float) -> None:
    """Refuse pixels that are so large that there is no band to fit between ``min_resolution_A`` and Nyquist.

    Raises
    ------
    InputError
        Twice the pixel size is more than 0.8 times ``min_resolution_A``.
    """
    if 2.0 * pixel_size_A > 0.8 * min_resolution_A:
        raise InputError(
            f"with pixels of {pixel_size_A:g} Å the spectrum ends at {2 * pixel_size_A:g} Å: there is no band to fit finer "
            f"than min_resolution_A {min_resolution_A:g} Å. Use less binned micrographs."
        )


def ctf_columns(defocus: Defocus, *, image: Path, merit: float, resolution_A: float, error: DefocusError | None) -> Row:
    """Return the values of `CTF_COLUMNS`, in their order.

    Parameters
    ----------
    defocus : Defocus
        The fit.
    image : Path
        Picture of data beside model (MRC).
    merit : float
        Figure of merit of the fit.
    resolution_A : float
        Resolution (Å) of the fit.
    error : DefocusError or None
        Standard deviations of the fit, None if they are not known.
    """
    phase_shift_deg = float(np.degrees(defocus.phase_shift_rad))
    u_A, v_A = defocus.u_A, defocus.v_A
    values = (str(image), u_A, v_A, defocus.angle_deg, phase_shift_deg, u_A - v_A, merit, resolution_A)
    return dict(zip(CTF_COLUMNS, values, strict=False)) | error_columns(error)


def write_picture(mrc: Path, png: Path, picture: np.ndarray, pixel_size_A: float) -> None:
    """Write a picture as MRC and as PNG.

    Parameters
    ----------
    mrc, png : Path
        The two files.
    picture : ndarray ``[y, x]``
        Grey values 0 to 1.
    pixel_size_A : float
        Å per pixel, for the header of the MRC file. For a spectrum it is that of the transformed image.
    """
    write_image(mrc, picture, pixel_size_A)
    with atomic_path(png) as temporary:
        imsave(temporary, picture, cmap="gray", vmin=0.0, vmax=1.0)


def estimate_ctfs(
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    params: BaseModel,
    context: Context,
    *,
    estimate: Callable[[CtfMicrograph], Row],
    columns: Mapping[str, str],
    files: CtfFiles,
    starts: Mapping[str, Any] | None = None,
) -> None:
    """Estimate the CTFs of a batch. This is the ``main`` of an estimator.

    Micrographs are processed in parallel, one thread each.

    Parameters
    ----------
    inputs, outputs : mapping
        Both have ``micrographs``, outputs also ``rejected``.
    params : BaseModel
        Parameters of the step.
    context : Context
        Context of the job.
    estimate : callable
        Returns the values of ``columns`` for one micrograph and writes its ``files``. It must use only the parameters
        and the attributes of the micrograph.
    columns : mapping
        The columns to add, with their types. Columns with the same names in the table are replaced.
    files : CtfFiles
        Files that ``estimate`` writes.
    starts : mapping, optional
        ``{item: its CtfMicrograph.start}``.
    """
    source = inputs["micrographs"]
    table = read_table(source, "micrographs")
    folder = outputs["micrographs"].parent
    rows = micrograph_rows(table, source)
    items = {item: (row, (starts or {}).get(item)) for item, row in rows.items()}

    def work(item: str, facts: tuple[dict[str, Any], Any]) -> Row:
        row, start = facts
        micrograph = read_micrograph(row, dose_weighted=False)
        microscope = microscope_of(row, source)
        given = CtfMicrograph(
            item, micrograph.path, micrograph.image, micrograph.pixel_size_A, microscope, folder, start
        )
        return estimate(given) | {"crpItem": item}

    # One BLAS thread: the products are small, and the result must not depend on the number of threads.
    with threadpool_limits(1, user_api="blas"):
        results = process_items(
            items,
            work,
            context,
            params=params,
            reads=lambda item, facts: [micrograph_path(facts[0], dose_weighted=False)],
            makes=lambda item, row: files.of(item, folder),
            threads=context.threads,
        )
    found = {row["crpItem"] for row in results.rows}
    kept = table.rows[np.array([item in found for item in rows], dtype=bool)].reset_index(drop=True)
    new = pd.DataFrame(results.rows, columns=list(columns)).astype(dict(columns))
    old = kept.drop(columns=[name for name in columns if name in kept])
    write_table(outputs["micrographs"], table.with_rows(pd.concat([old, new], axis=1)))
    write_rejections(outputs["rejected"], results.rejections)
