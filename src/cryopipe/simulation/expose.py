"""The frames of one movie: contrast of particles and ice, moved, damaged by exposure, counted.

Contrast follows the weak-phase approximation [1]_: the intensity is ``1 - 2 F⁻¹[CTF · F[φ]]`` (protein dark under
focus), φ the projected potential times the interaction parameter. The CTF is that of the whole field, so nothing is
cut off however far it spreads; with χ its phase, a particle at the height h has the phase ``χ - πλhk²``, and

    sin(χ - πλhk²) = sin χ · cos(πλhk²) - cos χ · sin(πλhk²)

splits its image into two parts that stay as small as the particle: they are summed over all particles first, moved
each by its own local motion, and then transferred by sin χ and cos χ at once. Exposure fades the particles'
amplitudes by ``exp(-N / (2 Nₑ(k)))`` with ``Nₑ(k) = 0.245 k^-1.665 + 2.81 e/Å²`` at 300 kV [2]_, averaged over each
frame; motion within a frame blurs it.

Known limits: no multiple scattering (particles lie in one plane each); the ice follows the global motion only; the
camera counts without coincidence loss, and its detective quantum efficiency weakens the contrast instead of adding
noise.

References
----------
.. [1] E. J. Kirkland, Advanced Computing in Electron Microscopy, doi:10.1007/978-1-4419-6533-2.
.. [2] T. Grant, N. Grigorieff, eLife 4 (2015) e06980, doi:10.7554/eLife.06980.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryopipe.config.simulation import SimulateMovies
from cryopipe.imaging.optics import ctf_phase, electron_wavelength_A
from cryopipe.simulation.camera import Camera
from cryopipe.simulation.potential import PotentialSampler, interaction_parameter
from cryopipe.simulation.scene import Scene, iron_core
from cryopipe.simulation.scenery import ICE_MEAN_FREE_PATH_A, ice_power, static_fields, wander

#: finest resolution in Å at which the CTF's spread does not wrap around the field
_SPREAD_RESOLUTION_A = 3.0
#: the box in which a particle is drawn is longer than its diameter by this, in Å
_MARGIN_A = 30.0
#: least intensity over the mean: where carbon or ice crystals exceed the weak-phase approximation
_DARKEST = 0.05


def critical_exposure(k: NDArray[np.float64], voltage_kV: float) -> NDArray[np.float64]:
    """Return Nₑ in e/Å² at the frequencies ``k`` (1/Å): 0.8 of the 300 kV value at 200 kV, 0.532 at 100 kV [2]_."""
    scale = float(np.interp(voltage_kV, [100, 200, 300], [0.532, 0.8, 1.0]))
    return np.asarray(scale * (0.245 * np.maximum(k, 1e-6) ** -1.665 + 2.81))


def mean_fading(start_e_A2: float, end_e_A2: float, critical: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return ``exp(-N / (2 Nₑ))`` averaged over exposures N from ``start_e_A2`` to ``end_e_A2``."""
    double = 2 * np.asarray(critical, np.float64)
    faded = np.exp(-start_e_A2 / double) - np.exp(-end_e_A2 / double)
    return np.asarray(double * faded / (end_e_A2 - start_e_A2), np.float32)


def camera_response(frequency: NDArray[np.floating], efficiency: float) -> NDArray[np.float64]:
    """Return the factor of amplitudes, √DQE, at ``frequency`` (1/px): the DQE falls to half at Nyquist."""
    return np.asarray(np.sqrt(efficiency * np.maximum(1 - 2 * np.asarray(frequency, np.float64) ** 2, 0.1)))


