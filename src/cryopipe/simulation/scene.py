"""The truth of one movie: places and poses of its particles, CTF, motion, carbon and contaminants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryopipe.config.simulation import SimulateMovies
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.optics import CtfParameters
from cryopipe.simulation.atoms import AtomicModel
from cryopipe.simulation.motion import Motion, draw_motion
from cryopipe.simulation.placement import place_particles
from cryopipe.simulation.scenery import CarbonEdge, Contaminant, draw_carbon_edge, draw_contaminant

MovieKind = Literal["ok", "drift", "bad_ctf", "carbon"]

#: Straight drift in Å over a movie that starts before the stage has come to rest. Real movies of this kind drift as much, and
#: alignments of weak pairs cannot follow it.
EXCESSIVE_DRIFT_A = 32.0
#: The movie with a bad CTF: astigmatism in Å by a badly set stigmator, and the B factor (Å²) by which charging blurs it.
#: An aligned microscope has 200 Å, and a movie without charging has 40 Å².
BAD_ASTIGMATISM_A, BAD_B_FACTOR_A2 = 3500.0, 150.0
#: Fe atoms of an iron core, FeO(OH): a partly loaded ferritin (a full one has 4,500); and how many Fe atoms a cubic Å of loosely
#: packed ferrihydrite holds.
_IRON_ATOMS = (600, 2000)
_IRON_PER_A3 = 0.02


@dataclass(frozen=True)
class Scene:
    """One movie's truth.

    Attributes
    ----------
    kind : {"ok", "drift", "bad_ctf", "carbon"}
    xy_px : float64 [n, 2 (x, y)]
        Centres of the particles in the frame at zero motion.
    rotations : float64 [n, 3, 3]
        Pose matrices.
    heights_A : float64 [n]
        Height above the middle of the ice, towards the source. The particle's underfocus is smaller by this.
    iron_atoms : int64 [n]
        Fe atoms in the cavity, 0 for apo-particles.
    defocus_u_A, defocus_v_A, defocus_angle_deg : float
        In the middle of the ice.
    b_factor_A2 : float
        Envelope exp(-B k²/4).
    motion : Motion
    carbon : CarbonEdge or None
    contaminants : list of Contaminant
    """

    kind: MovieKind
    xy_px: NDArray[np.float64]
    rotations: NDArray[np.float64]
    heights_A: NDArray[np.float64]
    iron_atoms: NDArray[np.int64]
    defocus_u_A: float
    defocus_v_A: float
    defocus_angle_deg: float
    b_factor_A2: float
    motion: Motion
    carbon: CarbonEdge | None
    contaminants: list[Contaminant]

    def ctf(self, params: SimulateMovies) -> CtfParameters:
        """Return the CTF in the middle of the ice, without the envelope."""
        return CtfParameters(
            defocus_u_A=self.defocus_u_A,
            defocus_v_A=self.defocus_v_A,
            defocus_angle_deg=self.defocus_angle_deg,
            voltage_kV=params.voltage_kV,
            cs_mm=params.cs_mm,
            amplitude_contrast=params.amplitude_contrast,
        )


def kinds_of(count: int, special: bool, rng: np.random.Generator) -> list[MovieKind]:
    """Return the kind of each of ``count`` movies: one drifts, one has a bad CTF and, of 8 or more, one has a carbon edge."""
    kinds: list[MovieKind] = ["ok"] * count
    wanted: list[MovieKind] = ["drift", "bad_ctf", "carbon"] if count >= 8 else ["drift", "bad_ctf"]
    if special and count >= 4:
        for place, kind in zip(rng.permutation(count), wanted, strict=False):
            kinds[int(place)] = kind
    return kinds


def draw_scene(params: SimulateMovies, kind: MovieKind, rng: np.random.Generator) -> Scene:
    """Draw the truth of one movie."""
    pixel = params.value("pixel_size_A")
    size = (float(params.value("width_px")), float(params.value("height_px")))
    low, high = params.value("defocus_range_A")
    defocus = rng.uniform(low, high)
    astigmatism = BAD_ASTIGMATISM_A if kind == "bad_ctf" else params.astigmatism_A * rng.rayleigh(0.8)
    carbon = draw_carbon_edge(rng, size, pixel) if kind == "carbon" else None
    dirty = params.special_movies and rng.random() < 0.35
    contaminants = [draw_contaminant(rng, size, pixel) for _ in range(int(rng.integers(1, 4)) if dirty else 0)]
    xy = place_particles(
        rng,
        count=params.value("particles_per_movie"),
        size_px=size,
        distance_px=params.spacing * params.particle_diameter_A / pixel,
        forbidden=np.array([(*lump.xy_px, lump.radius_px) for lump in contaminants]).reshape(-1, 3),
        inside=None if carbon is None else (carbon.x_px, carbon.y_px, carbon.radius_px),
    )
    count = len(xy)
    iron = np.zeros(count, np.int64)
    # the same share in every movie, so that small sets have loaded particles, too
    loaded = rng.permutation(count)[: round(params.iron_share * count)]
    iron[loaded] = rng.integers(*_IRON_ATOMS, len(loaded), endpoint=True)
    return Scene(
        kind=kind,
        xy_px=xy,
        rotations=random_rotations(rng, count),
        heights_A=rng.uniform(-0.5, 0.5, count) * max(params.ice_thickness_A - params.particle_diameter_A, 0.0),
        iron_atoms=iron,
        defocus_u_A=defocus + astigmatism / 2,
        defocus_v_A=defocus - astigmatism / 2,
        defocus_angle_deg=float(rng.uniform(-90, 90)),
        b_factor_A2=params.b_factor_A2 + (BAD_B_FACTOR_A2 if kind == "bad_ctf" else 0.0),
        motion=draw_motion(
            rng,
            frames=params.value("frames"),
            dose_per_frame_e_A2=params.value("dose_per_frame_e_A2"),
            pixel_size_A=pixel,
            drift_A=params.drift_A,
            local_A=params.local_motion_A,
            excessive_A=EXCESSIVE_DRIFT_A if kind == "drift" else 0.0,
        ),
        carbon=carbon,
        contaminants=contaminants,
    )


def iron_core(atoms: int, rng: np.random.Generator) -> AtomicModel:
    """Return a ball of ``atoms`` Fe and twice as many O at random places: the mineral in a loaded ferritin."""
    radius = np.cbrt(3 * atoms / (4 * np.pi * _IRON_PER_A3))
    direction = rng.standard_normal((3 * atoms, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    positions = direction * radius * np.cbrt(rng.random((3 * atoms, 1)))
    elements = np.repeat(np.array(["Fe", "O"]), (atoms, 2 * atoms))
    return AtomicModel(elements, positions, np.full(3 * atoms, 30.0), np.ones(3 * atoms))
