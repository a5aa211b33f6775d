"""The page is a loop over the sections; a section whose steps did not run is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cryopipe.report.report import build_parts, collect_numbers, render
from cryopipe.report.section import HeadlinePicture, Part
from cryopipe.report.sections.summary import cards, summary_page
from tests.report.fabricated import files_of, write_run


def test_a_run_that_ends_with_the_ctfs_has_a_page_without_the_later_sections(tmp_path: Path) -> None:
    run = files_of(tmp_path, write_run(tmp_path, 12))
    parts = build_parts(run)
    assert [section.name for section in parts] == ["lost", "movies", "ctf", "costs", "methods"]
    numbers = collect_numbers(parts)
    assert "map" not in numbers
    json.dumps(numbers, allow_nan=False)
    page = render(run, parts, numbers)
    links = re.findall(r'<a href="#(\w+)">', page.split("</nav>")[0])
    assert links == re.findall(r'<section id="(\w+)">', page)
    assert links[0] == "summary"
    assert "map" not in links
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_imported_micrographs_have_no_section_on_movies(tmp_path: Path) -> None:
    inputs = write_run(tmp_path, 12)
    movies = ("gain_summary", "gain_estimate", "gain_residual", "defects", "aligned_micrographs")
    lists = [path for path in inputs["rejected"] if "movies" not in path.parts]
    kept = {name: files for name, files in inputs.items() if name not in movies} | {"rejected": lists}
    parts = build_parts(files_of(tmp_path, kept))
    assert "movies" not in [section.name for section in parts]
    assert collect_numbers(parts)["counts"]["movies"]["in"] == 0


def test_the_head_shows_pictures_and_warnings_of_all_sections() -> None:
    figure = HeadlinePicture("data:image/webp;base64,AA", "a map", "Surface")
    parts = [Part(warnings=["look"]), Part(headline=[[figure]], warnings=["again"]), Part()]
    counts = {unit: {"in": 0, "accepted": 0} for unit in ("movies", "micrographs")}
    numbers = {"counts": counts | {"particles": {"in": 10, "accepted": 7}}, "steps": [{"seconds": 90.0}]}
    page = summary_page(parts, numbers)
    assert page["columns"] == [[figure]]
    assert page["warnings"] == ["look", "again"]
    assert page["cards"] == [("7 / 10", "particles accepted"), ("1.5 min", "sum of all jobs' wall times")]
    judged = numbers | {"map": {"fsc0143_A": 3.456}, "truth": {}, "model": {"fsc05_A": 4.0}}
    assert [value for value, _ in cards(judged)][:2] == ["3.46 Å", "4.00 Å"]
