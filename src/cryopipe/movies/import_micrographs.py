"""Step ``import_micrographs``: register aligned micrographs if there are no movies. The run starts at the CTF stage.

Each file is read once and checked: complete data, one section, finite values that are not all the same, and the pixel
size of its header. The table has the same columns as that of aligned movies, except those about motion.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryopipe.config.movies import ImportMicrographs
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.io.micrographs import check_pixel_size
from cryopipe.io.mrc import read_image
from cryopipe.io.star import StarTable, write_rejections, write_table
from cryopipe.items import Row, process_items
from cryopipe.movies.registration import (
    grouped,
    optics_table,
    same_size,
    typed_rows,
    unique_items,
)

COLUMNS = {
    "rlnMicrographName": "str",
    "crpMicrographNameDW": "str",
    "rlnOpticsGroup": "int64",
    "rlnImageSizeX": "int64",
    "rlnImageSizeY": "int64",
    "crpItem": "str",
}


def check_micrograph(path: Path, params: ImportMicrographs, group: int = 1) -> Row:
    """Check a micrograph, and its dose-weighted twin if there is one; return its row in optics group ``group``.

    Raises
    ------
    InputError
        The micrograph cannot be used. The message states the reason.
    """
    shape = _check_file(path, params.pixel_size_A)
    twin = twin_of(path, params)
    if twin != path:
        twin_shape = _check_file(twin, params.pixel_size_A)
        if twin_shape != shape:
            raise InputError(
                f"{twin} has {twin_shape[1]} x {twin_shape[0]} px, but {path} has {shape[1]} x {shape[0]} px. "
                "Give both micrographs from the same alignment."
            )
    return {
        "rlnMicrographName": str(path),
        "crpMicrographNameDW": str(twin),
        "rlnOpticsGroup": group,
        "rlnImageSizeX": shape[1],
        "rlnImageSizeY": shape[0],
        "crpItem": path.stem,
    }


def twin_of(path: Path, params: ImportMicrographs) -> Path:
    """Return the dose-weighted twin of a micrograph, or its own path if there is one micrograph for both purposes."""
    if params.dose_weighted_suffix is None:
        return path
    return path.with_name(f"{path.stem}{params.dose_weighted_suffix}{path.suffix}")


def _check_file(path: Path, pixel_size_A: float | None) -> tuple[int, int]:
    if path.suffix.lower() != ".mrc":
        raise InputError(
            f"{path}: a micrograph must be an .mrc file, but this one has {path.suffix or 'no suffix'}. Convert it."
        )
    image, header_A = read_image(path)
    check_pixel_size(path, header_A, pixel_size_A, "dataset.pixel_size_A")
    if image.min() == image.max():
        raise InputError(f"{path}: the micrograph is blank: all pixels have the value {image.min():g}. Leave it out.")
    return image.shape[0], image.shape[1]


def main(
    inputs: Mapping[str, Path | list[Path]], outputs: Mapping[str, Path], params: ImportMicrographs, context: Context
) -> None:
    """Check the micrographs of ``params.paths``; write outputs ``micrographs`` (STAR) and ``rejected`` (TSV)."""
    optics = optics_table(params, aligned=True)
    items = unique_items(params.paths)
    # the check of an item does not depend on the others in its batch
    alone = params.model_copy(update={"paths": []})
    own = grouped({item: str(path) for item, path in items.items()}, alone)

    def check(item: str, facts: tuple[Path, int, ImportMicrographs]) -> Row:
        path, group, of_group = facts
        return check_micrograph(path, of_group, group)

    results = process_items(
        {item: (path, *own[item]) for item, path in items.items()},
        check,
        context,
        params=alone,
        reads=lambda item, facts: [facts[0], twin_of(facts[0], params)],
        threads=context.threads,
    )
    rows, odd = same_size(results.rows, "a micrograph")
    write_table(outputs["micrographs"], StarTable("micrographs", optics, typed_rows(rows, COLUMNS)))
    write_rejections(outputs["rejected"], [*results.rejections, *odd])
