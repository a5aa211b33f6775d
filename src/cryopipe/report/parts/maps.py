"""Maps on the page: slices, histories, FSC curves, contour level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.io.star import read_blocks
from cryopipe.report.drawing import figures
from cryopipe.report.run_files import RunFiles, read_history, volume_of

Curves = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
#: Columns of a history that only number its rows.
_NOT_PLOTTED = ("iteration", "seed", "batch", "masked")
_MOST_PLOTS = 4


def map_pictures(run: RunFiles, maps: str, histories: str, title: str) -> list[dict[str, str]]:
    """Return for each map called ``maps`` what the page shows: its step, slices and, if there is one, its history.

    Parameters
    ----------
    run : RunFiles
        The run.
    maps, histories : str
        Names of the files.
    title : str
        Heading of the slices.
    """
    tables = run.by_step(histories)
    shown = []
    for label, paths in run.by_step(maps).items():
        for path in paths:
            slices = figures.slices(*volume_of(path), title)
            history = history_picture(tables[label][0]) if label in tables else ""
            shown.append({"step": label, "slices": slices, "history": history})
    return shown


def history_picture(path: Path) -> str:
    """Return the plot of the first columns of a history that change over the iterations, or an empty text."""
    rows = read_history(path)
    columns = [key for key in (rows[0] if rows else {}) if key not in _NOT_PLOTTED][:_MOST_PLOTS]
    return figures.history_plot(rows, columns) if columns else ""


def read_curves(path: Path, labels: Mapping[str, str]) -> Curves:
    """Return ``{label: (spatial frequency 1/Å, FSC)}`` of the columns ``labels`` {column: label} that a file has."""
    block = read_blocks(path)["fsc"]
    frequency = block["rlnResolution"].to_numpy(np.float64)
    return {text: (frequency, block[key].to_numpy(np.float64)) for key, text in labels.items() if key in block}


def contour(volume: NDArray[np.float32], pixel_size_A: float, diameter_A: float) -> float:
    """Return the contour level that encloses a sixth of the particle's sphere: the protein without its noisy border."""
    sphere = np.pi / 6 * (diameter_A / pixel_size_A) ** 3
    share = min(sphere / 6 / volume.size, 0.5)
    return float(np.quantile(volume, 1 - share))


def flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a tree of numbers as (dotted name, text)."""
    found: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            found.append((f"{prefix}{key}", f"{value:.4g}" if isinstance(value, float) else str(value)))
    return found
