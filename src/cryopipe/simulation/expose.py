"""The frames of one movie: contrast of particles and ice, moved, damaged by exposure, counted.

Contrast follows the weak-phase approximation [1]_: the intensity is ``1 - 2 F⁻¹[CTF · F[φ]]`` (protein dark under
focus), where φ is the projected potential times the interaction parameter. `cryopipe.simulation.field` makes the field
of view and its CTF, `cryopipe.simulation.particle_parts` makes the particles in it, and
`cryopipe.simulation.amplitudes` weakens both by exposure and camera. Motion within a frame blurs it.

Known limits: there is no multiple scattering (each particle lies in one plane); the ice follows the global motion only;
the camera counts without coincidence loss, and its detective quantum efficiency weakens the contrast instead of adding
noise.

References
----------
.. [1] E. J. Kirkland, Advanced Computing in Electron Microscopy, doi:10.1007/978-1-4419-6533-2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.simulation import SimulateMovies
from cryopipe.simulation.amplitudes import transmission
from cryopipe.simulation.camera import SimulatedCamera
from cryopipe.simulation.field import Field
from cryopipe.simulation.particle_parts import ParticleParts
from cryopipe.simulation.potential import PotentialSampler
from cryopipe.simulation.scene import Scene

#: Least intensity over the mean. Only carbon and ice crystals go below, where the weak-phase approximation ends.
_DARKEST = 0.05


def expose(
    scene: Scene, params: SimulateMovies, sampler: PotentialSampler, camera: SimulatedCamera, rng: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """Yield the counted frames, uint8 [y, x], of one movie.

    Parameters
    ----------
    scene, params : Scene, SimulateMovies
        What happens in the movie, and the acquisition.
    sampler : PotentialSampler
        Potential of the particle at the movie's pixel size.
    camera : SimulatedCamera
        Counts the electrons.
    rng : Generator
        The movie's random numbers; the order of their use is part of the result.
    """
    pixel, dose = params.value("pixel_size_A"), params.value("dose_per_frame_e_A2")
    electrons = np.float32(dose * pixel**2 * transmission(params))
    for contrast in contrasts(scene, params, sampler, rng):
        yield camera.count(electrons * np.maximum(1 - 2 * contrast, np.float32(_DARKEST)), rng)


def contrasts(
    scene: Scene, params: SimulateMovies, sampler: PotentialSampler, rng: np.random.Generator
) -> Iterator[NDArray[np.float32]]:
    """Yield ψ of every frame, float32 [y, x]: the intensity is ``1 - 2 ψ`` times its mean.

    Parameters
    ----------
    scene, params : Scene, SimulateMovies
        What happens in the movie, and the acquisition.
    sampler : PotentialSampler
        Potential of the particle at the movie's pixel size.
    rng : Generator
        The movie's random numbers; the order of their use is part of the result.
    """
    field = Field(scene, params, rng)
    particles = ParticleParts(scene, params, sampler, rng, field)
    for frame in range(params.value("frames")):
        yield field.frame(frame, *particles.parts(frame))
