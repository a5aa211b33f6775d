from __future__ import annotations

import json
import logging
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cryopipe.config.validation import Postprocess
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.filters import apply_b_factor, apply_shell_curve, low_pass
from cryopipe.imaging.masks import soft_sphere
from cryopipe.io.mrc import read_volume, write_volume
from cryopipe.io.star_blocks import read_blocks, write_blocks
from cryopipe.validation import postprocess as step

BOX, PIXEL_A = 80, 1.5
SUFFIXES = {
    "map": "postprocess.mrc",
    "masked": "postprocess_masked.mrc",
    "mask": "mask.mrc",
    "fsc_xml": "postprocess_fsc.xml",
    "fsc": "postprocess.star",
    "summary": "postprocess.json",
}


def ball(rng: np.random.Generator, *, b_factor_A2: float) -> np.ndarray:
    """Return a dense ball with a flat random spectrum inside, damped by a B-factor."""
    mask = soft_sphere(BOX, 20, edge_px=4)
    texture = rng.standard_normal((BOX,) * 3).astype(np.float32)
    return apply_b_factor((1.0 + texture) * mask, PIXEL_A, b_factor_A2)


def write_halves(folder: Path, *, b_factor_A2: float = 120.0, noise: float = 0.02) -> dict[str, Path]:
    rng = np.random.default_rng(4)
    truth = ball(rng, b_factor_A2=b_factor_A2)
    paths = {}
    for name in ("half1", "half2"):
        paths[name] = folder / f"{name}.mrc"
        half = truth + noise * rng.standard_normal((BOX,) * 3).astype(np.float32)
        write_volume(paths[name], half.astype(np.float32), PIXEL_A)
    return paths


def run(folder: Path, inputs: dict[str, Path], **options: object) -> tuple[dict[str, Path], dict]:
    outputs = {name: folder / suffix for name, suffix in SUFFIXES.items()}
    context = Context("postprocess", folder, threads=2, log=logging.getLogger("test"))
    step.main(dict(inputs), outputs, Postprocess(**options), context)
    return outputs, json.loads(outputs["summary"].read_text())


def test_a_known_b_factor_is_found_and_undone(tmp_path: Path) -> None:
    outputs, numbers = run(tmp_path, write_halves(tmp_path, noise=0.002))
    # asked: 120 ± 15 Å²; the sign is that of the correction
    assert numbers["b_factor_A2"] == pytest.approx(-120, abs=15)
    sharpened, _ = read_volume(outputs["map"])
    power = np.abs(np.fft.rfftn(sharpened * read_volume(outputs["mask"])[0]))
    k = np.fft.fftfreq(BOX, PIXEL_A)
    radius = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + np.fft.rfftfreq(BOX, PIXEL_A)[None, None, :] ** 2)
    coarse, fine = (power[(radius > low) & (radius < low + 0.03)].mean() for low in (0.12, 0.25))
    # exp(-120/4 (0.265² - 0.135²)) would leave 21 % of the amplitude; 15 Å² of error change it by 22 %
    assert 0.7 < fine / coarse < 1.4


def test_a_given_b_factor_is_applied_as_it_is(tmp_path: Path) -> None:
    _, numbers = run(tmp_path, write_halves(tmp_path), b_factor_A2=-50.0)
    assert numbers["b_factor_A2"] == -50.0
    assert numbers["b_factor_source"] == "given"


