"""Step ``report``: one self-contained HTML with counts, pictures and figures of merit, and the same numbers in JSON.

The page needs no server, no download and no JavaScript (a small script of its own sorts and filters tables): pictures are
inside it. Numbers come from the tables and summaries of the steps, never from logs. Its size is bounded whatever the
size of the dataset: pictures are shown of ``max_pictures`` items a section and rows of ``max_table_rows`` a table, the
worst by each criterion and an even sample; links lead to the files of the others, and the JSON covers all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from cryopipe import __version__
from cryopipe.config.ctf import ConsensusCtf
from cryopipe.config.movies import ScreenMotion
from cryopipe.config.report import Report
from cryopipe.context import Context
from cryopipe.io.atomic import atomic_write
from cryopipe.io.star import read_table
from cryopipe.report import sections
from cryopipe.report.ctf_section import ctf_section
from cryopipe.report.drawing import figures
from cryopipe.report.drawing.pictures import array_source
from cryopipe.report.drawing.surface import render_surface
from cryopipe.report.gain_section import gain_section
from cryopipe.report.lost_section import lost_section
from cryopipe.report.motion_section import motion_section
from cryopipe.report.numbers import Loss, costs, count, parameters, read_json, read_losses
from cryopipe.steps import name_of, step_of
from cryopipe.steps import steps as all_steps

Inputs = Mapping[str, Any]


def collect(inputs: Inputs, *, particles: int) -> tuple[dict[str, Any], list[Loss], list[dict[str, Any]]]:
    """Return the numbers of the run, its losses and the rows of the count table; ``particles``: those in the map."""
    names = dict.fromkeys(map(name_of, [*inputs["rejected"], inputs["deselected"]]))
    order = list(all_steps())
    steps = sorted(names, key=lambda name: order.index(step_of(name).name))
    going_on = set(map(name_of, inputs["coordinates"]))
    aside = {name for name in steps if step_of(name).branch_of == "pickers"} - going_on
    found = read_losses(inputs["rejected"])
    losses = [loss for loss in found if loss.step not in aside]
    deselected = read_table(inputs["deselected"], "particles").rows
    losses += [
        Loss("select_classes_2d", "particles", str(row.rlnImageName), "rejected", str(row.crpReason))
        for row in deselected.itertuples()
    ]
    unpicked = sum(step_of(loss.step).stage == "picking" for loss in losses)
    micrographs = len(sections.tables(inputs, "micrographs", "micrographs").rows) - unpicked
    # what the stages handed over, counted in the tables themselves: the counts are checked against it
    movies = len(sections.tables(inputs, "entering", "micrographs").rows) if "import_movies" in names else 0
    accepted = {
        "movies": movies,
        "micrographs": micrographs,
        "particles": particles,
    }
    besides = [loss for loss in found if loss.step in aside]
    counts, rows = count([*losses, *besides], accepted=accepted, steps=steps, aside=aside)
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
    for pair in numbers.get("agreement", {}).get("pairs", []):
        if pair["compared"] and pair["agreeing"] < 0.7 * pair["compared"]:
            found.append(
                f"{pair['first']} and {pair['second']} agree on {pair['agreeing']} of {pair['compared']} micrographs only."
            )
    for unit in ("movies", "micrographs"):
        if counts[unit]["in"] and counts[unit]["rejected"] > 0.3 * counts[unit]["in"]:
            found.append(f"{counts[unit]['rejected']} of {counts[unit]['in']} {unit} were rejected.")
    return found


def _first_run(known: Mapping[str, Any], step: str) -> Any:
    """Return the parameters of a step, or of its first run; nothing where it was not done."""
    return next((params for name, params in known.items() if name.split("/")[0] == step), {})


def pages(
    inputs: Inputs, params: Report, numbers: dict[str, Any], losses: Sequence[Loss], run: Path
) -> dict[str, dict[str, Any] | None]:
    """Return what the page shows of gain, motion, CTFs and lost items; put their numbers into ``numbers``."""
    known: Mapping[str, Any] = numbers["parameters"]
    ctf_numbers, ctf = ctf_section(
        inputs,
        losses,
        run,
        params,
        ConsensusCtf.model_validate(_first_run(known, "consensus_ctf")),
    )
    motion = None
    if "aligned" in inputs:
        screening = ScreenMotion.model_validate(known.get("screen_motion", {}))
        numbers["motion"], motion = motion_section(inputs, losses, run, params, screening)
    numbers |= ctf_numbers
    steps = list(dict.fromkeys(path.parent.name for path in inputs["estimates"]))
    return {
        "lost": lost_section(losses, run, params, steps),
        "gain": gain_section(inputs, numbers["gain"]),
        "motion": motion,
        "ctf": ctf,
    }


def _page(
    inputs: Inputs,
    params: Report,
    numbers: dict[str, Any],
    losses: Sequence[Loss],
    rows: Sequence[Any],
    used: pd.DataFrame,
    run: Path,
) -> dict[str, Any]:
    refined, pixel = sections.map_of(inputs["refined"])
    sharpened, _ = sections.map_of(inputs["postprocess_map"])
    initial, initial_pixel = sections.map_of(inputs["initial"])
    masked, _ = sections.map_of(inputs["postprocess_masked"])
    level = sections.contour(sharpened, pixel, params.particle_diameter_A or 0.0)
    half, reference, note = sections.curves(inputs)
    parts = pages(inputs, params, numbers, losses, run)
    ctf = parts["ctf"] or {}
    return {
        **parts,
        "title": params.title,
        "subtitle": f"{params.symmetry} · {params.particle_diameter_A:g} Å · {pixel:.4g} Å/px",
        "version": __version__,
        "sections": [
            ("summary", "Summary"),
            ("counts", "Counts"),
            ("rejected", "Rejected"),
            *([("gain", "Gain")] if parts["gain"] else []),
            *([("motion", "Motion")] if parts["motion"] else []),
            ("ctf", "CTF"),
            *([("agreement", "Agreement")] if ctf["estimators"] else []),
            ("picks", "Particles"),
            ("classes", "2D classes"),
            ("initial", "Initial volume"),
            ("map", "Map"),
            ("cost", "Time and memory"),
            ("parameters", "Parameters"),
            ("citations", "Citations"),
        ],
        "cards": sections.cards(numbers),
        "warnings": warnings(numbers),
        "surface": array_source(render_surface(masked, threshold=level, size=params.surface_size)),
        "surface_level": level,
        "fsc_half": figures.fsc_plot(half, threshold=0.143),
        "fsc_reference": figures.fsc_plot(reference, threshold=0.5) if reference else "",
        "fsc_reference_note": note,
        "count_rows": rows,
        "picks": sections.picks(inputs, used, params),
        "classes": sections.classes(inputs),
        "initial": {
            "slices": figures.slices(initial, initial_pixel, "initial map"),
            "history": sections.history_picture(inputs["initial_history"]),
        },
        "refined": {
            "slices": figures.slices(refined, pixel, "refined map"),
            "sharpened": figures.slices(sharpened, pixel, "sharpened map"),
            "history": sections.history_picture(inputs["refinement_history"]),
        },
        "map_numbers": sections.flat(numbers["map"]),
        "judge_numbers": sections.flat(numbers["truth"], "truth.") + sections.flat(numbers["model"], "model."),
        "costs": numbers["steps"],
        "parameters": {k: json.dumps(v, indent=1, ensure_ascii=False) for k, v in numbers["parameters"].items()},
        "citations": {
            step.name: step.references
            for step in all_steps().values()
            if step.references and step.name in {name.split("/")[0] for name in numbers["parameters"]}
        },
    }


def templates() -> jinja2.Environment:
    """Return the templates of the page; a name that a template misses is an error, not an empty place."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("cryopipe.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: Report, context: Context) -> None:
    """Write ``report.html`` and ``report.json``."""
    used = sections.refined_positions(inputs["refined_particles"])
    numbers, losses, rows = collect(inputs, particles=len(used))
    run = Path.cwd()
    numbers["steps"] = costs(run / "benchmarks")
    numbers["parameters"] = parameters(run)
    page = _page(inputs, params, numbers, losses, rows, used, run)
    atomic_write(outputs["json"], json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    atomic_write(outputs["html"], templates().get_template("report.html.j2").render(page))
    context.log.info("report: %s", outputs["html"])
