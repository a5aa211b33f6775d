"""The field of view of a movie, all but its particles: CTF, ice, carbon and contaminants, frame by frame."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryopipe.config.simulation import SimulateMovies
from cryopipe.imaging.optics import ctf_phase, electron_wavelength_A
from cryopipe.kernels.scattering.field import transfer
from cryopipe.simulation.amplitudes import camera_response, critical_exposure, mean_fading
from cryopipe.simulation.potential import interaction_parameter
from cryopipe.simulation.scene import Scene
from cryopipe.simulation.scenery import ice_power, static_fields, wander

#: Resolution in Å down to which detail that the CTF spreads does not wrap around the field. Finer detail wraps. A finer limit
#: would only make the field larger.
_SPREAD_RESOLUTION_A = 3.0
#: Margin in Å in addition to that spread and the global motion, for local motion and the box of a particle at the border.
_ROOM_A = 20


class Field:
    """The field of view with a margin, all but the particles: CTF, ice and static objects.

    Parameters
    ----------
    scene, params : Scene, SimulateMovies
        What happens in the movie, and the acquisition.
    rng : Generator
        The movie's random numbers; the order of their use is part of the result.
    """

    def __init__(self, scene: Scene, params: SimulateMovies, rng: np.random.Generator) -> None:
        self.pixel, self.dose = params.value("pixel_size_A"), params.value("dose_per_frame_e_A2")
        self.size = (params.value("height_px"), params.value("width_px"))
        self.rng, self.motion = rng, scene.motion
        spread_A = electron_wavelength_A(params.voltage_kV) * scene.defocus_u_A / _SPREAD_RESOLUTION_A
        margin = int(np.ceil((spread_A / 2 + _ROOM_A) / self.pixel + np.abs(scene.motion.shifts_px).max() / 2))
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
        # In unnormalised transforms white noise of variance v has |F|² = v · pixels; half of it is real.
        power = params.ice_noise * ice_power(k, params.ice_thickness_A, sigma) * left / self.pixel**2
        self.ice_amplitude = (np.sqrt(power * k.shape[0] * self.shape[1] / 2) * envelope).astype(np.float32)
        self.alike = alike.astype(np.float32)
        self.ice = np.zeros((*k.shape, 2), np.float32)
        self.draw = np.empty_like(self.ice)
        self.first = True

    def frame(self, frame: int, even: NDArray[np.float32], odd: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ψ of a frame. ``even`` and ``odd`` are the two parts of the particles' contrast on the whole field."""
        self.rng.standard_normal(out=self.draw, dtype=np.float32)
        fading = mean_fading(frame * self.dose, (frame + 1) * self.dose, self.critical)
        spectrum = scipy.fft.rfft2(even, overwrite_x=True)
        transfer(
            spectrum,
            scipy.fft.rfft2(odd, overwrite_x=True),
            sine=self.sine,
            cosine=self.cosine,
            fading=fading,
            static=self.static,
            ice_amplitude=self.ice_amplitude,
            ice=self.ice,
            alike=self.alike,
            draw=self.draw,
            first=self.first,
            fy=np.fft.fftfreq(self.shape[0]),
            fx=np.fft.rfftfreq(self.shape[1]),
            shift=self.motion.shifts_px[frame],
            travel=self.motion.travel_px[frame],
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