def test_the_resolution_is_where_signal_and_noise_balance(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth = ball(rng, b_factor_A2=0.0)
    inputs = {}
    for name in ("half1", "half2"):
        inputs[name] = tmp_path / f"{name}.mrc"
        # both halves agree up to 6 Å and hold nothing but their own noise beyond
        half = low_pass(truth, PIXEL_A, 6.0, edge_shells=1) + 0.3 * rng.standard_normal((BOX,) * 3)
        write_volume(inputs[name], half.astype(np.float32), PIXEL_A)
    _, numbers = run(tmp_path, inputs, lowpass_A=6.0)
    # a shell is 0.3 Å wide at 6 Å of a 120 Å box; the mask blurs by two shells
    assert numbers["resolution_A"]["corrected"] == pytest.approx(6.0, abs=0.6)
    assert numbers["headline_curve"] == "corrected"


def test_noise_alone_has_no_resolution(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    common = low_pass(soft_sphere(BOX, 20, edge_px=4), PIXEL_A, 30.0)
    inputs = {}
    for name in ("half1", "half2"):
        inputs[name] = tmp_path / f"{name}.mrc"
        write_volume(inputs[name], (common + rng.standard_normal((BOX,) * 3)).astype(np.float32), PIXEL_A)
    _, numbers = run(tmp_path, inputs)
    # a ball at 30 Å, and noise: nothing finer is common; the solvent mask's own edge blurs by a few shells
    assert numbers["resolution_A"]["corrected"] > 15
    assert numbers["b_factor_A2"] == 0


def test_the_emdb_file_holds_the_corrected_curve(tmp_path: Path) -> None:
    outputs, _ = run(tmp_path, write_halves(tmp_path))
    root = ET.fromstring(outputs["fsc_xml"].read_text())
    assert root.tag == "fsc"
    points = [(float(c.find("x").text), float(c.find("y").text)) for c in root.findall("coordinate")]
    curve = read_blocks(outputs["fsc"])["fsc"]["rlnFourierShellCorrelationCorrected"].to_numpy()
    assert len(points) == BOX // 2 + 1
    np.testing.assert_allclose([y for _, y in points], curve, atol=1e-6)
    assert points[-1][0] == pytest.approx(1 / (2 * PIXEL_A), abs=1e-6)


def test_an_mtf_is_divided_out(tmp_path: Path) -> None:
    inputs = write_halves(tmp_path, b_factor_A2=0.0, noise=0.001)
    frequency = np.linspace(0, 0.5, 26)
    mtf = np.exp(-2 * frequency)
    write_blocks(
        tmp_path / "mtf.star", {"": pd.DataFrame({"rlnResolutionInversePixel": frequency, "rlnMtfValue": mtf})}
    )
    shells = np.arange(BOX // 2 + 1) / BOX
    damped = {}
    for name, path in inputs.items():
        damped[name] = tmp_path / f"damped_{name}.mrc"
        volume, _ = read_volume(path)
        write_volume(damped[name], apply_shell_curve(volume, np.exp(-2 * shells)), PIXEL_A)
    options = {"b_factor_A2": 0.0, "lowpass_A": 3.2}
    (tmp_path / "plain").mkdir()
    plain = read_volume(run(tmp_path / "plain", inputs, **options)[0]["map"])[0]
    corrected, _ = read_volume(
        run(tmp_path, damped, mtf=str(tmp_path / "mtf.star"), mtf_pixel_size_A=PIXEL_A, **options)[0]["map"]
    )
    # linear interpolation of the curve between 26 points errs by 1e-3; masks differ a little
    assert np.corrcoef(plain.ravel(), corrected.ravel())[0, 1] > 0.999


def test_half_maps_of_different_pixel_size_are_refused(tmp_path: Path) -> None:
    inputs = write_halves(tmp_path)
    write_volume(inputs["half2"], read_volume(inputs["half2"])[0], 1.6)
    with pytest.raises(InputError, match=r"1\.6 Å per voxel.*1\.5 Å"):
        run(tmp_path, inputs)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_postprocess") is None, reason="RELION is not installed")
def test_relion_finds_the_same_resolution_and_b_factor_in_the_same_mask(tmp_path: Path) -> None:
    inputs = write_halves(tmp_path)
    outputs, numbers = run(tmp_path, inputs)
    peer = tmp_path / "peer"
    command = ["relion_postprocess", "--i", inputs["half1"], "--i2", inputs["half2"], "--mask", outputs["mask"]]
    command += ["--angpix", str(PIXEL_A), "--auto_bfac", "--autob_lowres", "10", "--o", peer]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    general = read_blocks(f"{peer}.star")["general"]
    # random phases differ; a shell is 0.1 Å wide at 3.5 Å of 120 Å
    assert numbers["resolution_A"]["corrected"] == pytest.approx(float(general["rlnFinalResolution"].iloc[0]), abs=0.2)
    assert numbers["b_factor_A2"] == pytest.approx(float(general["rlnBfactorUsedForSharpening"].iloc[0]), abs=15)
