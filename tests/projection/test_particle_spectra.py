from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging.fourier import rfft2_centred
from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.masks import soft_circle
from cryopipe.imaging.optics import ctf, from_table
from cryopipe.io.mrc import write_stack
from cryopipe.io.star import StarTable
from cryopipe.projection.noise import checked_sigma2, initial_sigma2, power_by_shell, updated_sigma2
from cryopipe.projection.particle_spectra import load_particle_spectra, spectra_of_images
from cryopipe.projection.references import check_scale, reference_cube
from tests.particle_scenes import phantom, scene

BOX, PIXEL = 24, 2.5


def make_table(folder: Path, images: np.ndarray, names: list[tuple[int, int]], **optics: Any) -> StarTable:
    """Write the images into stacks of four and return a table whose rows ask for (stack, index from 1)."""
    for stack in range(-(-len(images) // 4)):
        write_stack(folder / f"s{stack}.mrcs", images[4 * stack : 4 * stack + 4], optics.pop("header", PIXEL))
    n = len(names)
    group = {
        "rlnOpticsGroup": 1, "rlnOpticsGroupName": "g", "rlnImagePixelSize": PIXEL, "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1, "rlnImageSize": images.shape[-1],
    } | optics  # fmt: skip
    rows = pd.DataFrame(
        {
            "rlnImageName": [f"{i:06d}@{folder / f's{s}.mrcs'}" for s, i in names],
            "rlnDefocusU": np.linspace(9000.0, 16000.0, n),
            "rlnDefocusV": np.linspace(8800.0, 15500.0, n),
            "rlnDefocusAngle": np.linspace(0.0, 120.0, n),
            "rlnOpticsGroup": 1,
        }
    )
    return StarTable("particles", pd.DataFrame([group]), rows)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(10, BOX, BOX)).astype(np.float32)


def test_spectra_come_in_table_order_with_the_ctf_of_each_row(tmp_path: Path, images: np.ndarray) -> None:
    names = [(2, 1), (0, 3), (1, 4), (0, 1), (2, 2)]
    table = make_table(tmp_path, images, names)
    found = load_particle_spectra(table, radius=9, threads=2)
    pixels = half_plane(BOX, 9)
    order = [4 * s + i - 1 for s, i in names]
    np.testing.assert_allclose(found.values, pixels.gather(rfft2_centred(images[order])), atol=1e-6)
    step = 1 / (BOX * PIXEL)
    expected = ctf(pixels.kx * step, pixels.ky * step, from_table(table.with_optics()))
    np.testing.assert_allclose(found.ctf, expected, atol=1e-5)
    assert (found.box, found.pixel_size_A, len(found)) == (BOX, PIXEL, 5)
    assert found.nbytes == 12 * 5 * len(pixels)
    cropped = found.crop(4)
    assert np.shares_memory(cropped.values, found.values)
    np.testing.assert_array_equal(cropped.values, found.values[:, : len(half_plane(BOX, 4))])


def test_threads_and_chunks_change_nothing(tmp_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(tmp_path, images, [(s, i) for s in (0, 1) for i in (1, 2, 3, 4)])
    whole = load_particle_spectra(table, radius=9)
    monkeypatch.setattr("cryopipe.projection.particle_images.CHUNK_BYTES", 4 * BOX * BOX)
    np.testing.assert_array_equal(load_particle_spectra(table, radius=9, threads=3).values, whole.values)


def test_phase_flipped_images_get_the_absolute_ctf(tmp_path: Path, images: np.ndarray) -> None:
    names = [(0, 1), (0, 2)]
    signed = load_particle_spectra(make_table(tmp_path, images, names), radius=9)
    flipped = load_particle_spectra(make_table(tmp_path, images, names, rlnCtfDataArePhaseFlipped=1), radius=9)
    assert signed.ctf.min() < 0
    np.testing.assert_array_equal(flipped.ctf, np.abs(signed.ctf))


def test_the_mask_is_applied_before_the_transform(tmp_path: Path, images: np.ndarray) -> None:
    table = make_table(tmp_path, images, [(0, 1)])
    found = load_particle_spectra(table, radius=9, mask_diameter_A=40)
    masked = images[0] * soft_circle(BOX, 8.0, edge_px=2.0)
    np.testing.assert_allclose(found.values[0], half_plane(BOX, 9).gather(rfft2_centred(masked)), atol=1e-6)


def test_images_in_memory_give_the_same_spectra(tmp_path: Path, images: np.ndarray) -> None:
    table = make_table(tmp_path, images, [(0, 1), (0, 2)])
    found = spectra_of_images(images[:2], from_table(table.with_optics()), pixel_size_A=PIXEL, radius=9)
    loaded = load_particle_spectra(table, radius=9)
    np.testing.assert_array_equal(found.values, loaded.values)
    np.testing.assert_array_equal(found.ctf, loaded.ctf)
    assert np.all(spectra_of_images(images, None, pixel_size_A=PIXEL, radius=9).ctf == 1)


def damaged(images: np.ndarray, what: str) -> tuple[np.ndarray, dict[str, Any]]:
    if what == "odd":
        return images[:, :23, :23], {}
    if what == "oblong":
        return images[:, :20], {}
    return images, {"header": PIXEL * 1.002} if what == "header" else {}


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("odd", "s0.mrcs: the images have 23 x 23 px.*even"),
        ("oblong", "s0.mrcs: the images have 24 x 20 px"),
        ("header", r"s0.mrcs: the header has 2.505 Å.*2.5 Å"),
        ("missing image", "image 5, but the stack has 4"),
        ("defocus zero", r"particle 2 .*U = 0 Å.*defocus: 1"),
        ("defocus nan", r"particle 2 .*V = nan Å"),
        ("defocus missing", "rlnDefocusU"),
        ("no rows", "no rows"),
        ("pixel sizes", "2.5 to 2.6 Å"),
        ("no image names", "Extract the particles first"),
    ],
)
def test_tables_and_stacks_that_cannot_be_used_are_refused(
    tmp_path: Path, images: np.ndarray, what: str, text: str
) -> None:
    stack, options = damaged(images, what)
    table = make_table(tmp_path, stack, [(0, 5 if what == "missing image" else 1), (0, 2)], **options)
    rows, optics = table.rows, table.optics
    if what == "defocus zero":
        rows.loc[1, ["rlnDefocusU", "rlnDefocusV"]] = 0.0
    if what == "defocus nan":
        rows.loc[1, "rlnDefocusV"] = np.nan
    if what == "defocus missing":
        rows = rows.drop(columns="rlnDefocusU")
    if what == "no rows":
        rows = rows.iloc[:0]
    if what == "no image names":
        rows = rows.drop(columns="rlnImageName")
    if what == "pixel sizes":
        optics = pd.concat([optics, optics.assign(rlnOpticsGroup=2, rlnImagePixelSize=2.6)], ignore_index=True)
        rows.loc[1, "rlnOpticsGroup"] = 2
    with pytest.raises(InputError, match=text):
        load_particle_spectra(StarTable("particles", optics, rows), radius=9)


