"""Step ``report``: one self-contained HTML with counts, pictures and figures of merit, and the same numbers in JSON.

The page needs no server and no download, because its pictures are inside it. It also works without JavaScript (a small
script of its own sorts and filters tables). Numbers come from the tables and summaries of the steps, never from logs. The
size of the page has a limit that does not depend on the dataset. A section has pictures of at most ``max_pictures`` items,
and a table has at most ``max_table_rows`` rows: the worst by each criterion and an even sample. Links lead to the files of
the others, and the JSON has all numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cryopipe import __version__
from cryopipe.config.report import Report
from cryopipe.context import Context
from cryopipe.io.atomic import atomic_write
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section
from cryopipe.report.sections import SECTIONS
from cryopipe.report.sections.summary import summary_page

Parts = Mapping[Section, Part]


def build_parts(run: RunFiles) -> dict[Section, Part]:
    """Return the content of each section, without the sections whose steps did not run."""
    return {section: section.build(run) for section in SECTIONS if section.is_in(run)}


def collect_numbers(parts: Parts) -> dict[str, Any]:
    """Return the content of ``report.json``."""
    numbers: dict[str, Any] = {"cryopipe": __version__}
    for part in parts.values():
        numbers |= part.numbers
    return numbers


def templates() -> jinja2.Environment:
    """Return the templates of the page. A name that is missing in a template is an error, not an empty place."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("cryopipe.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_section(section: Section, part: Part, environment: jinja2.Environment) -> Markup:
    """Return the HTML of one section: its template, filled with its content."""
    return Markup(environment.get_template(f"{section.name}.html.j2").render(part.page))  # the template escapes


def render(run: RunFiles, parts: Parts, numbers: Mapping[str, Any]) -> str:
    """Return the whole page."""
    environment = templates()
    anchors = [
        (anchor, title)
        for section, part in parts.items()
        for anchor, title in section.anchors.items()
        if part.page.get(anchor) is not None
    ]
    return environment.get_template("report.html.j2").render(
        title=run.params.title,
        subtitle=_subtitle(run, numbers),
        anchors=[("summary", "Summary"), *anchors],
        summary=summary_page(list(parts.values()), numbers),
        bodies=[render_section(section, part, environment) for section, part in parts.items()],
    )


def _subtitle(run: RunFiles, numbers: Mapping[str, Any]) -> str:
    facts = [str(run.params.symmetry), f"{run.params.particle_diameter_A:g} Å"]
    pixel_size_A = numbers.get("map", {}).get("pixel_size_A")
    return " · ".join([*facts, *([f"{pixel_size_A:.4g} Å/px"] if pixel_size_A else [])])


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: Report, context: Context) -> None:
    """Write the report of a run.

    Inputs: the files that the sections read (`cryopipe.report.inputs`). Outputs: ``html`` (the page) and ``json`` (its
    numbers).
    """
    run = RunFiles(Path.cwd(), inputs, params)
    parts = build_parts(run)
    numbers = collect_numbers(parts)
    page = render(run, parts, numbers)
    atomic_write(outputs["json"], json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    atomic_write(outputs["html"], page)
    context.log.info("report: %s", outputs["html"])
