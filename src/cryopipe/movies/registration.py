"""What the registration of movies and that of micrographs have in common: names, sizes, pixel sizes, tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd

from cryopipe.config.dataset import GROUP_FACTS, OpticsGroup, group_of
from cryopipe.config.declaration.base import require
from cryopipe.config.movies import ImportMicrographs, ImportMovies
from cryopipe.errors import InputError
from cryopipe.io.star import make_optics
from cryopipe.items import Rejection, Row

ImportParams = TypeVar("ImportParams", bound=ImportMovies | ImportMicrographs)


def unique_items(paths: Sequence[str]) -> dict[str, Path]:
    """Return ``{stem: path}``. The stem is the name of the item in all later tables.

    Raises
    ------
    InputError
        Two files have the same stem.
    """
    twice = [stem for stem, count in Counter(Path(p).stem for p in paths).items() if count > 1]
    if twice:
        files = ", ".join(p for p in paths if Path(p).stem == twice[0])
        raise InputError(f"the name {twice[0]!r} belongs to more than one file ({files}). Rename all but one.")
    return {Path(p).stem: Path(p) for p in paths}


def grouped(names: Mapping[str, str], params: ImportParams) -> dict[str, tuple[int, ImportParams]]:
    """Return for each item the number of its optics group (from 1) and the parameters with the facts of that group.

    Parameters
    ----------
    names : mapping
        For each item the path, or name in an archive, that is compared with the globs of the groups.
    params : ImportMovies or ImportMicrographs
        Facts of the dataset, and its optics groups if there are any.

    Raises
    ------
    ConfigError
        An item belongs to no group, or to several.
    """
    groups = params.optics_groups
    if not groups:
        return dict.fromkeys(names, (1, params))
    own = {group.name: (number, _with_facts(params, group)) for number, group in enumerate(groups, 1)}
    return {item: own[group_of(name, groups).name] for item, name in names.items()}


def optics_table(params: ImportMovies | ImportMicrographs, *, aligned: bool) -> pd.DataFrame:
    """Return the optics groups of the dataset (one, or those of ``params.optics_groups``), the same for every batch.

    Parameters
    ----------
    params : ImportMovies or ImportMicrographs
        Facts and groups.
    aligned : bool
        Whether the files are aligned micrographs, which have a pixel size of their own.
    """
    groups = params.optics_groups
    members = [_with_facts(params, group) for group in groups] if groups else [params]
    names = [group.name for group in groups] if groups else [params.optics_group_name]
    tables = []
    for number, (name, facts) in enumerate(zip(names, members, strict=True), 1):
        pixel_A, voltage, cs, contrast = require(facts, "pixel_size_A", "voltage_kV", "cs_mm", "amplitude_contrast")
        table = make_optics(
            voltage_kV=voltage,
            cs_mm=cs,
            amplitude_contrast=contrast,
            movie_pixel_size_A=pixel_A,
            micrograph_pixel_size_A=pixel_A if aligned else None,
            name=name,
        )
        tables.append(table.assign(rlnOpticsGroup=number))
    return pd.concat(tables, ignore_index=True)


def _with_facts(params: ImportParams, group: OpticsGroup) -> ImportParams:
    known = [fact for fact in GROUP_FACTS if fact in type(params).model_fields and getattr(group, fact) is not None]
    return cast(ImportParams, params.model_copy(update={fact: getattr(group, fact) for fact in known}))


def same_size(rows: Sequence[Row], what: str) -> tuple[list[Row], list[Rejection]]:
    """Keep the rows with the most frequent image size (of equally frequent sizes the first) and reject the others.

    ``what`` names the rejected ones in the reason. One gain, and one set of averages, cannot fit several sizes.
    """
    sizes = Counter((row["rlnImageSizeX"], row["rlnImageSizeY"]) for row in rows)
    if len(sizes) < 2:
        return list(rows), []
    (nx, ny), _ = sizes.most_common(1)[0]
    kept = [row for row in rows if (row["rlnImageSizeX"], row["rlnImageSizeY"]) == (nx, ny)]
    odd = [row for row in rows if (row["rlnImageSizeX"], row["rlnImageSizeY"]) != (nx, ny)]
    return kept, [
        Rejection(
            row["crpItem"],
            "quarantined",
            f"{what} of {row['rlnImageSizeX']} x {row['rlnImageSizeY']} px in an optics group of {nx} x {ny} px",
        )
        for row in odd
    ]


def typed_rows(rows: Sequence[Row], columns: Mapping[str, str]) -> pd.DataFrame:
    """Return rows as a table of ``columns`` (name to dtype). There may be no rows."""
    data: dict[str, Any] = {name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in columns.items()}
    return pd.DataFrame(data)
