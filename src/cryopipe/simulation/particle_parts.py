"""The particles of a movie on the whole field, as two parts with one CTF for particles at all heights.

The CTF is that of the whole field, so nothing is cut off, however far it spreads. Let χ be its phase. A particle at the
height h has the phase ``χ - πλhk²``, and

    sin(χ - πλhk²) = sin χ · cos(πλhk²) - cos χ · sin(πλhk²)

splits its image into two parts that stay as small as the particle. First they are summed over all particles, each
moved by its own local motion. Then sin χ and cos χ are applied to the two sums.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryopipe.config.simulation import SimulateMovies
from cryopipe.imaging.optics import electron_wavelength_A
from cryopipe.kernels.scattering.field import add_image
from cryopipe.simulation.amplitudes import anti_aliasing
from cryopipe.simulation.field import Field
from cryopipe.simulation.potential import PotentialSampler, interaction_parameter
from cryopipe.simulation.scene import Scene, iron_core

#: The box in which a particle is drawn is longer than its diameter by this, in Å: an atom's potential and the envelope
#: of the B factor fade to nothing within 15 Å.
_MARGIN_A = 30.0


class ParticleParts:
    """The two parts of every particle's image, before the CTF that all particles share.

    Parameters
    ----------
    scene, params : Scene, SimulateMovies
        What happens in the movie, and the acquisition.
    sampler : PotentialSampler
        Potential of the particle at the movie's pixel size.
    rng : Generator
        The movie's random numbers, from which iron cores are drawn.
    field : Field
        Where the particles lie.
    """

    def __init__(
        self, scene: Scene, params: SimulateMovies, sampler: PotentialSampler, rng: np.random.Generator, field: Field
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
        # places of the particles without the global motion, which moves the whole field
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
                add_image(total, image, int(top), int(left))
        return sums
