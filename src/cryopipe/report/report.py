"""Step ``report``: one self-contained HTML with counts, pictures and figures of merit, and the same numbers in JSON.

The page needs no server and no download: pictures are inside it. Numbers come from the tables and summaries of the steps,
never from logs. Known limit: pictures are shown for ``max_pictures`` items; the JSON covers all.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cryopipe import __version__
from cryopipe.config.movies import ScreenMotion
from cryopipe.config.report import Report
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_write
from cryopipe.io.mrc import read_image, read_stack, read_volume
from cryopipe.io.star import Kind, StarTable, concatenate, read_blocks, read_table
from cryopipe.movies.motion_measures import judged, limits_A, measure_motion
from cryopipe.movies.motion_star import read_motion
from cryopipe.report import figures
from cryopipe.report.citations import CITATIONS
from cryopipe.report.numbers import COUNTED, Loss, costs, count, parameters, read_json, read_losses
from cryopipe.report.surface import render_surface

Inputs = Mapping[str, Any]


def tables(inputs: Inputs, name: str, kind: Kind) -> StarTable:
    """Read the tables of all batches as one."""
    return concatenate([read_table(path, kind) for path in inputs[name]])


def map_of(path: Path) -> tuple[NDArray[np.float32], float]:
    """Read a map of this run and its pixel size in Å, which every map of ours states."""
    volume, pixel_size_A = read_volume(path)
    if pixel_size_A is None:
        raise InputError(
            f"{path}: its header states no pixel size. It is not as the step wrote it; run that step again."
        )
    return volume, pixel_size_A


def collect(inputs: Inputs) -> tuple[dict[str, Any], list[Loss], list[dict[str, Any]]]:
    """Return the numbers of the run, its losses and the rows of the count table."""
    steps = list(dict.fromkeys(path.parent.name for path in inputs["rejected"]))
    steps = [step for step in COUNTED if step in steps or step == "select_classes_2d"]
    losses = read_losses(inputs["rejected"])
    deselected = read_table(inputs["deselected"], "particles").rows
    losses += [
        Loss("select_classes_2d", "particles", str(row.rlnImageName), "rejected", str(row.crpReason))
        for row in deselected.itertuples()
    ]
    unpicked = sum(loss.step == "pick_log" for loss in losses)
    micrographs = len(tables(inputs, "micrographs", "micrographs").rows) - unpicked
    lost_micrographs = sum(COUNTED[loss.step] == "micrographs" for loss in losses)
    movies = micrographs + lost_micrographs if "import_movies" in steps else 0
    accepted = {
        "movies": movies,
        "micrographs": micrographs,
        "particles": len(read_table(inputs["refined_particles"], "particles").rows),
    }
    counts, rows = count(losses, accepted=accepted, steps=steps)
    picked = sum(len(read_table(path, "coordinates").rows) for path in inputs["coordinates"])
    postprocess = read_json(inputs["postprocess"])
    numbers = {
        "cryopipe": __version__,
        "counts": counts | {"steps": rows, "picked": picked},
        "map": {"fsc0143_A": postprocess["resolution_A"][postprocess["headline_curve"]]} | postprocess,
        "truth": read_json(inputs.get("truth")).get("truth", {}),
        "model": read_json(inputs.get("model")).get("model", {}),
        "gain": read_json(inputs.get("gain")),
    }
    return numbers, losses, rows


def warnings(numbers: Mapping[str, Any]) -> list[str]:
    """Return what a person should look at before believing the map."""
    found = []
    reached = [name for name, value in numbers["map"].get("at_nyquist", {}).items() if value]
    if reached:
        found.append(f"The FSC ({', '.join(reached)}) never falls to its threshold: smaller pixels may show more.")
    counts = numbers["counts"]
    if counts["picked"] != counts["particles"]["in"]:
        found.append(
            f"{counts['picked']} picks, but {counts['particles']['in']} particles counted: something was lost unrecorded."
        )
    for unit in ("movies", "micrographs"):
        if counts[unit]["in"] and counts[unit]["rejected"] > 0.3 * counts[unit]["in"]:
            found.append(f"{counts[unit]['rejected']} of {counts[unit]['in']} {unit} were rejected.")
    return found


def history(path: Path) -> list[dict[str, float]]:
    """Read the numeric columns of a history table."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    numeric = [key for key in (rows[0] if rows else {}) if all(_is_number(row[key]) for row in rows)]
    return [{key: float(row[key]) for key in numeric} for row in rows]


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: Report, context: Context) -> None:
    """Write ``report.html`` and ``report.json``."""
    numbers, losses, rows = collect(inputs)
    run = Path.cwd()
    numbers["steps"] = costs(run / "benchmarks")
    numbers["parameters"] = parameters(run)
    page = _page(inputs, params, numbers, losses, rows, run)
    template = files("cryopipe.report").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    atomic_write(outputs["json"], json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    atomic_write(outputs["html"], environment.from_string(template).render(page))
    context.log.info("report: %s", outputs["html"])


def _page(
    inputs: Inputs, params: Report, numbers: dict[str, Any], losses: Sequence[Loss], rows: Sequence[Any], run: Path
) -> dict[str, Any]:
    refined, pixel = map_of(inputs["refined"])
    sharpened, _ = map_of(inputs["postprocess_map"])
    initial, initial_pixel = map_of(inputs["initial"])
    masked, _ = map_of(inputs["postprocess_masked"])
    level = _contour(sharpened, pixel, params.particle_diameter_A or 0.0)
    half, reference, note = _curves(inputs)
    lost = [loss for loss in losses if loss.unit != "particles"]
    motion = _motion(run, losses, params) if "import_movies" in {row["step"] for row in rows} else None
    return {
        "title": params.title,
        "subtitle": f"{params.symmetry} · {params.particle_diameter_A:g} Å · {pixel:.4g} Å/px",
        "version": __version__,
        "sections": [
            ("summary", "Summary"),
            ("counts", "Counts"),
            *([("motion", "Motion")] if motion else []),
            ("ctf", "CTF"),
            ("picks", "Particles"),
            ("classes", "2D classes"),
            ("initial", "Initial volume"),
            ("map", "Map"),
            ("cost", "Time and memory"),
            ("parameters", "Parameters"),
            ("citations", "Citations"),
        ],
        "cards": _cards(numbers),
        "warnings": warnings(numbers),
        "surface": figures.array_source(render_surface(masked, threshold=level, size=params.surface_size)),
        "surface_level": level,
        "fsc_half": figures.fsc_plot(half, threshold=0.143),
        "fsc_reference": figures.fsc_plot(reference, threshold=0.5) if reference else "",
        "fsc_reference_note": note,
        "count_rows": rows,
        "items_lost": lost,
        "lost_pictures": _pictures(run, [loss.item for loss in lost], params.max_pictures),
        "motion": motion,
        "gain": _gain_sentence(numbers["gain"]),
        "ctf": _ctf(inputs, run, params),
        "picks": _picks(inputs, params),
        "classes": _classes(inputs),
        "initial": {
            "slices": figures.slices(initial, initial_pixel, "initial map"),
            "history": _history(inputs["initial_history"]),
        },
        "refined": {
            "slices": figures.slices(refined, pixel, "refined map"),
            "sharpened": figures.slices(sharpened, pixel, "sharpened map"),
            "history": _history(inputs["refinement_history"]),
        },
        "map_numbers": _flat(numbers["map"]),
        "judge_numbers": _flat(numbers["truth"], "truth.") + _flat(numbers["model"], "model."),
        "costs": numbers["steps"],
        "parameters": {k: json.dumps(v, indent=1, ensure_ascii=False) for k, v in numbers["parameters"].items()},
        "citations": {step: CITATIONS[step] for step in CITATIONS if step in numbers["parameters"]},
    }


def _cards(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
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


def _curves(inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any], str]:
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


def _motion(run: Path, losses: Sequence[Loss], params: Report) -> dict[str, Any]:
    table = concatenate(
        [
            read_table(path, "micrographs")
            for path in sorted((run / "movies/align_movies").glob("batch_*_micrographs.star"))
        ]
    ).rows
    rejected = {loss.item for loss in losses if loss.step == "screen_motion"}
    screening = ScreenMotion.model_validate(parameters(run / "movies/screen_motion")["screen_motion"])
    rows = []
    for item, path in zip(table["crpItem"], table["rlnMicrographMetadata"], strict=True):
        step, travel = judged(measure_motion(read_motion(run / path)), screening)
        rows.append({"frame_A": step, "travel_A": travel, "rejected": item in rejected})
    folder = run / "movies" / "align_movies" / "pictures"
    pictures = [
        (str(item), figures.file_source(folder / f"{item}_{what}.png"))
        for item in table["crpItem"][: params.max_pictures]
        for what in ("shifts", "psd")
        if (folder / f"{item}_{what}.png").exists()
    ]
    return {"plot": figures.motion_plot(rows, limits_A(screening)), "pictures": pictures}


def _ctf(inputs: Inputs, run: Path, params: Report) -> dict[str, Any]:
    rows = tables(inputs, "micrographs", "micrographs").rows
    u, v = rows["rlnDefocusU"].to_numpy(np.float64), rows["rlnDefocusV"].to_numpy(np.float64)
    resolution = rows["rlnCtfMaxResolution"].to_numpy(np.float64)
    shown = ["crpItem", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCtfMaxResolution", "rlnCtfFigureOfMerit"]
    items = [str(item) for item in rows["crpItem"]][: params.max_pictures]
    pictures = [
        (item, figures.file_source(path))
        for item in items
        for path in [run / "ctf" / "estimate_ctf_ctffind" / "pictures" / f"{item}_ctf.png"]
        if path.exists()
    ]
    cells = [
        [f"{c:.4g}" if isinstance(c, float) else str(c) for c in row] for row in rows[shown].itertuples(index=False)
    ]
    return {
        "plot": figures.ctf_plot((u + v) / 2, u - v, resolution),
        "header": shown,
        "rows": cells,
        "pictures": pictures,
    }


def _pictures(run: Path, items: Sequence[str], limit: int) -> list[tuple[str, str]]:
    found = []
    for item in items[:limit]:
        for stage, step in (("movies", "align_movies"), ("ctf", "estimate_ctf_ctffind")):
            found += [
                (f"{item}: {path.stem.removeprefix(item).strip('_')}", figures.file_source(path))
                for path in sorted((run / stage / step / "pictures").glob(f"{item}_*.png"))
            ]
    return found


def _picks(inputs: Inputs, params: Report) -> list[tuple[str, str]]:
    micrographs = tables(inputs, "micrographs", "micrographs").with_optics()
    coordinates = tables(inputs, "coordinates", "coordinates").rows
    used = read_table(inputs["refined_particles"], "particles").rows
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


def _classes(inputs: Inputs) -> list[dict[str, Any]]:
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


def _history(path: Path) -> str:
    rows = history(path)
    columns = [key for key in (rows[0] if rows else {}) if key not in ("iteration", "seed", "batch", "masked")][:4]
    return figures.history_plot(rows, columns) if columns else ""


def _contour(volume: Any, pixel_size_A: float, diameter_A: float) -> float:
    """Return the level that encloses a sixth of the particle's sphere: the backbone of a protein, without its noisy fringe."""
    sphere = np.pi / 6 * (diameter_A / pixel_size_A) ** 3
    share = min(sphere / 6 / volume.size, 0.5)
    return float(np.quantile(volume, 1 - share))


def _gain_sentence(gain: Mapping[str, Any]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in gain.items() if isinstance(value, str | float | int))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            found.append((f"{prefix}{key}", f"{value:.4g}" if isinstance(value, float) else str(value)))
    return found


def _is_number(text: str | None) -> bool:
    try:
        float(text or "")
    except ValueError:
        return False
    return True
