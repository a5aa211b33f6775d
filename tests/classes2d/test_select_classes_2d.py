from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cryopipe.classes2d import select_classes_2d
from cryopipe.classes2d.core_density import ball_projection
from cryopipe.classes2d.decisions import judge_classes
from cryopipe.classes2d.features import circularity, core_ratio, edge_score, signal, spread_over_classes
from cryopipe.config.classes2d import SelectClasses2d
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.fourier import frequency_grid, irfft2_centred
from cryopipe.io.star import read_blocks, read_table
from tests.classes2d.test_classify_2d import DIAMETER, Mixture, make_mixture
from tests.classes2d.test_classify_2d import run as classify


def shell_image(
    outer: float, inner: float, core: float = 0.0, *, core_density: float = 3.0, box: int = 200, pixel: float = 1.0
):
    """Projection of a shell (radii in Å), analytic in Fourier space, soft low-pass at 12 Å; with a ball inside."""
    kx, ky = frequency_grid((box, box), pixel)
    k = np.hypot(kx, ky)
    spectrum = ball_projection(k, outer) - ball_projection(k, inner)
    if core:
        spectrum = spectrum + core_density * ball_projection(k, core)
    spectrum = spectrum * np.exp(-np.log(2) * (12 * k) ** 2)
    return irfft2_centred((spectrum / box).astype(np.complex64), (box, box))


def test_the_core_ratio_of_a_hollow_sphere_is_that_of_its_chords():
    # mean chords of 40-62 Å spheres: 46 Å inside 22 Å against 74 Å on the ring
    r = np.linspace(0, 62, 2000)
    chord = 2 * np.sqrt(np.maximum(62**2 - r**2, 0)) - 2 * np.sqrt(np.maximum(40**2 - r**2, 0))
    core, ring = r < 0.18 * 125, (r > 0.32 * 125) & (r < 0.46 * 125)
    expected = np.average(chord[core], weights=r[core]) / np.average(chord[ring], weights=r[ring])
    # 5 %: the low-pass filter spreads the ring's rim
    assert core_ratio(shell_image(62, 40), 125.0) == pytest.approx(expected, rel=0.05)
    assert core_ratio(shell_image(62, 40, 28, core_density=1.0), 125.0) > 1.1
    assert core_ratio(shell_image(62, 40, 28, core_density=3.0), 125.0) > 2


def test_junk_is_told_by_contrast_edges_and_harmonics():
    rng = np.random.default_rng(0)
    good = shell_image(62, 40) + rng.normal(0, 1, (200, 200)).astype(np.float32)
    noise = rng.normal(0, 1, (200, 200)).astype(np.float32)
    assert signal(good, 125.0) > 5
    assert signal(noise, 125.0) < 2
    neighbour = np.roll(shell_image(62, 40), 75, axis=1)
    assert edge_score(good, 125.0) < 0.1
    assert edge_score(neighbour, 125.0) > 0.35
    assert circularity(good, 125.0) < 0.01
    assert circularity(neighbour, 125.0) > 0.1


def test_certain_particles_are_spread_over_one_class():
    posteriors = pd.DataFrame(
        {"crpParticleRow": [1, 2, 2, 3], "rlnClassNumber": [1, 1, 2, 2], "crpWeight": [1.0, 0.5, 0.5, 1.0]}
    )
    assert spread_over_classes(posteriors, np.array([1, 2, 2]), 3) == pytest.approx([1, 1.5, 0])


def features(**columns: list[float]) -> pd.DataFrame:
    plain = {"crpParticles": [100] * 5, "rlnEstimatedResolution": [15.0] * 5,
             "crpCoreRatio": [0.5, 0.55, 0.6, 0.5, 0.62], "crpSignal": [10.0] * 5,
             "crpEdgeScore": [0.05] * 5,
             "crpECA": [1.0] * 5}  # fmt: skip
    return pd.DataFrame(plain | columns)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"crpCoreRatio": [0.5, 0.55, 0.6, 0.5, 2.9]}, "iron-loaded core"),
        ({"crpParticles": [100, 100, 100, 100, 3]}, "only 3 particles"),
        ({"crpParticles": [100, 100, 100, 100, 0]}, "empty"),
        ({"rlnEstimatedResolution": [15.0, 15.0, 15.0, 15.0, 40.0]}, "resolution 40"),
        ({"crpSignal": [10.0, 10.0, 10.0, 10.0, 1.0]}, "contrast 1.0"),
        ({"crpEdgeScore": [0.05, 0.05, 0.05, 0.05, 0.5]}, "edge score"),
        ({"crpECA": [1.0, 1.0, 1.0, 1.0, 3.0]}, "spread over 3.0"),
    ],
)
def test_each_rule_drops_the_class_it_is_for_and_says_why(columns, reason):
    verdicts = judge_classes(features(**columns), SelectClasses2d(particle_diameter_A=125.0, remove_ferritin=True))
    assert [v.keep for v in verdicts] == [True] * 4 + [False]
    assert reason in verdicts[4].reason


