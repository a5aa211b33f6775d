from __future__ import annotations

import numpy as np
import pytest

from cryopipe.imaging.fsc import fourier_shell_correlation
from cryopipe.imaging.symmetry import symmetrise_volume, symmetry_operators
from cryopipe.projection.half_cube import cube_shape
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.reconstruction.symmetrise import symmetry_plan
from tests.particle_scenes import Scene, phantom, scene


def inserted(one: Scene, group: str, method: str | None = None, copies: str = "C1") -> Reconstruction:
    """Insert every image once for each operator of ``copies`` into a reconstruction of symmetry ``group``."""
    half = Reconstruction.empty(32, 15, symmetry=group, method=method)  # type: ignore[arg-type]
    for operator in symmetry_operators(copies):
        half.insert(one.images, one.rotations @ operator, one.shifts, 1 / one.sigma2)
    half.symmetrise()
    return half


@pytest.mark.parametrize("group", ["C2", "C4", "D2", "D4", "O", "C3", "D3", "T", "I"])
def test_symmetrised_accumulators_equal_inserting_every_equivalent_pose(group: str) -> None:
    one = scene(phantom(32), 4, snr=1.0)
    found, brute = inserted(one, group), inserted(one, "C1", copies=group)
    # float32 sums in another order
    np.testing.assert_allclose(found.weight, brute.weight, atol=1e-5 * brute.weight.max())
    np.testing.assert_allclose(found.numerator, brute.numerator, atol=1e-5 * np.abs(brute.numerator).max())


def test_a_map_symmetrised_in_fourier_space_is_symmetric_in_real_space() -> None:
    one = scene(phantom(32, group="O", blobs=3), 30, snr=0.3)
    half = inserted(one, "O")
    found = half.solve()
    inner = found[1:, 1:, 1:]  # the plane at index 0 of an even box has no opposite
    for axes in ((1, 2, 0), (2, 0, 1)):
        np.testing.assert_allclose(inner.transpose(axes), inner, atol=2e-5 * np.abs(inner).max())
    np.testing.assert_allclose(np.rot90(inner, axes=(1, 2)), inner, atol=2e-5 * np.abs(inner).max())


def test_symmetry_makes_few_images_into_the_true_map() -> None:
    one = scene(phantom(32, group="O", blobs=3), 60, snr=np.inf)
    found = inserted(one, "O").solve()
    assert fourier_shell_correlation(found, one.truth.volume())[1:12].min() > 0.99


@pytest.mark.parametrize("group", ["C3", "I"])
def test_interpolating_accumulators_comes_close_to_inserting_copies(group: str) -> None:
    one = scene(phantom(32, radius=0.25), 300, snr=np.inf)
    copies = inserted(one, group, "copies").solve()
    interpolated = inserted(one, group, "interpolation").solve()
    curve = fourier_shell_correlation(copies, interpolated)
    print(group, curve[1:13].min())
    # A second trilinear kernel at padding 2 on (m - 1)/m of the data: a few per cent of amplitude at the particle's
    # edge.
    assert curve[1:13].min() > 0.98
    truth = symmetrise_volume(one.truth.volume(), group)
    exact, near = (fourier_shell_correlation(found, truth)[1:9] for found in (copies, interpolated))
    assert np.all(near > exact - 0.02)


def test_the_plan_takes_the_faster_way_and_shows_both_times() -> None:
    shape = cube_shape(31)
    few = symmetry_plan("I", n_slices=10, n_pixels=1500, cube_shape=shape)
    many = symmetry_plan("I", n_slices=10**6, n_pixels=1500, cube_shape=shape)
    assert (few.method, many.method) == ("copies", "interpolation")
    assert few.copy_seconds < few.interpolation_seconds
    assert many.copy_seconds > many.interpolation_seconds
    assert (few.rotates_volumes, many.rotates_volumes) == (False, True)
    assert few.order == len(few.exact) * len(few.cosets) == 60
    octahedral = symmetry_plan("O", n_slices=10**6, n_pixels=1500, cube_shape=shape)
    assert (len(octahedral.exact), len(octahedral.cosets), octahedral.copy_seconds) == (24, 1, 0)
    assert not octahedral.rotates_volumes