def anti_aliasing(frequency: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the factor of particles' amplitudes at ``frequency`` (1/px): 1 up to 0.8 of Nyquist, 0 from Nyquist on.

    Without it their images would ring (a sinc function) beyond the box in which they are drawn.
    """
    t = np.clip((np.asarray(frequency, np.float64) - 0.4) / 0.1, 0, 1)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * t))


def transmission(params: SimulateMovies) -> float:
    """Return the share of electrons that ice of mean thickness lets through the energy filter."""
    return float(np.exp(-params.ice_thickness_A / ICE_MEAN_FREE_PATH_A))


def expose(
    scene: Scene, params: SimulateMovies, sampler: PotentialSampler, camera: Camera, rng: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """Yield the counted frames, uint8 [y, x], of one movie.

    Parameters
    ----------
    scene, params : Scene, SimulateMovies
        What happens, and the acquisition.
    sampler : PotentialSampler
        Of the particle at the movies' pixel size.
    camera : Camera
        Counts the electrons.
    rng : Generator
        Of the movie; the order of its use is part of the result.
    """
    pixel, dose = params.value("pixel_size_A"), params.value("dose_per_frame_e_A2")
    electrons = np.float32(dose * pixel**2 * transmission(params))
    for contrast in contrasts(scene, params, sampler, rng):
        yield camera.count(electrons * np.maximum(1 - 2 * contrast, np.float32(_DARKEST)), rng)


def contrasts(
    scene: Scene, params: SimulateMovies, sampler: PotentialSampler, rng: np.random.Generator
) -> Iterator[NDArray[np.float32]]:
    """Yield for every frame ψ, float32 [y, x]: the intensity is ``1 - 2 ψ`` of its mean."""
    field = _Field(scene, params, rng)
    particles = _Particles(scene, params, sampler, rng, field)
    for frame in range(params.value("frames")):
        yield field.frame(frame, *particles.parts(frame))


class _Field:
    """The whole field of view with a margin: transfer, ice, static objects; all but the particles."""

    def __init__(self, scene: Scene, params: SimulateMovies, rng: np.random.Generator) -> None:
        self.pixel, self.dose = params.value("pixel_size_A"), params.value("dose_per_frame_e_A2")
        self.size = (params.value("height_px"), params.value("width_px"))
        self.rng, self.motion = rng, scene.motion
        spread_A = electron_wavelength_A(params.voltage_kV) * scene.defocus_u_A / _SPREAD_RESOLUTION_A
        margin = int(np.ceil((spread_A / 2 + 20) / self.pixel + np.abs(scene.motion.shifts_px).max() / 2))
        self.shape = tuple(2 * scipy.fft.next_fast_len(n // 2 + margin, real=True) for n in self.size)
        self.origin = tuple((full - n) // 2 for full, n in zip(self.shape[::-1], self.size[::-1], strict=True))  # x, y
        ky, kx = np.fft.fftfreq(self.shape[0], self.pixel)[:, None], np.fft.rfftfreq(self.shape[1], self.pixel)[None, :]
        k = np.hypot(ky, kx)
        phase = ctf_phase(np.broadcast_to(kx, k.shape), np.broadcast_to(ky, k.shape), scene.ctf(params))
        self.sine, self.cosine = np.sin(phase).astype(np.float32), np.cos(phase).astype(np.float32)
        del phase
        seen = camera_response(k * self.pixel, params.detective_quantum_efficiency).astype(np.float32)
        self.sine *= seen
        self.cosine *= seen
        envelope = np.exp(-scene.b_factor_A2 * k**2 / 4).astype(np.float32)
        sigma = interaction_parameter(params.voltage_kV)
        self.critical = critical_exposure(k, params.voltage_kV).astype(np.float32)
        self.static = self._static(scene, params, sigma, envelope, seen)
        alike, left = wander(k, self.dose)
        # unnormalised transforms: white noise of variance v has |F|² = v · pixels, half of it real
        power = params.ice_noise * ice_power(k, params.ice_thickness_A, sigma) * left / self.pixel**2
        self.ice_amplitude = (np.sqrt(power * k.shape[0] * self.shape[1] / 2) * envelope).astype(np.float32)
        self.alike = alike.astype(np.float32)
        self.ice = np.zeros((*k.shape, 2), np.float32)
        self.draw = np.empty_like(self.ice)
        self.first = True

    def frame(self, frame: int, even: NDArray[np.float32], odd: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ψ of a frame; ``even`` and ``odd`` are the particles' two parts on the whole field."""
        self.rng.standard_normal(out=self.draw, dtype=np.float32)
        fading = mean_fading(frame * self.dose, (frame + 1) * self.dose, self.critical)
        spectrum = scipy.fft.rfft2(even, overwrite_x=True)
        _transfer(
            spectrum,
            scipy.fft.rfft2(odd, overwrite_x=True),
            self.sine,
            self.cosine,
            fading,
            self.static,
            self.ice_amplitude,
            self.ice,
            self.alike,
            self.draw,
            self.first,
            np.fft.fftfreq(self.shape[0]),
            np.fft.rfftfreq(self.shape[1]),
            self.motion.shifts_px[frame],
            self.motion.travel_px[frame],
        )
        self.first = False
        whole = scipy.fft.irfft2(spectrum, s=self.shape, overwrite_x=True)
        x, y = self.origin
        return np.asarray(whole[y : y + self.size[0], x : x + self.size[1]], np.float32)

    def _static(
        self,
        scene: Scene,
        params: SimulateMovies,
        sigma: float,
        envelope: NDArray[np.float32],
        seen: NDArray[np.float32],
    ) -> NDArray[np.complex64]:
        phase, loss = static_fields(
            self.shape,
            self.origin,
            pixel_size_A=self.pixel,
            thickness_A=params.ice_thickness_A,
            sigma=sigma,
            carbon=scene.carbon,
            contaminants=scene.contaminants,
            rng=self.rng,
        )
        spectrum = scipy.fft.rfft2(phase, overwrite_x=True)
        spectrum *= self.sine
        spectrum += np.float32(0.5) * seen * scipy.fft.rfft2(loss, overwrite_x=True)
        spectrum *= envelope
        return np.asarray(spectrum, np.complex64)


class _Particles:
    """The two parts of every particle's image, before the transfer that all particles share."""

    def __init__(
        self, scene: Scene, params: SimulateMovies, sampler: PotentialSampler, rng: np.random.Generator, field: _Field
    ) -> None:
        self.field = field
        pixel = field.pixel
        self.box = 2 * scipy.fft.next_fast_len(
            int(np.ceil((sampler.model.diameter_A + _MARGIN_A) / pixel / 2)), real=True
        )
        self.frequency = np.fft.fftfreq(self.box), np.fft.rfftfreq(self.box)
        squared = (self.frequency[0][:, None] ** 2 + self.frequency[1] ** 2) / pixel**2
        scale = interaction_parameter(params.voltage_kV) * np.exp(-scene.b_factor_A2 * squared / 4)
        scale *= anti_aliasing(np.sqrt(squared) * pixel)
        turn = np.pi * float(electron_wavelength_A(params.voltage_kV)) * squared
        self.spectra: list[tuple[NDArray[np.complex64], NDArray[np.complex64]]] = []
        for rotation, height, iron in zip(scene.rotations, scene.heights_A, scene.iron_atoms, strict=True):
            spectrum = sampler.projection(rotation, self.box)
            if iron:
                core = PotentialSampler(iron_core(int(iron), rng), pixel)
                spectrum = spectrum + core.projection(rotation, self.box)
            even = (spectrum * (scale * np.cos(height * turn))).astype(np.complex64)
            odd = (spectrum * (scale * -np.sin(height * turn))).astype(np.complex64)
            self.spectra.append((even, odd))
        # where particles are, less the global motion, which moves the whole field
        whole = scene.motion.at(scene.xy_px, field.size) - scene.motion.shifts_px
        self.places = scene.xy_px[:, None] + whole + np.asarray(field.origin, np.float64)  # [n, frames, 2]

    def parts(self, frame: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the sums over particles of the part for sin χ and of that for cos χ, on the whole field."""
        sums = np.zeros(self.field.shape, np.float32), np.zeros(self.field.shape, np.float32)
        half = self.box // 2
        for spectra, place in zip(self.spectra, self.places[:, frame], strict=True):
            whole = np.floor(place + 0.5).astype(int)
            x, y = place - whole + half  # the particle's centre in its box
            along_y = np.exp(-2j * np.pi * self.frequency[0] * y).astype(np.complex64)[:, None]
            along_x = np.exp(-2j * np.pi * self.frequency[1] * x).astype(np.complex64)
            left, top = whole - half
            for total, spectrum in zip(sums, spectra, strict=True):
                image = scipy.fft.irfft2(spectrum * along_y * along_x, s=(self.box, self.box), overwrite_x=True)
                _add(total, image, int(top), int(left))
        return sums


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(total: Any, image: Any, top: int, left: int) -> None:
    """Add ``image`` at row ``top`` and column ``left`` of the periodic field ``total``."""
    height, width = total.shape
    for j in range(image.shape[0]):
        row = (top + j) % height
        for i in range(image.shape[1]):
            total[row, (left + i) % width] += image[j, i]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _transfer(
    even: Any,
    odd: Any,
    sine: Any,
    cosine: Any,
    fading: Any,
    static: Any,
    ice_amplitude: Any,
    ice: Any,
    alike: Any,
    draw: Any,
    first: bool,
    fy: Any,
    fx: Any,
    shift: Any,
    travel: Any,
) -> None:
    """Turn ``even`` in place into the spectrum of ψ, and renew the ice [y, x, 2] (a random walk) on the way."""
    ramp_x = np.exp(-2j * np.pi * fx * shift[0]).astype(np.complex64)
    ramp_y = np.exp(-2j * np.pi * fy * shift[1]).astype(np.complex64)
    for j in range(even.shape[0]):
        for i in range(even.shape[1]):
            keep = np.float32(0.0) if first else alike[j, i]
            fresh = np.sqrt(np.float32(1.0) - keep * keep)
            ice[j, i, 0] = keep * ice[j, i, 0] + fresh * draw[j, i, 0]
            ice[j, i, 1] = keep * ice[j, i, 1] + fresh * draw[j, i, 1]
            value = (even[j, i] * sine[j, i] + odd[j, i] * cosine[j, i]) * fading[j, i] + static[j, i]
            value += complex(ice[j, i, 0], ice[j, i, 1]) * ice_amplitude[j, i] * sine[j, i]
            blur = np.pi * (fx[i] * travel[0] + fy[j] * travel[1])
            if abs(blur) > 1e-3:
                value *= np.sin(blur) / blur
            even[j, i] = value * ramp_x[i] * ramp_y[j]
