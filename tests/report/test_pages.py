"""The pages on movies, CTFs and lost items: right numbers, bounded size, readable by everybody."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryopipe.imaging.optics import electron_wavelength_A
from cryopipe.report.counts import Loss
from cryopipe.report.parts.ctf_agreement import band_half_width_A
from cryopipe.report.report import render_section, templates
from cryopipe.report.run_files import RunFiles
from cryopipe.report.sections import ctf, lost, movies
from cryopipe.report.sections.lost import examples
from tests.report.fabricated import BAD_CTF, DRIFTS, files_of, write_losses, write_run


def render(run: RunFiles) -> tuple[str, dict[str, Any]]:
    """Return the page's sections on lost items, movies and CTFs, and their numbers."""
    found = [(section, section.build(run)) for section in (lost.SECTION, movies.SECTION, ctf.SECTION)]
    numbers = {key: value for _, part in found for key, value in part.numbers.items()}
    return "".join(render_section(section, part, templates()) for section, part in found), numbers


def build(folder: Path, count: int, **options: int) -> tuple[str, dict[str, Any]]:
    return render(files_of(folder, write_run(folder, count), **options))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    return build(tmp_path_factory.mktemp("small"), 40)


def section(page: str, name: str) -> str:
    return page.split(f'<section id="{name}">')[1].split("</section>")[0]


def test_every_section_is_there_and_nothing_is_loaded_from_elsewhere(small: tuple[str, dict[str, Any]]) -> None:
    page, _ = small
    assert re.findall(r'<section id="(\w+)">', page) == ["counts", "rejected", "gain", "motion", "ctf", "agreement"]
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert all(source.startswith("data:image/webp") for source in re.findall(r'src="([^"]*)"', page))


def test_motion_covers_all_aligned_movies_and_marks_the_rejected_ones(small: tuple[str, dict[str, Any]]) -> None:
    page, numbers = small
    motion = numbers["motion"]
    assert motion["movies"] == len(motion["table"]["rows"]) == 40
    statuses = [row[1] for row in motion["table"]["rows"]]
    assert statuses.count("rejected") == 40 // DRIFTS
    assert section(page, "motion").count('<tr class="lost">') == 40 // DRIFTS
    totals = [row[motion["table"]["columns"].index("rlnAccumMotionTotal")] for row in motion["table"]["rows"]]
    assert motion["summary"]["rlnAccumMotionTotal"]["median"] == pytest.approx(np.median(totals), rel=1e-5)


def test_motion_states_the_criterion_its_limits_and_why_movies_have_no_local_motion(
    small: tuple[str, dict[str, Any]],
) -> None:
    page, numbers = small
    motion = numbers["motion"]
    assert motion["criterion"] == "harm"
    assert motion["limits"] == {
        "max_frame_shift_A": 20.0, "max_blur_A": 8.0, "max_lost_frames": 0.29, "min_evidence": 0.0,
    }  # fmt: skip
    assert motion["no_local_motion"] == {"no bend beyond the noise": [f"mov_{i:05d}" for i in range(2, 40, 10)]}
    text = section(page, "motion")
    assert "Screened by <b>harm</b>: max_frame_shift_A 20.0, max_blur_A 8.0" in text
    assert '<th scope="row">no bend beyond the noise</th><td class="n">4</td><td>mov_00002, mov_00012' in text


def test_a_rejected_movie_is_measured_from_its_motion_file(small: tuple[str, dict[str, Any]]) -> None:
    _, numbers = small
    table = numbers["motion"]["table"]
    rejected = dict(zip(table["columns"], next(r for r in table["rows"] if r[0] == "mov_00001"), strict=True))
    assert rejected["status"] == "rejected"
    assert rejected["crpMotionStepMax"] == 6.0  # 3 px along y between the last frames, at 2 Å
    assert rejected["crpMotionRange"] == 6.0


