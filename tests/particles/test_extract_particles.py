from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.fft

from cryopipe.config.particles import ExtractParticles
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.fourier import frequency_grid
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.io.mrc import image_size, read_stack, write_image
from cryopipe.io.star import StarTable, make_optics, read_table, write_table
from cryopipe.particles import extract_particles
from cryopipe.particles.cut import downsample, friendly_box, place_boxes
from cryopipe.particles.dust import remove_dust
from cryopipe.particles.normalise import background_mask, normalise_images

OPTICS = CtfParameters(15000.0, 14000.0, 30.0, 300.0, 2.7, 0.1)
PLAIN = {"remove_dust": False, "invert_contrast": False, "normalise": "none"}


def params(**options: object) -> ExtractParticles:
    values = {"particle_diameter_A": 120.0, "downsample": 1.0, "box_A": 200.0, "background_diameter_A": 150.0}
    return ExtractParticles(**(values | options))


def images_of(micrograph: np.ndarray, xy: list[tuple[float, float]], pixel: float, **options: object):
    optics = options.pop("optics", None)
    rng = np.random.default_rng(0)
    return extract_particles.extract_images(
        micrograph, pixel, np.array(xy, dtype=float), params(**options), optics=optics, rng=rng
    )


def test_a_point_lands_on_the_centre_pixel():
    micrograph = np.zeros((1200, 1500), dtype=np.float32)
    micrograph[567, 1234] = 1
    images, boxes, factor = images_of(micrograph, [(1234, 567)], 1.0, box_px=64, **PLAIN)
    assert images.shape == (1, 64, 64)
    assert images[0, 32, 32] == 1
    assert images.sum() == 1
    assert factor == 1
    assert (boxes.rest == 0).all()


def test_downsampling_keeps_place_and_amplitude():
    y, x = np.mgrid[:1001, :902]
    micrograph = np.exp(-((x - 601.0) ** 2 + (y - 433.0) ** 2) / (2 * 6.0**2)).astype(np.float32)
    images, boxes, factor = images_of(micrograph, [(601, 433)], 1.0, downsample=3.0, box_px=32, **PLAIN)
    assert factor == 3
    centre = np.array([(images[0] * np.arange(32)).sum(), (images[0] * np.arange(32)[:, None]).sum()]) / images[0].sum()
    # 0.02 px: the box cuts the Gaussian's tail at 2.6 of its widths
    assert np.abs(centre - (16 + boxes.rest[0])).max() < 0.02
    assert images[0].sum() == pytest.approx(micrograph.sum() / 9, rel=1e-3)


@pytest.mark.parametrize(("wanted", "exact"), [(1.5, 1.5), (2.0, 2.0), (1.4142, 1.4167), (3.0, 3.0)])
def test_the_factor_is_the_same_on_both_axes_and_for_all_sizes(wanted, exact):
    for shape in ((383, 371), (480, 512)):
        image, factor = downsample(np.random.default_rng(0).normal(size=shape).astype(np.float32), wanted)
        # the nearest fraction with a denominator up to 16
        assert float(factor) == pytest.approx(exact, rel=1e-3)
        assert image.shape == tuple(int(np.ceil(n / factor)) for n in shape)


def test_a_band_limited_picture_is_only_sampled_more_coarsely():
    y, x = np.mgrid[:240, :240]
    wave = np.cos(2 * np.pi * (3 * x + 5 * y) / 240).astype(np.float32)
    image, _ = downsample(wave, 2.0)
    assert np.abs(image - wave[::2, ::2]).max() < 1e-4


def test_the_border_is_judged_to_the_pixel():
    boxes = place_boxes(np.array([[32, 32], [31, 32], [68, 68], [69, 68], [40, 40], [40.2, 39.8]]), 64, (100, 100))
    assert [bool(reason) for reason in boxes.reason] == [False, True, False, True, False, True]
    assert "border" in boxes.reason[1]
    assert "identical" in boxes.reason[5]


def test_boxes_are_even_and_friendly():
    assert [friendly_box(n) for n in (120, 126, 251, 256.3, 181)] == [120, 128, 250, 256, 180]