def test_a_class_of_rare_views_is_not_junk_for_the_resolution_that_few_particles_give() -> None:
    # measured on an asymmetric particle: nine classes, the least of them of ten good particles
    few = features(crpParticles=[73, 58, 53, 27, 10], rlnEstimatedResolution=[23.8, 24.4, 23.4, 26.7, 66.2])
    assert all(v.keep for v in judge_classes(few, SelectClasses2d(particle_diameter_A=160.0)))
    small = features(crpParticles=[18, 16, 13, 12, 9], rlnEstimatedResolution=[22.4, 23.8, 22.1, 36.3, 48.9])
    assert all(v.keep for v in judge_classes(small, SelectClasses2d(particle_diameter_A=170.0)))
    usual = features(crpParticles=[73, 58, 53, 27, 40], rlnEstimatedResolution=[23.8, 24.4, 23.4, 26.7, 66.2])
    verdicts = judge_classes(usual, SelectClasses2d(particle_diameter_A=160.0))
    assert [v.keep for v in verdicts] == [True] * 4 + [False]


@pytest.fixture(scope="module")
def classified(tmp_path_factory) -> tuple[Mixture, dict[str, Path]]:
    mixture = make_mixture(tmp_path_factory.mktemp("select"), apo=180, iron=25, seed=7)
    return mixture, classify(mixture.folder / "classes", [mixture.folder / "particles.star"], classes=5, iterations=10)


def select(
    folder: Path, outputs: dict[str, Path], *, decision: dict | None = None, **options: object
) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {name: outputs[name] for name in ("particles", "classes", "model")}
    if decision is not None:
        (folder / "classes2d.yaml").write_text(yaml.safe_dump(decision))
        inputs["decision"] = [folder / "classes2d.yaml"]
    names = {
        "particles": "particles.star",
        "rejected": "rejected.star",
        "class_features": "class_features.star",
        "selection": "selection.yaml",
    }
    out = {key: folder / name for key, name in names.items()}
    context = Context("select_classes_2d", folder / "work", threads=2, log=logging.getLogger("test"))
    params = SelectClasses2d(**({"particle_diameter_A": DIAMETER, "remove_ferritin": True} | options))
    select_classes_2d.main(inputs, out, params, context)
    return out


def is_iron(mixture: Mixture, table_path: Path) -> np.ndarray:
    return mixture.iron[read_table(table_path, "particles").rows["rlnCoordinateX"].astype(int)]


def test_ferritin_goes_and_apoferritin_stays(classified, tmp_path):
    mixture, outputs = classified
    out = select(tmp_path, outputs)
    kept, gone = is_iron(mixture, out["particles"]), is_iron(mixture, out["rejected"])
    assert len(kept) + len(gone) == 205
    # asked: purity at least 98 %, recall of apo at least 95 %
    assert kept.mean() <= 0.02
    assert (~kept).sum() >= 0.95 * 180
    assert gone.sum() >= 0.9 * 25
    rejected = read_table(out["rejected"], "particles").rows
    assert rejected["crpReason"].str.len().min() > 5
    before = read_table(outputs["particles"], "particles").rows
    assert set(before) <= set(read_table(out["particles"], "particles").rows)
    table = read_blocks(out["class_features"])["class_features"]
    assert {"crpCoreRatio", "crpSignal", "crpEdgeScore", "crpECA", "crpKept", "crpReason"} <= set(table)


def test_a_single_loaded_particle_in_a_good_class_is_found_by_its_core(classified, tmp_path):
    mixture, outputs = classified
    # a core threshold that no class reaches leaves it to the particles
    out = select(tmp_path, outputs, core_threshold=5.0)
    kept = is_iron(mixture, out["particles"])
    assert (~kept).sum() >= 0.95 * 180
    assert kept.sum() <= 0.1 * 25
    assert read_table(out["rejected"], "particles").rows["crpReason"].str.contains("core density").any()


def test_a_person_overrules_the_rules_and_is_recorded(classified, tmp_path):
    _, outputs = classified
    plain = yaml.safe_load(select(tmp_path / "plain", outputs)["selection"].read_text())
    loaded = next(c["class"] for c in plain["classes"] if not c["keep"] and c["particles"])
    good = next(c["class"] for c in plain["classes"] if c["keep"])
    decision = {"keep": [loaded], "drop": [good], "decided_by": "Ada", "classes_sha256": plain["classes_sha256"]}
    out = select(tmp_path / "ada", outputs, decision=decision)
    answer = {c["class"]: c for c in yaml.safe_load(out["selection"].read_text())["classes"]}
    assert (answer[loaded]["keep"], answer[loaded]["decided_by"]) == (True, "Ada")
    assert (answer[good]["keep"], answer[good]["decided_by"]) == (False, "Ada")
    kept = read_table(out["particles"], "particles").rows["rlnClassNumber"]
    assert loaded in set(kept)
    assert good not in set(kept)
    assert (kept == loaded).sum() == answer[loaded]["particles"]


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"keep": [99]}, "class 99 does not exist"),
        ({"keep": [1], "drop": [1]}, "class 1 is in keep and in drop"),
        ({"keeep": [1]}, "Give the lists keep and drop"),
        ({"drop": [1], "classes_sha256": "0" * 64}, "made for other class averages"),
    ],
)
def test_a_decision_that_cannot_be_meant_is_refused(classified, tmp_path, decision, message):
    with pytest.raises(InputError, match=message):
        select(tmp_path, classified[1], decision=decision)


def test_the_same_input_gives_the_same_selection(classified, tmp_path):
    one, two = select(tmp_path / "one", classified[1]), select(tmp_path / "two", classified[1])
    assert all(one[name].read_bytes() == two[name].read_bytes() for name in one)


def test_other_samples_keep_their_dense_cores(classified, tmp_path):
    mixture, outputs = classified
    out = select(tmp_path, outputs, remove_ferritin=False)
    assert is_iron(mixture, out["particles"]).sum() == 25
