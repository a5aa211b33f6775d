"""Run the engines on a small scene and print a digest of every result, as JSON; the script of `test_cold_and_warm_cache`."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numba
import numpy as np

from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.geometry import random_rotations, rotation_from_vector
from cryopipe.imaging.optics import CtfParameters, ctf_stack
from cryopipe.kernels.devices import Resources
from cryopipe.kernels.poses import normal_equations
from cryopipe.kernels.slices import extract_slices
from cryopipe.kernels.warp import node_count, spline_coefficients, warp_accumulate
from cryopipe.poses.model import DefocusModel, ImageModel, OffsetModel, ScaleModel
from cryopipe.poses.refine_poses import refine_poses
from cryopipe.projection.noise import NoiseModel
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.projection.references import ReferenceMap, ReferenceSlices, reference_cube
from cryopipe.reconstruction.reconstruct import Reconstruction
from cryopipe.search.exhaustive.search import search_poses
from cryopipe.search.options import GreyScale, SearchOptions
from cryopipe.search.shifts import ShiftGrid

BOX, RADIUS, IMAGES = 32, 14, 6


def digest(*arrays: Any) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


class Scene:
    """Six noisy images of a small map, and where they are searched from."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        axis = np.arange(BOX) - BOX // 2
        envelope = np.exp(-(axis**2) / 50.0)
        volume = rng.standard_normal((BOX, BOX, BOX)) * envelope[:, None, None] * envelope[:, None] * envelope
        self.cube = reference_cube(volume.astype(np.float32), RADIUS)
        self.pixels = half_plane(BOX, RADIUS)
        self.rotations = random_rotations(rng, IMAGES)
        self.parameters = CtfParameters(
            rng.uniform(8e3, 1e4, IMAGES), np.full(IMAGES, 8e3), rng.uniform(0, 180, IMAGES)
        )
        kx, ky = self.pixels.kx, self.pixels.ky
        self.ctf = ctf_stack(kx / (BOX * 2.0), ky / (BOX * 2.0), self.parameters)
        self.slices = extract_slices(self.cube, self.rotations, kx, ky)
        noise = rng.standard_normal((*self.slices.shape, 2), np.float32).view(np.complex64)[..., 0]
        self.values = (self.slices * self.ctf + noise).astype(np.complex64)
        self.images = ParticleSpectra(self.pixels, self.values, self.ctf, BOX, 2.0, np.ones(IMAGES, np.int32))
        self.sigma2, self.weight = np.full(RADIUS + 1, 0.5), np.full(len(self.pixels), 2, np.float32)
        self.states = extract_slices(self.cube, random_rotations(rng, 24), kx, ky)
        self.start = rotation_from_vector(np.radians(rng.normal(size=(IMAGES, 3)))) @ self.rotations
        self.shifts = 0.3 * rng.normal(size=(IMAGES, 2))


def inputs(s: Scene) -> dict[str, str]:
    return {"ctf_values": digest(s.ctf), "extract_slices": digest(s.slices)}


def search(s: Scene) -> dict[str, str]:
    grid = np.array([[0.0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])
    posterior = search_poses(
        s.images,
        NoiseModel(s.sigma2),
        ReferenceSlices(s.states),
        ShiftGrid(grid),
        scale=GreyScale(sd=0.1),
        options=SearchOptions(candidates=3, accumulate=True, keep_significant=True),
        resources=Resources(threads=1),
    )
    sums = posterior.sums
    assert sums is not None
    found = (posterior.log_evidence, posterior.candidate_log, posterior.grey_scale, sums.numerator, sums.weight)
    return {"search_poses": digest(*found)}


def refinement(s: Scene) -> dict[str, str]:
    everything = ImageModel(ScaleModel(refine=True), DefocusModel(s.parameters), OffsetModel(0.9 * BOX * 2.0))
    found = {}
    for name, model in {"refine_poses": ImageModel(), "refine_poses, everything": everything}.items():
        refined = refine_poses(s.images, NoiseModel(s.sigma2), ReferenceMap(s.cube), s.start, s.shifts, model=model)
        found[name] = digest(refined.rotations, refined.shifts_px, refined.log_likelihood, refined.covariance)
    return found


def equations(s: Scene) -> dict[str, str]:
    common, frequencies = (s.cube, s.values, s.ctf, s.weight), (s.pixels.kx, s.pixels.ky)
    found = normal_equations(*common, s.start, s.shifts, *frequencies, box=BOX)
    return {"normal_equations": digest(*found)}


def insertion(s: Scene) -> dict[str, str]:
    found = {}
    for symmetry in ("O", "D3"):
        half = Reconstruction.empty(BOX, RADIUS, symmetry=symmetry, method="interpolation")
        half.insert(s.images, s.rotations, s.shifts, 1 / s.sigma2)
        half.symmetrise()
        found[f"insertion, {symmetry}"] = digest(half.numerator, half.weight, half.shell_weight())
    return found


def warping(s: Scene) -> dict[str, str]:
    rng = np.random.default_rng(4)
    frame = rng.standard_normal((48, 40), np.float32)
    spline_coefficients(frame)
    field = rng.normal(size=(2, node_count(48, 16), node_count(40, 16))).astype(np.float32)
    total = np.zeros((2, 48, 40), np.float32)
    warp_accumulate(frame, field, 16, np.array([1.0, 0.3], np.float32), total, fill=0.0)
    return {"warp": digest(frame, total)}


ENGINES = (inputs, search, refinement, equations, insertion, warping)


def main(arguments: list[str]) -> None:
    """Run the engines in their order, or the last one first where the argument is ``reversed``."""
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    scene, found = Scene(), {}
    for engine in reversed(ENGINES) if arguments == ["reversed"] else ENGINES:
        found.update(engine(scene))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