def test_a_planted_plane_is_removed_and_the_background_is_standard():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:128, :128]
    images = (rng.normal(5, 3, (4, 128, 128)) + 0.05 * x - 0.02 * y).astype(np.float32)
    mask = background_mask(128, 45)
    result = normalise_images(images, mask, "ramp")
    background = result[:, mask].astype(np.float64)
    assert np.abs(background.mean(axis=1)).max() < 1e-3
    assert np.abs(background.std(axis=1) - 1).max() < 1e-3
    design = np.stack([x[mask], y[mask], np.ones(mask.sum())], axis=1)
    slope = np.linalg.lstsq(design, background.T, rcond=None)[0][:2]
    assert np.abs(slope).max() < 1e-4
    assert images.mean() > 4  # the input is as it was


def test_a_background_that_is_too_small_is_refused():
    with pytest.raises(InputError, match="Increase box_A"):
        background_mask(64, 44)


@pytest.mark.parametrize("fill", ["random", "median"])
def test_dust_is_replaced_and_nothing_else(fill):
    rng = np.random.default_rng(2)
    image = rng.normal(100, 2, (400, 400)).astype(np.float32)
    place = rng.choice(image.size, 1000, replace=False)
    dirty = image.copy()
    dirty.ravel()[place] += np.where(rng.random(1000) < 0.5, -20, 20)
    clean, replaced = remove_dust(dirty, threshold=5.0, fill=fill, rng=np.random.default_rng(0))
    # ±10 sd on top of noise: at most a handful comes to lie below 5 sd
    assert replaced >= 995
    assert np.abs(clean - 100).max() < 5.01 * 2.02
    untouched = np.setdiff1d(np.arange(image.size), place)
    assert np.mean(clean.ravel()[untouched] == image.ravel()[untouched]) > 0.99999
    if fill == "random":
        assert clean.std() == pytest.approx(2, rel=0.01)


def test_flipped_phases_agree_with_the_unaberrated_picture():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(300, 400))
    kx, ky = frequency_grid(truth.shape, 1.5)
    spectrum = scipy.fft.rfft2(truth)
    aberrated = scipy.fft.irfft2(spectrum * ctf(kx, ky, OPTICS), s=truth.shape).astype(np.float32)
    flipped = extract_particles.flip_phases(aberrated, 1.5, OPTICS)
    product = scipy.fft.rfft2(flipped) * np.conj(spectrum)
    strong = np.abs(product) > 1e-3 * np.abs(spectrum) ** 2
    strong[150], strong[:, 200] = False, False  # at the Nyquist frequency the sign of k, hence of the CTF, is undefined
    # float32 rounding where the CTF is near zero
    assert np.mean(product.real[strong] > 0) > 0.999
    assert np.abs(extract_particles.flip_phases(flipped, 1.5, OPTICS) - aberrated).max() < 1e-5
    with pytest.raises(InputError, match="phase_flip: false"):
        extract_particles.flip_phases(aberrated, 1.5, None)


def test_protein_becomes_bright():
    y, x = np.mgrid[:300, :300]
    micrograph = (np.random.default_rng(0).normal(50, 1, (300, 300)) - 3 * (np.hypot(x - 150, y - 150) < 30)).astype(
        np.float32
    )
    images, _, _ = images_of(micrograph, [(150, 150)], 2.0, box_px=128)
    assert images[0, 54:74, 54:74].mean() > 2


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Two micrographs, the second unreadable; coordinates on both and on one that was rejected."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("mic").mkdir()
    write_image("mic/a.mrc", rng.normal(10, 1, (500, 600)).astype(np.float32), 2.0)
    write_image("mic/a_DW.mrc", rng.normal(20, 1, (500, 600)).astype(np.float32), 2.0)
    Path("mic/b_DW.mrc").write_bytes(b"not an image")
    optics = make_optics(
        voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=2.0, micrograph_pixel_size_A=2.0
    )
    rows = [
        {"rlnMicrographName": f"mic/{i}.mrc", "crpMicrographNameDW": f"mic/{i}_DW.mrc", "rlnOpticsGroup": 1,
         "crpItem": i, "rlnDefocusU": 12000.0, "rlnDefocusV": 11000.0, "rlnDefocusAngle": 20.0,
         "rlnCtfMaxResolution": 4.0}
        for i in ("a", "b")
    ]  # fmt: skip
    write_table("micrographs.star", StarTable("micrographs", optics, pd.DataFrame(rows)))
    picks = [("a", 200.25, 210.5), ("a", 300.0, 260.0), ("a", 5.0, 100.0), ("b", 200.0, 200.0), ("gone", 100.0, 100.0)]
    table = pd.DataFrame(
        [{"rlnMicrographName": f"mic/{i}.mrc", "rlnCoordinateX": x, "rlnCoordinateY": y,
          "rlnAutopickFigureOfMerit": 3.0, "rlnOpticsGroup": 1, "crpItem": i} for i, x, y in picks]
    )  # fmt: skip
    write_table("coordinates.star", StarTable("coordinates", optics, table))
    return tmp_path


