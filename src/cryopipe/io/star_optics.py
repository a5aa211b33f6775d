"""Optics groups: made from the rows of RELION 3.0 tables, and merged when tables are joined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cryopipe.errors import InputError

#: Columns that RELION 3.0 repeats in every row and that belong to the optics group since 3.1.
_OPTICS_COLUMNS = (
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnBeamTiltX",
    "rlnBeamTiltY",
    "rlnBeamTiltClass",
    "rlnMtfFileName",
)
#: The pixel size columns that detector pixel and magnification of an old row give. For old particles it is that of the particle
#: images. As in relion_convert_star, the movie is assumed to have the same, because 3.0 did not record a rescaling.
_PIXEL_COLUMNS = {
    "movies": ("rlnMicrographOriginalPixelSize",),
    "micrographs": ("rlnMicrographOriginalPixelSize", "rlnMicrographPixelSize"),
    "coordinates": ("rlnMicrographOriginalPixelSize", "rlnMicrographPixelSize"),
    "particles": ("rlnMicrographOriginalPixelSize", "rlnImagePixelSize"),
}
_PIXEL_TOLERANCE = 1e-3


def optics_from_rows(rows: pd.DataFrame, kind: str, source: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a RELION 3.0 table into optics groups and rows of the later layout.

    Returns
    -------
    optics, rows : DataFrame
        One group for each combination of optical values, in order of appearance. Origins in pixels become Å.

    Raises
    ------
    InputError
        The rows lack voltage, Cs or pixel size (coordinates do not need them).
    """
    rows = rows.copy()
    pixel_A = _pixel_size_A(rows, source)
    origins = [c for c in ("rlnOriginX", "rlnOriginY") if c in rows]
    if origins and pixel_A is None:
        raise InputError(
            f"{source}: {origins[0]} is in pixels, but no pixel size is given. "
            "Add rlnDetectorPixelSize and rlnMagnification."
        )
    for column in origins:
        pixels = rows.pop(column).to_numpy(dtype=np.float64)
        rows[column + "Angst"] = pixels * np.asarray(pixel_A)
    missing = [c for c in ("rlnVoltage", "rlnSphericalAberration") if c not in rows]
    if len(rows) == 0 or (kind == "coordinates" and (missing or pixel_A is None)):
        return pd.DataFrame({"rlnOpticsGroup": np.array([], dtype=np.int64)}), rows
    if missing or pixel_A is None:
        lacking = ", ".join([*missing, *(["a pixel size"] if pixel_A is None else [])])
        raise InputError(
            f"{source}: there is no block data_optics, and the rows lack {lacking}. "
            "Convert the file with relion_convert_star, or add the columns."
        )
    shared = [c for c in _OPTICS_COLUMNS if c in rows]
    keys = rows[shared].copy()
    for column in _PIXEL_COLUMNS[kind]:
        # the quotient of rounded columns differs in its last digits, which must not split groups
        keys[column] = np.round(pixel_A, 6)
    optics = keys.drop_duplicates().reset_index(drop=True)
    numbers = keys.merge(optics.assign(rlnOpticsGroup=np.arange(1, len(optics) + 1)), how="left")["rlnOpticsGroup"]
    optics.insert(0, "rlnOpticsGroupName", [f"opticsGroup{i + 1}" for i in range(len(optics))])
    optics.insert(1, "rlnOpticsGroup", np.arange(1, len(optics) + 1, dtype=np.int64))
    if kind == "particles":
        optics["rlnImageDimensionality"] = 2
    rows = rows.drop(columns=[*shared, "rlnDetectorPixelSize", "rlnMagnification", "rlnPixelSize"], errors="ignore")
    return optics, rows.assign(rlnOpticsGroup=numbers.to_numpy(dtype=np.int64))


def merge_optics(tables: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, list[dict[int, int]]]:
    """Merge the optics groups of several tables. Groups with the same name must agree and become one.

    Returns
    -------
    optics : DataFrame
        Merged groups, numbered from 1 in order of appearance.
    numbers : list of dict
        For each table ``{old group number: new one}``.

    Raises
    ------
    InputError
        Two groups with the same name differ: pixel sizes by more than 0.1 %, or any other value.
    """
    merged: dict[str, dict[str, object]] = {}
    numbers: list[dict[int, int]] = []
    for table in tables:
        mapping: dict[int, int] = {}
        for group in table.to_dict("records"):
            old = int(group.pop("rlnOpticsGroup"))
            name = str(group.get("rlnOpticsGroupName", f"opticsGroup{old}"))
            known = merged.setdefault(name, {str(k): v for k, v in group.items()})
            _compare_groups(name, known, group)
            mapping[old] = list(merged).index(name) + 1
        numbers.append(mapping)
    if not merged:
        return tables[0].copy(), numbers
    optics = pd.DataFrame(list(merged.values()))
    optics.insert(min(1, optics.shape[1]), "rlnOpticsGroup", np.arange(1, len(optics) + 1, dtype=np.int64))
    return optics, numbers


def _compare_groups(name: str, known: dict[str, object], group: dict) -> None:
    for column in sorted({*known, *group}):
        one, other = known.get(column), group.get(column)
        if one == other:
            continue
        sizes = [v for v in (one, other) if isinstance(v, float) and column.endswith("PixelSize")]
        if len(sizes) == 2 and abs(sizes[0] - sizes[1]) <= _PIXEL_TOLERANCE * sizes[0]:
            continue
        raise InputError(
            f"optics group {name}: {column} is {one} in one table and {other} in another. "
            "Correct one of them, or give different groups different names."
        )


def _pixel_size_A(rows: pd.DataFrame, source: str) -> np.ndarray | None:
    if "rlnDetectorPixelSize" in rows and "rlnMagnification" in rows:
        magnification = rows["rlnMagnification"].to_numpy(dtype=np.float64)
        if (magnification <= 0).any():
            raise InputError(f"{source}: rlnMagnification has the value {magnification.min()}; it must be positive.")
        # detector pixel in µm; 1 µm = 10^4 Å
        pixel_A: np.ndarray = rows["rlnDetectorPixelSize"].to_numpy(dtype=np.float64) * 1e4 / magnification
        return pixel_A
    for column in ("rlnImagePixelSize", "rlnMicrographPixelSize", "rlnPixelSize"):
        if column in rows:
            return rows[column].to_numpy(dtype=np.float64)
    return None
