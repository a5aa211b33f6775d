"""The files of a run for the sections of the report: by name, with all batches as one. Large tables are read once."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopipe.config.declaration.base import Params
from cryopipe.config.report import Report
from cryopipe.errors import CryopipeError, InputError
from cryopipe.io.mrc import read_volume
from cryopipe.io.star import Kind, StarTable, concatenate, read_table
from cryopipe.report.counts import Loss, in_order, read_losses, side_branches
from cryopipe.report.reads import COORDINATES, DESELECTED, REFINED_PARTICLES, REJECTED
from cryopipe.steps import name_of

P = TypeVar("P", bound=Params)


class RunFiles:
    """The files that a report reads.

    Parameters
    ----------
    folder : Path
        Folder of the run's results.
    inputs : mapping
        ``{name: file or files}``. A name that this run does not have is missing or empty.
    params : Report
        Parameters of the report.
    """

    def __init__(self, folder: Path, inputs: Mapping[str, Path | Sequence[Path]], params: Report) -> None:
        self.folder = folder
        self.params = params
        self._files = {name: [f] if isinstance(f, Path) else list(f) for name, f in inputs.items()}

    def __contains__(self, name: str) -> bool:
        return bool(self._files.get(name))

    def paths(self, name: str) -> list[Path]:
        """Return the files called ``name``, one for each batch and step that has them. The list may be empty."""
        return self._files.get(name, [])

    def path(self, name: str) -> Path:
        """Return the one file called ``name``.

        Raises
        ------
        CryopipeError
            This run does not have exactly one such file.
        """
        files = self.paths(name)
        if len(files) != 1:
            raise CryopipeError(
                f"the report needs one file {name}, but it has {len(files)}. This is a defect; please report it."
            )
        return files[0]

    def by_step(self, name: str) -> dict[str, list[Path]]:
        """Return ``{step, or step/run: its files called name}``."""
        found: dict[str, list[Path]] = {}
        for path in self.paths(name):
            found.setdefault(name_of(path), []).append(path)
        return found

    def table(self, name: str, kind: Kind) -> StarTable:
        """Read the tables of all batches as one."""
        return concatenate([read_table(path, kind) for path in self.paths(name)])

    def json(self, name: str) -> dict[str, Any]:
        """Read a summary. If there is none (no truth, no model), the result is empty."""
        return dict(json.loads(self.path(name).read_text())) if name in self else {}

    def params_of(self, step: str, model: type[P]) -> P:
        """Return the parameters with which ``step``, or its first run, ran. If it did not run: the defaults."""
        found = (params for name, params in self.recorded_params.items() if name.split("/")[0] == step)
        return model.model_validate(next(found, {}))

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Provenance records beside the outputs of all steps."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.rglob("*.provenance.json"))]

    @cached_property
    def recorded_params(self) -> dict[str, dict[str, Any]]:
        """``{step or step/run: its parameters}`` from the provenance records, without the files of the batch."""
        return {
            record["step"]: {key: value for key, value in record["params"].items() if key != "paths"}
            for record in self.records
        }

    @property
    def rejections(self) -> dict[str, list[Path]]:
        """``{step or step/run: lists of items that it did not pass on}``, in the order of the data flow."""
        found = self.by_step(REJECTED.name) | self.by_step(DESELECTED.name)
        return {name: found[name] for name in in_order(found)}

    @cached_property
    def losses(self) -> list[Loss]:
        """All items that a step did not pass on."""
        return read_losses(self.rejections)

    @cached_property
    def side_branches(self) -> frozenset[str]:
        """Steps whose losses are counted by another step; see `cryopipe.report.counts.side_branches`."""
        return side_branches(list(self.rejections), self.by_step(COORDINATES.name))

    @cached_property
    def used_positions(self) -> pd.DataFrame:
        """Micrograph and position of the particles in the map. This is the largest table of a run, so it is read once."""
        rows = self.table(REFINED_PARTICLES.name, "particles").rows
        return rows[["crpItem", "rlnCoordinateX", "rlnCoordinateY"]]


def volume_of(path: Path) -> tuple[NDArray[np.float32], float]:
    """Read a map of this run and its pixel size in Å.

    Raises
    ------
    InputError
        The header of the map has no pixel size.
    """
    volume, pixel_size_A = read_volume(path)
    if pixel_size_A is None:
        raise InputError(f"{path}: the header has no pixel size. Something changed the file; run its step again.")
    return volume, pixel_size_A


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the numeric columns of a history table."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    numeric = [key for key in (rows[0] if rows else {}) if all(_is_number(row[key]) for row in rows)]
    return [{key: float(row[key]) for key in numeric} for row in rows]


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True