def test_ctf_covers_rejected_micrographs_with_what_the_estimators_said(small: tuple[str, dict[str, Any]]) -> None:
    _, numbers = small
    table = numbers["ctf"]["table"]
    assert numbers["ctf"]["micrographs"] == len(table["rows"]) == 38
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    rejected = [row for row in rows if row["status"] == "rejected"]
    assert len(rejected) == -(-36 // BAD_CTF)
    for row in rejected:
        assert row["crpCtfGctfDefocusU"] - row["crpCtfCtffindDefocusU"] == pytest.approx(3000, abs=200)  # 5 sd
        # phases part by 90° where λ π k² Δ = π/2
        difference = abs(row["crpCtfGctfDefocusU"] - row["crpCtfCtffindDefocusU"])
        agreed = row["crpCtfAgreementCtffindGctf"]
        assert agreed == pytest.approx((2 * electron_wavelength_A(300.0) * difference) ** 0.5, rel=0.05)
        assert row["crpCtfConsensusCrossing"] == agreed
    accepted = [row for row in rows if row["status"] == "accepted"]
    assert all(row["crpCtfConsensusCrossing"] == 4.0 for row in accepted)
    assert rows[0]["crpCtfGctfDefocusU"] is None  # gctf failed on it
    assert rows[0]["status"] == "accepted"


def test_the_agreement_counts_pairs_by_the_resolution_asked_for(small: tuple[str, dict[str, Any]]) -> None:
    page, numbers = small
    agreement = numbers["agreement"]
    assert agreement["limit_A"] == 5.0
    assert agreement["estimators"] == {"ctffind": 38, "gctf": 37}
    (pair,) = agreement["pairs"]
    assert (pair["compared"], pair["compared"] - pair["agreeing"]) == (37, -(-36 // BAD_CTF))
    assert abs(pair["defocus_difference_A"]["median"]) < 40  # sd of a difference 36 Å, of the median of 37 some 7 Å
    assert pair["defocus_difference_A"]["robust_sd"] == pytest.approx(36, rel=0.5)
    assert section(page, "agreement").count("<img") == 4  # 2 x 2
    assert band_half_width_A(5.0, 300.0) == pytest.approx(635, abs=1)


def test_lost_items_are_listed_with_reasons_and_pictures(small: tuple[str, dict[str, Any]]) -> None:
    page, _ = small
    lost = section(page, "rejected")
    assert "largest step between frames 35.2 Å exceeds 20 Å" in lost
    assert "agree only to 9.1 Å" in lost
    assert "Nothing is in quarantine" in lost
    assert lost.count('<article class="item">') >= 1
    # a failure of one branch is not a loss, but it is listed; the text of a reason is escaped
    assert "no &lt;rings&gt;" in section(page, "ctf")


def test_gain_shows_pictures_sixteen_scores_and_defects(small: tuple[str, dict[str, Any]]) -> None:
    gain = section(small[0], "gain")
    assert gain.count('<tr><th scope="row">') >= 16
    assert "mirror_rot270" in gain
    assert "1 dead, 2 hot" in gain
    assert gain.count("<img") == 6


def test_tables_are_real_ones_with_scopes_captions_and_a_focus_for_the_keyboard(
    small: tuple[str, dict[str, Any]],
) -> None:
    page, _ = small
    tables = re.findall(r'<table class="data[^>]*>.*?</table>', page, flags=re.DOTALL)
    assert len(tables) >= 5
    assert all("<caption" in t and 'scope="col"' in t and 'scope="row"' in t for t in tables)
    assert page.count('tabindex="0" role="region" aria-labelledby') == page.count('class="scroll tall"')
    assert all("alt=" in tag for tag in re.findall(r"<img[^>]*>", page))
    assert all('role="img" aria-label="' in tag for tag in re.findall(r"<svg[^>]*>", page))


def test_a_column_that_the_page_does_not_know_is_shown_all_the_same(tmp_path: Path) -> None:
    inputs = write_run(tmp_path, 12)
    path = inputs["micrographs_with_ctf"][0]
    path.write_text(path.read_text().replace("-9999.0", "0.25"))
    page, numbers = render(
        files_of(tmp_path, {name: files for name, files in inputs.items() if name != "gain_summary"})
    )
    assert ">new number<" in page
    assert numbers["ctf"]["summary"]["crpCtfNewNumber"]["median"] == 0.25
    assert '<section id="gain">' not in page


def test_ten_times_the_micrographs_make_no_larger_page(tmp_path: Path) -> None:
    limits = {"max_pictures": 3, "max_table_rows": 50}
    few, _ = build(tmp_path / "few", 200, **limits)
    many, numbers = build(tmp_path / "many", 2000, **limits)
    # names and numbers of the same lengths: the rest are plots with more points
    assert len(many) < 1.15 * len(few)
    assert len(numbers["motion"]["table"]["rows"]) == 2000
    assert "50 of 2000" in many
    assert many.count("<tr") < 50 * 7 + 150
    json.dumps(numbers, allow_nan=False)


def test_a_run_in_which_everything_was_rejected_has_a_page(tmp_path: Path) -> None:
    inputs = write_run(tmp_path, 12)
    path = inputs["micrographs_with_ctf"][0]
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("movies/")) + "\n")
    entering = [f"mov_{i:05d}" for i in range(12) if i % DRIFTS != 1]
    write_losses(tmp_path, "ctf/consensus_ctf/defocus", entering, "dark")
    page, _ = render(files_of(tmp_path, inputs))
    assert section(page, "ctf").count('class="lost"') >= 11


def test_examples_take_each_kind_of_reason_in_turn() -> None:
    many = [Loss("screen_motion", "movies", f"m{i}", "rejected", f"motion {i} Å exceeds 15 Å") for i in range(50)]
    rare = Loss("consensus_ctf", "micrographs", "x", "rejected", "rings to 20 Å")
    assert [loss.item for loss in examples([*many, rare], 3)] == ["m0", "x", "m1"]
