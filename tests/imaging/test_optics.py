"""The contrast transfer function against golden values, identities and its own zeros."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from cryopipe.errors import InputError
from cryopipe.imaging import optics
from cryopipe.imaging.fourier import half_plane, radial_frequency, rfft2_centred, shell_index
from cryopipe.imaging.optics import CtfParameters, ctf, ctf_phase, ctf_stack

GOLDEN = CtfParameters(10000.0, 9000.0, 30.0, 300.0, 2.7, 0.1)
GOLDEN_K = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.3333, 0.5])
# Independent evaluation of RELION's formula, six decimals.
GOLDEN_VALUES = {
    0: [0.1, 0.334743, 0.999389, -0.183909, -0.989924, 0.262510, -0.967144],
    30: [0.1, 0.340565, 0.997292, -0.030331, -0.724433, 0.916101, 0.556099],
    75: [0.1, 0.328908, 0.999993, -0.333098, -0.888640, -0.992964, 0.892918],
    120: [0.1, 0.317202, 0.996720, -0.604262, 0.142155, 0.984698, -0.337574],
}


def _line(k, azimuth_deg):
    angle = np.deg2rad(azimuth_deg)
    return k * np.cos(angle), k * np.sin(angle)


@pytest.fixture
def plane(rng):
    return rng.uniform(-0.5, 0.5, 4000), rng.uniform(-0.5, 0.5, 4000)


@pytest.mark.parametrize("azimuth", sorted(GOLDEN_VALUES))
def test_golden_values_of_an_astigmatic_ctf(azimuth):
    # The table has six decimals: half a unit of the last one.
    np.testing.assert_allclose(ctf(*_line(GOLDEN_K, azimuth), GOLDEN), GOLDEN_VALUES[azimuth], atol=6e-7)


@pytest.mark.parametrize("azimuth", sorted(GOLDEN_VALUES))
def test_golden_values_of_the_fast_float32_path(azimuth):
    values = ctf_stack(*_line(GOLDEN_K, azimuth), GOLDEN)
    assert values.shape == (1, len(GOLDEN_K))
    np.testing.assert_allclose(values[0], GOLDEN_VALUES[azimuth], atol=2e-6)


@pytest.mark.parametrize(
    ("voltage", "wavelength"), [(100, 0.0370146), (120, 0.0334923), (200, 0.0250795), (300, 0.0196876)]
)
def test_wavelengths_of_the_usual_voltages(voltage, wavelength):
    assert optics.electron_wavelength_A(voltage) == pytest.approx(wavelength, abs=6e-8)


def test_wavelength_agrees_with_the_relativistic_formula_from_natural_constants():
    h, m, e, c = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    volts = 300e3
    exact = h / np.sqrt(2 * m * e * volts * (1 + e * volts / (2 * m * c**2))) * 1e10
    # RELION's rounded constants differ by 1e-5.
    assert optics.electron_wavelength_A(300.0) == pytest.approx(exact, rel=1.5e-5)


def test_cistem_sign_is_the_negative_of_relions(plane):
    np.testing.assert_array_equal(ctf(*plane, GOLDEN, sign="cistem"), -ctf(*plane, GOLDEN))


def test_xmipps_form_of_the_ctf_is_the_same_function(plane):
    kx, ky = plane
    w, wavelength = 0.1, optics.electron_wavelength_A(300.0)
    k2 = kx**2 + ky**2
    defocus = 9500.0 + 500.0 * np.cos(2 * (np.arctan2(ky, kx) - np.deg2rad(30.0)))
    argument = -np.pi * wavelength * defocus * k2 + 0.5 * np.pi * 2.7e7 * wavelength**3 * k2**2
    xmipp = -(np.sqrt(1 - w**2) * np.sin(argument) - w * np.cos(argument))
    # Arguments reach 1e2 rad: float64 rounding of some 1e-14 each.
    np.testing.assert_allclose(ctf(kx, ky, GOLDEN), xmipp, atol=1e-11)


def test_swapping_u_and_v_with_a_quarter_turn_changes_nothing(plane):
    swapped = CtfParameters(9000.0, 10000.0, -60.0, 300.0, 2.7, 0.1)
    np.testing.assert_allclose(ctf(*plane, swapped), ctf(*plane, GOLDEN), atol=1e-10)


def test_half_a_turn_of_the_angle_changes_nothing(plane):
    turned = CtfParameters(10000.0, 9000.0, 210.0, 300.0, 2.7, 0.1)
    np.testing.assert_allclose(ctf(*plane, turned), ctf(*plane, GOLDEN), atol=1e-10)


def test_flipping_the_image_in_y_negates_the_angle(plane):
    kx, ky = plane
    mirrored = CtfParameters(10000.0, 9000.0, -30.0, 300.0, 2.7, 0.1)
    np.testing.assert_allclose(ctf(kx, -ky, mirrored), ctf(kx, ky, GOLDEN), atol=1e-10)


def test_normalised_defocus_is_the_same_ctf_with_u_above_v(plane, rng):
    u, v, angle = rng.uniform(5e3, 3e4, 20), rng.uniform(5e3, 3e4, 20), rng.uniform(-400, 400, 20)
    u2, v2, angle2 = optics.normalise_defocus(u, v, angle)
    assert np.all(u2 >= v2)
    assert np.all((angle2 > -90) & (angle2 <= 90))
    kx, ky = plane[0][:100], plane[1][:100]
    np.testing.assert_allclose(
        ctf(kx, ky, CtfParameters(u2, v2, angle2)), ctf(kx, ky, CtfParameters(u, v, angle)), atol=1e-9
    )


def test_angle_of_ninety_degrees_stays_and_minus_ninety_becomes_it():
    _, _, angle = optics.normalise_defocus([2.0, 2.0], [1.0, 1.0], [90.0, -90.0])
    np.testing.assert_array_equal(angle, [90.0, 90.0])


@pytest.mark.parametrize("azimuth", [0.0, 30.0, 77.0])
@pytest.mark.parametrize("phase_shift", [0.0, 90.0])
def test_the_ctf_vanishes_at_its_zeros_and_keeps_one_sign_between_them(azimuth, phase_shift):
    parameters = CtfParameters(12000.0, 9000.0, 30.0, 300.0, 2.7, 0.1, phase_shift)
    zeros = optics.ctf_zeros(np.arange(1, 40), parameters, azimuth_deg=azimuth)
    zeros = zeros[np.isfinite(zeros)]
    assert len(zeros) > 20
    assert np.all(np.diff(zeros) > 0)
    np.testing.assert_allclose(ctf(*_line(zeros, azimuth), parameters), 0.0, atol=1e-6)
    for number, (a, b) in enumerate(itertools.pairwise(zeros), start=1):
        between = ctf(*_line(np.linspace(a, b, 22)[1:-1], azimuth), parameters)
        assert np.all(np.sign(between) == (-1) ** number)


@pytest.mark.parametrize(("defocus", "expected"), [(5000, 0.691), (10000, 0.978), (20000, 1.382)])
def test_the_phase_turns_back_where_the_aberration_wins(defocus, expected):
    parameters = CtfParameters(defocus, defocus, 0.0, 300.0, 2.7, 0.1)
    k = np.linspace(0.3, 1.6, 130001)
    turning = float(optics.turning_frequency(parameters))
    assert turning == pytest.approx(expected, abs=6e-4)
    assert k[np.argmax(ctf_phase(k, 0 * k, parameters))] == pytest.approx(turning, abs=2e-5)


def test_zeros_beyond_the_turning_point_are_nan_and_none_come_without_aberration():
    parameters = CtfParameters(5000.0, 5000.0, 0.0, 300.0, 2.7, 0.1)
    assert np.isnan(optics.ctf_zeros(1000, parameters))
    no_aberration = CtfParameters(10000.0, 10000.0, 0.0, 300.0, 0.0, 0.0)
    wavelength = optics.electron_wavelength_A(300.0)
    assert optics.ctf_zeros(3, no_aberration) == pytest.approx(np.sqrt(3 / (wavelength * 1e4)), rel=1e-12)


def test_modes_are_absolute_sign_and_intact_first_peak(plane):
    values = ctf(*plane, GOLDEN)
    np.testing.assert_array_equal(ctf(*plane, GOLDEN, mode="abs"), np.abs(values))
    np.testing.assert_array_equal(ctf(*plane, GOLDEN, mode="flip"), np.where(values < 0, -1.0, 1.0))
    intact = ctf(*plane, GOLDEN, mode="intact_peak")
    first = ctf_phase(*plane, GOLDEN) < np.pi / 2
    assert 0 < first.sum() < first.size
    assert np.all(intact[first] == 1.0)
    np.testing.assert_array_equal(intact[~first], values[~first])


def test_b_factor_and_scale_damp_as_stated(plane):
    kx, ky = plane
    damped = CtfParameters(10000.0, 9000.0, 30.0, 300.0, 2.7, 0.1, 0.0, 80.0, 1.5)
    expected = 1.5 * np.exp(-20.0 * (kx**2 + ky**2)) * ctf(kx, ky, GOLDEN)
    np.testing.assert_allclose(ctf(kx, ky, damped), expected, atol=1e-12)
    np.testing.assert_allclose(ctf_stack(kx, ky, damped)[0], expected, atol=2e-6)


def test_divisor_floor_keeps_division_safe():
    zero = optics.ctf_zeros(1, GOLDEN)
    assert abs(ctf(*_line(zero, 0.0), GOLDEN, divisor_floor=1e-3)) == 1e-3


def test_fast_values_agree_with_float64_for_many_particles_to_one_angstrom(rng):
    n = 60
    parameters = CtfParameters(
        rng.uniform(2e3, 5e4, n),
        rng.uniform(2e3, 5e4, n),
        rng.uniform(0, 180, n),
        300.0,
        2.7,
        0.07,
        rng.uniform(0, 180, n),
    )
    pixels = half_plane(120, 59)
    kx, ky = pixels.kx / 60.0, pixels.ky / 60.0  # 0.5 Å pixels: to 1 Å
    # 24 bits of a sine of a phase reduced in float64: measured 2e-7, five times that allowed.
    np.testing.assert_allclose(ctf_stack(kx, ky, parameters), ctf(kx, ky, parameters), atol=1e-6)
    np.testing.assert_allclose(ctf_stack(kx, ky, parameters, absolute=True), np.abs(ctf(kx, ky, parameters)), atol=1e-6)


def test_fast_values_of_one_row_do_not_depend_on_the_other_rows(rng):
    parameters = CtfParameters(rng.uniform(5e3, 3e4, 9), rng.uniform(5e3, 3e4, 9), rng.uniform(0, 180, 9))
    kx, ky = rng.uniform(0, 0.5, 333), rng.uniform(-0.5, 0.5, 333)
    whole = ctf_stack(kx, ky, parameters)
    np.testing.assert_array_equal(ctf_stack(kx, ky, parameters.subset([7])), whole[7:8])


def test_no_particles_give_no_rows():
    empty = CtfParameters(np.zeros(0), np.zeros(0), np.zeros(0))
    assert ctf_stack(np.zeros(5), np.zeros(5), empty).shape == (0, 5)


def test_periodogram_of_noise_filtered_by_a_ctf_is_its_square(rng):
    kx, ky = (k / 1.5 for k in (np.fft.rfftfreq(96)[None, :], np.fft.fftfreq(96)[:, None]))
    transfer = ctf(kx, ky, GOLDEN)
    power = np.zeros_like(transfer)
    for _ in range(200):
        power += np.abs(rfft2_centred(rng.standard_normal((96, 96)).astype(np.float32)) * transfer) ** 2
    inside = (radial_frequency((96, 96)) > 0.02) & (shell_index((96, 96)) < 48)
    # 200 images leave 7 % of noise in each value of the periodogram, CTF² varies by 35 %: 0.98 is expected.
    assert np.corrcoef(power[inside], transfer[inside] ** 2)[0, 1] > 0.97


def test_a_particle_table_with_its_optics_gives_one_ctf_a_row():
    table = pd.DataFrame(
        {
            "rlnDefocusU": [10000.0, 12000.0],
            "rlnDefocusV": [9000.0, 11000.0],
            "rlnDefocusAngle": [30.0, 10.0],
            "rlnVoltage": [300.0, 200.0],
            "rlnSphericalAberration": [2.7, 2.7],
            "rlnAmplitudeContrast": [0.1, 0.1],
            "rlnPhaseShift": [0.0, 90.0],
        }
    )
    parameters = optics.from_table(table)
    assert parameters.count == 2
    values = ctf(*_line(GOLDEN_K, 75), parameters)
    np.testing.assert_allclose(values[0], GOLDEN_VALUES[75], atol=6e-7)
    assert values[1, 0] == pytest.approx(np.sin(np.pi / 2 + np.arcsin(0.1)))


def test_a_table_without_defocus_is_refused_by_column_name():
    with pytest.raises(InputError, match="rlnDefocusU"):
        optics.from_table(pd.DataFrame({"rlnVoltage": [300.0]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voltage_kV": 300000.0}, "voltage_kV = 300000"),
        ({"amplitude_contrast": 7.0}, "amplitude_contrast = 7"),
        ({"cs_mm": 2.7e7}, "cs_mm"),
        ({"defocus_u_A": np.array([1e4, np.nan])}, "defocus_u_A is not finite"),
    ],
)
def test_impossible_parameters_are_refused_with_their_value(change, message):
    values = {"defocus_u_A": 1e4, "defocus_v_A": 1e4, "defocus_angle_deg": 0.0} | change
    with pytest.raises(InputError, match=message):
        CtfParameters(**values)


def test_the_gpu_gives_the_same_ctf_values(rng, cupy):
    n = 50
    parameters = CtfParameters(
        rng.uniform(5e3, 3e4, n), rng.uniform(5e3, 3e4, n), rng.uniform(0, 180, n), b_factor_A2=rng.uniform(0, 90, n)
    )
    kx, ky = rng.uniform(0, 1, 1000), rng.uniform(-1, 1, 1000)
    expected = ctf(kx, ky, parameters)
    for absolute in (False, True):
        values = ctf_stack(cupy.asarray(kx), cupy.asarray(ky), parameters, absolute=absolute)
        np.testing.assert_allclose(values.get(), np.abs(expected) if absolute else expected, atol=1e-6)
    np.testing.assert_allclose(ctf(cupy.asarray(kx), cupy.asarray(ky), parameters).get(), expected, atol=1e-10)