def test_images_with_nan_are_refused_by_number(images: np.ndarray) -> None:
    images[3, 0, 0] = np.nan
    with pytest.raises(InputError, match="image 4 contains NaN"):
        spectra_of_images(images, None, pixel_size_A=1, radius=9)


def test_white_noise_of_unit_sd_has_half_in_every_shell(images: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(size=(400, BOX, BOX)).astype(np.float32)
    spectra = spectra_of_images(noise, None, pixel_size_A=1, radius=11)
    # The first shell has 4 pixels: 3200 numbers, relative sd sqrt(2/3200) = 2.5 %; 4 sd.
    np.testing.assert_allclose(power_by_shell(spectra), 0.5, rtol=0.1)
    np.testing.assert_allclose(initial_sigma2(spectra), 0.5, rtol=0.1)


def test_initial_noise_model_leaves_out_what_all_images_share() -> None:
    rng = np.random.default_rng(2)
    common = 5 * rng.normal(size=(BOX, BOX))
    stack = (common + rng.normal(size=(300, BOX, BOX))).astype(np.float32)
    spectra = spectra_of_images(stack, None, pixel_size_A=1, radius=11)
    np.testing.assert_allclose(initial_sigma2(spectra), 0.5, rtol=0.15)


def test_noise_models_are_updated_with_memory_and_refused_when_empty() -> None:
    sigma2 = np.array([1.0, 1.0, 2.0])
    np.testing.assert_allclose(updated_sigma2(sigma2, np.array([1, 2, 0.5])), [2, 2, 1])
    np.testing.assert_allclose(updated_sigma2(sigma2, np.array([1, 2, 0.5]), memory=0.5), [1.5, 1.5, 1.5])
    with pytest.raises(InputError, match="no noise"):
        checked_sigma2(np.zeros(5))
    one = scene(phantom(32), 3, snr=1.0)
    for few in (0, 1):
        with pytest.raises(InputError, match=f"at least two images.*there are {few}"):
            initial_sigma2(one.images.subset(slice(0, few)))


def test_maps_of_another_size_than_the_images_are_refused() -> None:
    images = scene(phantom(32), 3, snr=1.0, pixel_size_A=3.0).images
    check_scale(images, 24, 4.0)
    check_scale(images, 32, 3.001)
    with pytest.raises(InputError, match=r"32 voxels of 1.5 Å \(48 Å\), but the images have 32 px of 3 Å \(96 Å\)"):
        check_scale(images, 32, 1.5)


@pytest.mark.parametrize(
    ("change", "text"),
    [("nan", "NaN"), ("odd", r"cube of even edge.*\(31, 31, 31\)"), ("oblong", r"cube of even edge.*\(32, 32, 30\)")],
)
def test_maps_that_cannot_be_searched_with_are_refused(change: str, text: str) -> None:
    volume = phantom(32).volume()
    if change == "nan":
        volume[3, 4, 5] = np.nan
    volume = {"odd": volume[:31, :31, :31], "oblong": volume[:, :, :30]}.get(change, volume)
    with pytest.raises(InputError, match=text):
        reference_cube(volume, 8)
