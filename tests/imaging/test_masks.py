"""Soft masks: shapes, edges, and the solvent mask of a hollow particle."""

from __future__ import annotations

import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging import masks


@pytest.mark.parametrize("box", [64, 65])
def test_a_soft_circle_is_one_inside_zero_outside_and_half_in_the_middle_of_its_edge(box):
    mask = masks.soft_circle(box, 20.0, edge_px=6.0)
    row, c = mask[box // 2], box // 2
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(row[c - 20 : c + 21], 1.0)
    assert row[c + 23] == pytest.approx(0.5, abs=1e-6)
    assert row[c - 26] == row[c + 26] == 0.0
    np.testing.assert_allclose(
        mask[1:, 1:][::-1, ::-1] if box % 2 == 0 else mask[::-1, ::-1], mask[1:, 1:] if box % 2 == 0 else mask
    )


def test_a_soft_sphere_has_the_volume_of_its_mid_edge_radius():
    mask = masks.soft_sphere(64, 20.0, edge_px=4.0)
    # A cosine edge of width w adds (4π/3) 3 r w² (1/4 - 2/π²) to the mid-radius volume: 0.4 %.
    assert mask.sum() == pytest.approx(4 / 3 * np.pi * 22.0**3, rel=0.01)


def test_a_hard_edge_has_no_grey_values():
    assert set(np.unique(masks.soft_circle(32, 10.0, edge_px=0.0))) == {0.0, 1.0}


def test_a_soft_edge_grows_a_binary_mask_by_the_extension_and_falls_as_a_cosine():
    binary = np.zeros((40, 40, 40), bool)
    binary[20, 20, 20] = True
    mask = masks.soft_edge(binary, 6.0, extend_px=3.0)
    np.testing.assert_allclose(mask[20, 20, 20:24], 1.0)
    np.testing.assert_allclose(mask[20, 20, 23:30], 0.5 + 0.5 * np.cos(np.pi * np.arange(7) / 6), atol=1e-6)
    assert mask[20, 20, 30:].max() == 0.0


def test_a_mask_at_the_border_of_the_box_keeps_its_edge_inside():
    binary = np.zeros((20, 20, 20), bool)
    binary[:3] = True
    mask = masks.soft_edge(binary, 4.0)
    np.testing.assert_allclose(mask[:3], 1.0)
    np.testing.assert_allclose(mask[4, :, :], 0.5, atol=1e-6)


def test_an_empty_binary_mask_stays_empty():
    assert masks.soft_edge(np.zeros((8, 8, 8), bool), 3.0).max() == 0.0


def test_the_largest_piece_is_kept():
    binary = np.zeros((20, 20), bool)
    binary[2:4, 2:4] = True
    binary[10:15, 10:15] = True
    kept = masks.largest_component(binary)
    assert kept.sum() == 25
    assert kept[12, 12]


def _hollow(box=80, outer=22.0, inner=12.0, noise=0.0, seed=3):
    radius = masks.radius_grid((box,) * 3)
    shell = ((radius < outer) & (radius > inner)).astype(np.float32)
    return shell + noise * np.random.default_rng(seed).standard_normal(shell.shape).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_solvent_mask_of_a_hollow_shell_covers_the_shell_and_leaves_the_cavity(noise):
    pixel = 2.5
    mask = masks.solvent_mask(_hollow(noise=noise), pixel, low_pass_A=15.0, extend_A=5.0, edge_A=7.5)
    radius = masks.radius_grid(mask.shape)
    assert mask[(radius > 13) & (radius < 21)].min() == 1.0
    assert mask[radius < 4].max() == 0.0
    # Low-pass and threshold move the border outwards by less than 4 voxels, extension and edge by 5.
    assert mask[radius > 22 + 4 + 5].max() == 0.0
    assert 0.0 <= mask.min() < mask.max() <= 1.0


def test_dust_away_from_the_particle_is_left_out():
    volume = _hollow()
    volume[6:10, 36:44, 36:44] = 1.0
    mask = masks.solvent_mask(volume, 2.5, low_pass_A=10.0, extend_A=2.5, edge_A=5.0)
    assert mask[8, 40, 40] == 0.0
    assert mask[40, 40, 40 + 17] == 1.0


def test_a_particle_volume_sets_how_many_voxels_lie_above_the_threshold():
    pixel = 2.0
    volume = 4 / 3 * np.pi * (22.0**3 - 12.0**3) * pixel**3
    mask = masks.solvent_mask(_hollow(), pixel, low_pass_A=8.0, volume_A3=volume, extend_A=0.0, edge_A=0.0)
    assert mask.sum() * pixel**3 == pytest.approx(volume, rel=0.01)


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (np.zeros((16,) * 3, np.float32), {}, "constant"),
        (np.full((16,) * 3, np.nan, np.float32), {}, "NaN"),
        (_hollow(32, 8, 4), {"threshold": 2.0}, "between 0 and 1"),
        (_hollow(32, 8, 4), {"volume_A3": 1e9}, "Check the particle.s volume"),
    ],
)
def test_maps_without_a_mask_are_refused_with_the_reason(volume, options, message):
    with pytest.raises(InputError, match=message):
        masks.solvent_mask(volume, 2.0, **options)
