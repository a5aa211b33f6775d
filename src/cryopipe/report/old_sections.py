"""The sections of the report: from tables, histories and maps of a run to what the page shows of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopipe.config.report import Report
from cryopipe.errors import InputError
from cryopipe.io.mrc import read_image, read_stack, read_volume
from cryopipe.io.star import Kind, StarTable, concatenate, read_blocks, read_table
from cryopipe.report.drawing import figures

Inputs = Mapping[str, Any]


def tables(inputs: Inputs, name: str, kind: Kind) -> StarTable:
    """Read the tables of all batches as one."""
    return concatenate([read_table(path, kind) for path in inputs[name]])


def refined_positions(path: Path) -> pd.DataFrame:
    """Return micrograph and position of the particles of the refined map. Read it once: no table of a run is larger."""
    rows = read_table(path, "particles").rows
    return rows[["crpItem", "rlnCoordinateX", "rlnCoordinateY"]]


def map_of(path: Path) -> tuple[NDArray[np.float32], float]:
    """Read a map of this run and its pixel size in Å, which every map of ours states."""
    volume, pixel_size_A = read_volume(path)
    if pixel_size_A is None:
        raise InputError(
            f"{path}: its header states no pixel size. It is not as the step wrote it; run that step again."
        )
    return volume, pixel_size_A


def history(path: Path) -> list[dict[str, float]]:
    """Read the numeric columns of a history table."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    numeric = [key for key in (rows[0] if rows else {}) if all(_is_number(row[key]) for row in rows)]
    return [{key: float(row[key]) for key in numeric} for row in rows]


def cards(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (value, label) of the headline numbers."""
    counts = numbers["counts"]
    found = [(f"{numbers['map']['fsc0143_A']:.2f} Å", "resolution: half maps, corrected FSC 0.143")]
    if numbers["truth"]:
        found.append((f"{numbers['truth']['fsc05_A']:.2f} Å", "against the true map, FSC 0.5"))
        found.append(
            (f"{numbers['truth']['fsc05_true_poses_A']:.2f} Å", "the limit: same particles, true poses, FSC 0.5")
        )
    if numbers["model"]:
        found.append((f"{numbers['model']['fsc05_A']:.2f} Å", "against the atomic model, FSC 0.5"))
    for unit in ("movies", "micrographs", "particles"):
        if counts[unit]["in"]:
            found.append((f"{counts[unit]['accepted']} / {counts[unit]['in']}", f"{unit} accepted"))
    found.append((f"{sum(row['seconds'] for row in numbers['steps']) / 60:.1f} min", "sum of all jobs' wall times"))
    return found


def curves(inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the FSC curves between half maps, those against truth or model, and a note on the latter."""

    def read(path: Path | None, labels: Mapping[str, str]) -> dict[str, Any]:
        if path is None:
            return {}
        block = read_blocks(path)["fsc"]
        frequency = block["rlnResolution"].to_numpy(np.float64)
        return {text: (frequency, block[key].to_numpy(np.float64)) for key, text in labels.items() if key in block}

    half = read(
        inputs["postprocess_fsc"],
        {
            "rlnFourierShellCorrelationUnmaskedMaps": "unmasked",
            "rlnFourierShellCorrelationMaskedMaps": "masked",
            "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": "phase-randomised, masked",
            "rlnFourierShellCorrelationCorrected": "corrected",
        },
    )
    truth = read(
        inputs.get("truth_fsc"),
        {
            "crpFscRefinedMasked": "refined map against the truth",
            "crpFscTruePosesMasked": "map from true poses against the truth",
        },
    )
    model = read(inputs.get("model_fsc"), {"rlnFourierShellCorrelation": "map against the model's density"})
    note = "FSC against the reference; the resolution is where the curve first falls below 0.5."
    return half, truth | model, note


def picks(inputs: Inputs, used: pd.DataFrame, params: Report) -> list[tuple[str, str]]:
    """Return (caption, picture) of the first micrographs with their picks, used ones and dropped ones."""
    micrographs = tables(inputs, "micrographs", "micrographs").with_optics()
    coordinates = tables(inputs, "coordinates", "coordinates").rows
    found = []
    for row in micrographs.head(min(params.max_pictures, 6)).itertuples():
        picks = coordinates[coordinates["crpItem"] == row.crpItem]
        xy = picks[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(np.float64)
        image, pixel = read_image(str(row.rlnMicrographName))
        kept = used.loc[used["crpItem"] == row.crpItem, ["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(np.float64)
        # boxes are cut at whole pixels and particles recentred: a used particle lies near its pick, not on it
        pixel = pixel or float(row.rlnMicrographPixelSize)  # type: ignore[arg-type]
        reach = 0.2 * (params.particle_diameter_A or 100.0) / pixel
        chosen = cKDTree(kept).query(xy)[0] < reach if len(kept) else np.zeros(len(xy), dtype=bool)
        picture = figures.picks_picture(image, pixel, xy, chosen, params.particle_diameter_A or 100.0)
        found.append((f"{row.crpItem}: {chosen.sum()} of {len(xy)} picks used", picture))
    return found


def classes(inputs: Inputs) -> list[dict[str, Any]]:
    """Return the class averages, largest first, with what was decided about each."""
    averages, _ = read_stack(inputs["classes"])
    features = next(iter(read_blocks(inputs["class_features"]).values()))
    order = features.sort_values("crpParticles", ascending=False)
    rows: list[Any] = list(order.itertuples())  # typed loosely: columns are known to the star file alone
    return [
        {
            "number": int(row.rlnClassIndex),
            "size": int(row.crpParticles),
            "kept": bool(row.crpKept),
            "note": "" if row.crpKept else str(row.crpReason),
            "source": figures.class_picture(averages[int(row.rlnClassIndex) - 1]),
        }
        for row in rows
    ]


def history_picture(path: Path) -> str:
    """Return the plot of a history table's telling columns; empty without any."""
    rows = history(path)
    columns = [key for key in (rows[0] if rows else {}) if key not in ("iteration", "seed", "batch", "masked")][:4]
    return figures.history_plot(rows, columns) if columns else ""


def contour(volume: Any, pixel_size_A: float, diameter_A: float) -> float:
    """Return the level that encloses a sixth of the particle's sphere: the backbone of a protein, without its noisy fringe."""
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


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True
