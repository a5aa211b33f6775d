"""Frames obey the physics that they claim: CTF, height, damage, motion, counting, gain."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.fft

from cryopipe.config.simulation import SimulateMovies
from cryopipe.imaging.fourier import radial_frequency, shift_images
from cryopipe.imaging.optics import ctf, ctf_zeros
from cryopipe.simulation.amplitudes import (
    anti_aliasing,
    camera_response,
    critical_exposure,
    mean_fading,
    transmission,
)
from cryopipe.simulation.camera import SimulatedCamera, draw_camera
from cryopipe.simulation.expose import contrasts, expose
from cryopipe.simulation.motion import Motion
from cryopipe.simulation.potential import PotentialSampler, interaction_parameter
from cryopipe.simulation.scene import Scene, draw_scene
from cryopipe.simulation.scenery import Contaminant, wander

PIXEL = 2.0
PARAMS = SimulateMovies(
    preset="tiny", width_px=256, height_px=240, frames=4, dose_per_frame_e_A2=5.0, particles_per_movie=1,
    special_movies=False, iron_fraction=0.0, ice_noise=0.0, ice_thickness_A=1e-3, detective_quantum_efficiency=1.0,
)  # fmt: skip
STILL = Motion(np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((5, 2)), np.zeros(4))


def scene_of(params: SimulateMovies = PARAMS, *, seed: int = 0, **changes: object) -> Scene:
    return replace(draw_scene(params, "ok", np.random.default_rng(seed)), motion=STILL, **changes)  # type: ignore[arg-type]


def direct_contrast(scene: Scene, sampler: PotentialSampler, *, start: float, end: float, box: int = 512) -> np.ndarray:
    """One particle in the middle of a wide field, transferred by the CTF at its own height: the definition, slowly."""
    spectrum = sampler.projection(scene.rotations[0], box).astype(np.complex128)
    ky, kx = np.fft.fftfreq(box, PIXEL)[:, None], np.fft.rfftfreq(box, PIXEL)[None, :]
    grid = np.broadcast_to(kx, spectrum.shape), np.broadcast_to(ky, spectrum.shape)
    k = np.hypot(*grid)
    spectrum *= ctf(*grid, scene.ctf(PARAMS).with_defocus_offset(-scene.heights_A[0]))
    spectrum *= np.exp(-scene.b_factor_A2 * k**2 / 4) * camera_response(k * PIXEL, 1.0) * anti_aliasing(k * PIXEL)
    exposure = np.linspace(start, end, 401)
    fading = np.exp(-exposure[:, None, None] / (2 * critical_exposure(k, 300.0))).mean(0) if end > start else 1.0
    return np.fft.fftshift(scipy.fft.irfft2(spectrum * fading * interaction_parameter(300.0), s=(box, box)))


@pytest.mark.parametrize("height_A", [0.0, 110.0, -110.0])
def test_a_particle_has_the_ctf_of_its_own_height_however_far_it_spreads(
    sampler: PotentialSampler, height_A: float
) -> None:
    scene = scene_of(xy_px=np.array([[128.0, 120.0]]), heights_A=np.array([height_A]))
    frame = next(contrasts(scene, PARAMS, sampler, np.random.default_rng(0)))
    direct = direct_contrast(scene, sampler, start=0.0, end=5.0)[256 - 120 : 256 + 120, 256 - 128 : 256 + 128]
    # measured 3e-4: the box of the particle ends 15 Å beyond its farthest atom
    assert np.abs(frame - direct).max() < 1e-3 * np.abs(direct).max()


def test_the_height_is_seen(sampler: PotentialSampler) -> None:
    low, high = (
        next(contrasts(scene_of(heights_A=np.full(1, h)), PARAMS, sampler, np.random.default_rng(0)))
        for h in (-110.0, 110.0)
    )
    assert np.abs(low - high).max() > 0.1 * np.abs(low).max()


def test_a_particle_lies_where_the_truth_says_to_a_fraction_of_a_pixel(sampler: PotentialSampler) -> None:
    whole = scene_of(xy_px=np.array([[128.0, 120.0]]))
    between = replace(whole, xy_px=np.array([[130.37, 116.81]]))
    a, b = (next(contrasts(s, PARAMS, sampler, np.random.default_rng(0))) for s in (whole, between))
    moved = shift_images(a, (2.37, -3.19))
    inner = np.s_[20:-20, 20:-20]  # the frame is not periodic: what the shift wraps around is left out
    assert np.abs(moved - b)[inner].max() < 5e-3 * np.abs(a).max()


def test_exposure_fades_fine_detail_first_as_grant_and_grigorieff_measured(sampler: PotentialSampler) -> None:
    scene = scene_of(xy_px=np.array([[128.0, 120.0]]))
    first, *_, last = contrasts(scene, PARAMS, sampler, np.random.default_rng(0))
    k = radial_frequency(first.shape, PIXEL)
    powers = [np.abs(scipy.fft.rfft2(f)) ** 2 for f in (first, last)]
    for low, high in ((0.02, 0.03), (0.1, 0.12), (0.18, 0.22)):
        ring = (k > low) & (k < high)
        ratio = powers[1][ring].sum() / powers[0][ring].sum()
        critical = 0.245 * np.array([low, high]) ** -1.665 + 2.81
        # frames 1 and 4 of 5 e/Å² are 15 e/Å² apart: amplitudes fall by exp(-15 / 2Ne), power by its square
        expected = np.exp(-15.0 / critical)
        assert expected[1] * 0.97 < ratio < expected[0] * 1.03


def test_mean_fading_is_the_mean_over_the_frame() -> None:
    critical = np.array([3.0, 30.0, 300.0])
    sampled = np.exp(-np.linspace(10, 15, 10001)[:, None] / (2 * critical)).mean(0)
    np.testing.assert_allclose(mean_fading(10.0, 15.0, critical), sampled, rtol=1e-5)


def test_motion_moves_the_image_and_motion_within_a_frame_blurs_it(sampler: PotentialSampler) -> None:
    scene = scene_of(xy_px=np.array([[128.0, 120.0]]))
    shifts = np.array([[3.4, -2.2], [0, 0], [0, 0], [-1.5, 0.7]])
    moving = replace(scene, motion=replace(STILL, shifts_px=shifts))
    still = list(contrasts(scene, PARAMS, sampler, np.random.default_rng(0)))
    moved = list(contrasts(moving, PARAMS, sampler, np.random.default_rng(0)))
    inner = np.s_[20:-20, 20:-20]
    for a, b, shift in zip(still, moved, shifts, strict=True):
        assert np.abs(shift_images(a, shift) - b)[inner].max() < 5e-3 * np.abs(a).max()
    blurred = replace(scene, motion=replace(STILL, travel_px=np.full((4, 2), (4.0, 0.0))))
    frame = next(contrasts(blurred, PARAMS, sampler, np.random.default_rng(0)))
    steps = np.mean([shift_images(still[0], (t, 0.0)) for t in np.linspace(-2, 2, 41)], axis=0)
    assert np.abs(frame - steps)[inner].max() < 0.02 * np.abs(still[0]).max()


def test_local_motion_moves_particles_by_the_field_at_their_places(sampler: PotentialSampler) -> None:
    scene = scene_of(xy_px=np.array([[60.0, 150.0]]))
    local = np.array([[1.2, 0.0], [0.0, -2.0], [0, 0], [0, 0], [0, 0]])
    moving = replace(scene, motion=replace(STILL, local_px=local, course=np.array([-1.0, 0.0, 0.0, 0.5])))
    a = list(contrasts(scene, PARAMS, sampler, np.random.default_rng(0)))
    b = list(contrasts(moving, PARAMS, sampler, np.random.default_rng(0)))
    u, v = 2 * 60 / 255 - 1, 2 * 150 / 239 - 1
    inner = np.s_[20:-20, 20:-20]
    for frame, course in ((0, -1.0), (3, 0.5)):
        expected = shift_images(a[frame], (1.2 * u * course, -2.0 * v * course))
        assert np.abs(expected - b[frame])[inner].max() < 5e-3 * np.abs(a[frame]).max()


def test_the_ice_shows_thon_rings_with_zeros_where_the_ctf_has_them(sampler: PotentialSampler) -> None:
    params = PARAMS.model_copy(
        update={
            "ice_noise": 1.0,
            "ice_thickness_A": 350.0,
            "width_px": 512,
            "height_px": 512,
            "frames": 8,
            "b_factor_A2": 0.0,
        }
    )
    still = Motion(np.zeros((8, 2)), np.zeros((8, 2)), np.zeros((5, 2)), np.zeros(8))
    scene = replace(
        draw_scene(params, "ok", np.random.default_rng(1)), motion=still, xy_px=np.empty((0, 2)),
        rotations=np.empty((0, 3, 3)), heights_A=np.empty(0), iron_atoms=np.empty(0, np.int64),
        defocus_u_A=12000.0, defocus_v_A=12000.0,
    )  # fmt: skip
    power = 0.0
    for frame in contrasts(scene, params, sampler, np.random.default_rng(2)):
        window = np.outer(np.hanning(512), np.hanning(512))
        power = power + np.abs(scipy.fft.rfft2(frame * window)) ** 2
    ring = np.rint(radial_frequency((512, 512), PIXEL) * 512 * PIXEL).astype(int)
    profile = np.bincount(ring.ravel(), np.asarray(power).ravel()) / np.bincount(ring.ravel())
    zeros = np.rint(ctf_zeros(np.arange(1, 9), scene.ctf(params)) * 512 * PIXEL).astype(int)
    assert zeros[-1] < 250
    for before, after in itertools.pairwise(zeros):
        crest = profile[before : after + 1].max()
        assert profile[before - 1 : before + 2].min() < 0.05 * crest
        assert profile[after - 1 : after + 2].min() < 0.05 * crest


def test_wandering_molecules_change_the_ice_between_frames_at_fine_detail_only() -> None:
    alike, left = wander(np.array([0.0, 0.01, 0.27]), 2.5)
    assert alike[0] == left[0] == 1.0
    assert alike[1] > 0.99
    assert alike[2] < 0.5
    # a random walk of mean square 1/3 Å² per e/Å² along an axis damps a density wave by exp(-2 pi² k² u²)
    assert alike[2] == pytest.approx(np.exp(-2 * np.pi**2 * 0.27**2 * 2.5 / 3))
    assert ((left > alike) | (left == 1.0)).all()


def flat_camera(shape: tuple[int, int]) -> SimulatedCamera:
    return SimulatedCamera(np.ones(shape, np.float32), np.zeros(shape, bool), "rot90")


def test_counts_are_poisson_with_the_exposure_that_the_ice_lets_through(sampler: PotentialSampler) -> None:
    params = PARAMS.model_copy(update={"width_px": 512, "height_px": 512, "frames": 2})
    scene = scene_of(
        params, xy_px=np.empty((0, 2)), rotations=np.empty((0, 3, 3)), heights_A=np.empty(0),
        iron_atoms=np.empty(0, np.int64),
    )  # fmt: skip
    frames = list(expose(scene, params, sampler, flat_camera((512, 512)), np.random.default_rng(0)))
    assert all(frame.dtype == np.uint8 for frame in frames)
    mean = 5.0 * PIXEL**2 * transmission(params)
    n = 512 * 512
    for frame in frames:
        counts = frame.astype(np.float64)
        assert abs(counts.mean() - mean) < 5 * np.sqrt(mean / n)
        # the variance of a sample variance of Poisson numbers is (mu + 2 mu²) / n
        assert abs(counts.var() - mean) < 5 * np.sqrt((mean + 2 * mean**2) / n)
    # frames are independent: their correlation has the deviation 1/sqrt(n)
    assert abs(np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1]) < 5 / np.sqrt(n)


def test_thick_ice_takes_electrons_away() -> None:
    assert transmission(PARAMS.model_copy(update={"ice_thickness_A": 320.0})) == pytest.approx(np.exp(-0.1))


def test_protein_and_contaminants_are_dark_in_a_movie(sampler: PotentialSampler) -> None:
    params = PARAMS.model_copy(update={"detective_quantum_efficiency": 0.6, "ice_thickness_A": 350.0})
    lump = Contaminant((40.0, 40.0), 30.0, np.array([[0.0, 0.0, 25.0, 100.0]]))
    scene = scene_of(params, xy_px=np.array([[160.0, 140.0]]), contaminants=[lump])
    total = sum(contrasts(scene, params, sampler, np.random.default_rng(0)))
    assert isinstance(total, np.ndarray)
    y, x = np.indices(total.shape)
    inside = np.hypot(x - 160, y - 140) < 26
    around = (np.hypot(x - 160, y - 140) > 45) & (np.hypot(x - 40, y - 40) > 60)
    assert total[inside].mean() > total[around].mean() + 3 * total[around].std() / 10  # psi: the intensity is 1 - 2 psi
    assert total[np.hypot(x - 40, y - 40) < 20].mean() > total[inside].mean()


@pytest.mark.parametrize("shape", [(64, 64), (60, 90)])
def test_the_gain_reference_turned_as_the_truth_says_flattens_the_counts(shape: tuple[int, int]) -> None:
    seen = set()
    for seed in range(40):
        camera = draw_camera(shape, 0.05, np.random.default_rng(seed))
        seen.add(camera.orientation)
        image = camera.reference[:, ::-1] if camera.orientation.startswith("mirror") else camera.reference
        image = np.rot90(image, int(camera.orientation.rsplit("rot", 1)[1]) // 90)
        assert image.shape == shape
        alive = camera.sensitivity > 0
        np.testing.assert_allclose((image * camera.sensitivity)[alive], 1.0, rtol=1e-6)
        assert not image[~alive].any()
    assert len(seen) == 7, "every orientation but that of the movies"


def test_gain_has_the_asked_spread_rows_columns_and_defects() -> None:
    camera = draw_camera((1024, 1000), 0.03, np.random.default_rng(0))
    alive = camera.sensitivity[camera.sensitivity > 0]
    assert alive.mean(dtype=np.float64) == pytest.approx(1.0, abs=1e-3)
    # pixels, rows, columns and blocks add up: 0.03 · sqrt(1 + 1/9 + 1/9 + 1/4)
    assert alive.std() == pytest.approx(0.03 * np.sqrt(1 + 2 / 9 + 1 / 4), rel=0.15)
    assert np.count_nonzero(camera.sensitivity == 0) == 20
    assert np.count_nonzero(camera.hot) == 20
    counts = camera.count(np.full((1024, 1000), 2.0, np.float32), np.random.default_rng(1))
    assert not counts[camera.sensitivity == 0].any()
    assert counts[camera.hot].mean() > 10.0


def test_counts_beyond_eight_bits_saturate() -> None:
    camera = flat_camera((32, 32))
    assert camera.count(np.full((32, 32), 500.0, np.float32), np.random.default_rng(0)).min() == 255
