from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cryopipe.config.picking import PickShell
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.optics import CtfParameters
from cryopipe.io.mrc import read_image
from cryopipe.io.star import read_blocks, read_table
from cryopipe.picking import pick_shell
from tests.picking.phantoms import DIAMETER, OPTICS, blob_image, phantom, score, write_inputs

REAL = Path(__file__).resolve().parents[3] / "shared" / "realdata" / "empiar-10146"
#: Defocus (Å) of the real micrographs, from a radial fit of their power spectra; the picker needs it to about 1000 Å.
REAL_DEFOCUS = {
    "May08_03_15_02": 22300, "May08_04_32_27": 16700, "May08_05_53_51": 19300, "May08_07_30_46": 15500,
}  # fmt: skip


def params(diameter: float = DIAMETER, **options: object) -> PickShell:
    values = {"particle_diameter_A": diameter, "cavity_diameter_A": 0.6 * diameter, "highpass_A": 2.5 * diameter}
    return PickShell(**(values | options))


def run(folder: Path, micrographs: Path, name: str, **options: object) -> Path:
    context = Context(
        "pick_shell", folder / f"work_{name}", threads=2, max_failed_fraction=1.0, log=logging.getLogger("test")
    )
    out = folder / f"{name}.star"
    pick_shell.main(
        {"micrographs": micrographs},
        {"coordinates": out, "rejected": folder / f"{name}.tsv"},
        params(**options),
        context,
    )
    return out


def f1(cavity: float, **options: object) -> float:
    """Mean F1 over three phantoms of shells."""
    scores = []
    for seed in range(3):
        image, xy, pixel = phantom(seed, snr=0.05, ice=0.2, optics=OPTICS, cavity=cavity)
        picks = pick_shell.pick_particles(image, pixel, params(**options), optics=OPTICS)
        precision, recall, _ = score(picks.xy, xy, 0.25 * DIAMETER / pixel)
        scores.append(2 * precision * recall / (precision + recall))
    return float(np.mean(scores))


def test_hollow_shells_on_uneven_ice_are_found() -> None:
    assert f1(0.65) >= 0.97  # asked for


def test_solid_balls_are_found_where_no_cavity_is_stated() -> None:
    assert f1(0.0, cavity_diameter_A=None) >= 0.97


def test_a_cavity_that_is_not_smaller_than_the_particle_is_refused() -> None:
    with pytest.raises(
        ValidationError,
        match="cavity_diameter_A is 130 Å, but it must be smaller than the diameter of the particle, 124 Å",
    ):
        params(cavity_diameter_A=130.0)


def test_two_particles_closer_than_the_distance_are_one_pick():
    rng = np.random.default_rng(0)
    counts = []
    for factor in (1.2, 0.6):
        xy = np.array([[200.0, 200.0], [200.0 + factor * DIAMETER / 3, 200.0]])
        image = (
            100 - 10 * blob_image((400, 400), xy, 3.0, DIAMETER, 0, OPTICS) / 40 + 2.0 * rng.standard_normal((400, 400))
        )
        counts.append(len(pick_shell.pick_particles(image.astype(np.float32), 3.0, params(), optics=OPTICS).xy))
    assert counts == [2, 1]


def test_x_and_y_of_an_oblong_micrograph_are_not_exchanged():
    rng = np.random.default_rng(0)
    image = 100 - 10 * blob_image((371, 1200), np.array([[1000.0, 130.0]]), 3.0, DIAMETER, 0, OPTICS) / 40
    image = image + 2.0 * rng.standard_normal(image.shape)
    picks = pick_shell.pick_particles(image.astype(np.float32), 3.0, params(), optics=OPTICS)
    assert np.abs(picks.xy[0] - [1000, 130]).max() < 1.0


def test_an_empty_micrograph_gives_hardly_any_pick():
    image = np.random.default_rng(1).poisson(40, (800, 900)).astype(np.float32)
    # 1 of some 130 places: five standard deviations of the noise are not reached by chance
    assert len(pick_shell.pick_particles(image, 2.0, params(), optics=OPTICS).xy) <= 1


def test_carbon_and_large_ice_are_left_alone_but_particles_beside_them_found():
    image, xy, pixel = phantom(0, snr=0.2, ice=0.1, optics=OPTICS)
    image[:, :200] -= 15
    keep = xy[xy[:, 0] > 200 + 0.9 * DIAMETER / pixel]
    picks = pick_shell.pick_particles(image, pixel, params(), optics=OPTICS)
    assert (picks.xy[:, 0] > 200).all()
    assert score(picks.xy, keep, 0.25 * DIAMETER / pixel)[1] >= 0.9


def test_the_step_writes_what_relion_calls_coordinates_and_repeats_itself(tmp_path):
    images = {f"mic_{i}": phantom(i, snr=0.2, ice=0.1, optics=OPTICS)[0] for i in range(2)}
    micrographs = write_inputs(tmp_path, images)
    first, second = run(tmp_path, micrographs, "one"), run(tmp_path, micrographs, "two")
    assert first.read_bytes() == second.read_bytes()
    table = read_table(first, "coordinates")
    assert set(table.rows["crpItem"]) == {"mic_0", "mic_1"}
    assert {
        "rlnCoordinateX",
        "rlnCoordinateY",
        "rlnAutopickFigureOfMerit",
        "rlnMicrographName",
        "rlnClassNumber",
    } <= set(table.rows)


def test_without_a_ctf_it_says_what_to_do():
    with pytest.raises(InputError, match="Estimate it, or use pick_log"):
        pick_shell.pick_particles(phantom(0, snr=0.2, ice=0.1, optics=None)[0], 3.0, params(), optics=None)


@pytest.mark.realdata
def test_real_apoferritin_is_picked_as_people_labelled_it():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is absent")
    labels = next(iter(read_blocks(REAL / "labels.star").values()))
    hits = found = wanted = 0.0
    for name, defocus in REAL_DEFOCUS.items():
        image, _ = read_image(REAL / f"{name}.mrc")
        optics = CtfParameters(float(defocus), float(defocus), 0.0, 300.0, 0.001, 0.07)
        picks = pick_shell.pick_particles(image, 1.5, params(120.0), optics=optics)
        truth = labels[labels["rlnMicrographName"] == f"{name}.mrc"][["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()
        inside = ((truth > 42) & (truth < np.array(image.shape[::-1]) - 42)).all(axis=1)
        precision, _, _ = score(picks.xy, truth, 0.25 * 80)
        hits, found, wanted = hits + precision * len(picks.xy), found + len(picks.xy), wanted + inside.sum()
    # measured on all ten: precision 0.99, recall 0.96
    assert hits / found >= 0.95
    assert hits / wanted >= 0.93