def run(name: str, **options: object) -> tuple[StarTable, list[str]]:
    context = Context(
        "extract_particles", Path(f"work_{name}"), threads=2, max_failed_fraction=0.6, log=logging.getLogger("test")
    )
    out = Path(name)
    given = {"micrographs": Path("micrographs.star"), "coordinates": Path("coordinates.star")}
    extract_particles.main(
        given, {"particles": out / "particles.star", "rejected": out / "rejected.tsv"}, params(**options), context
    )
    return read_table(out / "particles.star", "particles"), (out / "rejected.tsv").read_text().splitlines()[1:]


def test_particles_and_rejections_add_up_and_coordinates_count_the_fraction_once(inputs):
    table, rejected = run("one")
    assert len(table) + len(rejected) == 5
    assert sum("border" in line for line in rejected) == 1
    assert sum("quarantined" in line for line in rejected) == 1
    assert sum("not among the accepted" in line for line in rejected) == 1
    rows = table.with_optics()
    x = rows["rlnCoordinateX"] - rows["rlnOriginXAngst"] / rows["rlnMicrographPixelSize"]
    y = rows["rlnCoordinateY"] - rows["rlnOriginYAngst"] / rows["rlnMicrographPixelSize"]
    assert np.allclose(np.stack([x, y], axis=1), [[200.25, 210.5], [300, 260]])
    assert rows["rlnImageName"].tolist() == ["000001@one/stacks/a.mrcs", "000002@one/stacks/a.mrcs"]
    assert rows["rlnDefocusU"].tolist() == [12000, 12000]
    assert rows["rlnImagePixelSize"].tolist() == [2, 2]
    assert rows["rlnImageSize"].tolist() == [100, 100]
    assert rows["rlnCtfDataArePhaseFlipped"].tolist() == [0, 0]


def test_the_pixel_size_follows_the_exact_factor_in_table_and_header(inputs):
    table, _ = run("down", downsample=1.5)
    assert table.single("rlnImagePixelSize") == 3.0
    size = image_size("down/stacks/a.mrcs")
    assert size.pixel_size_A == pytest.approx(3.0)
    assert size.shape[1] == table.optics["rlnImageSize"].iloc[0]


def test_the_dose_weighted_sum_is_what_is_cut(inputs):
    run("weighted", remove_dust=False, invert_contrast=False, normalise="none")
    images, _ = read_stack("weighted/stacks/a.mrcs")
    assert images.mean() == pytest.approx(20, abs=0.1)


def test_a_second_run_changes_nothing(inputs):
    run("one")
    before = Path("one/particles.star").read_bytes(), Path("one/stacks/a.mrcs").read_bytes()
    shutil.rmtree("work_one")
    run("one")
    assert before[0] == Path("one/particles.star").read_bytes()
    # the header's label carries no date
    assert before[1][1024:] == Path("one/stacks/a.mrcs").read_bytes()[1024:]


def test_no_coordinates_give_an_empty_table_with_columns(inputs):
    picks = read_table("coordinates.star", "coordinates")
    write_table("coordinates.star", picks.with_rows(picks.rows.iloc[:0]))
    table, rejected = run("none")
    assert len(table) == 0
    assert rejected == []
    assert {"rlnImageName", "rlnDefocusU", "rlnCoordinateX"} <= set(table.rows)


@pytest.mark.relion
def test_relion_reads_the_particles(inputs):
    if shutil.which("relion_image_handler") is None:
        pytest.skip("RELION is absent")
    run("one")
    command = ["relion_image_handler", "--i", "one/particles.star", "--stats"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in answer.stdout.splitlines() if "stddev" in line]
    assert len(lines) == 2
    assert "100 x 100 x 1" in lines[0]
    assert "angpix = 2" in lines[0]
    made = subprocess.run(
        ["relion_stack_create", "--i", "one/particles.star", "--o", "two"], capture_output=True, check=True
    )
    assert made.returncode == 0
    theirs, _ = read_stack("two.mrcs")
    ours, _ = read_stack("one/stacks/a.mrcs")
    assert np.array_equal(theirs, ours)
