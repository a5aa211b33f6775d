"""Run the engines on a small scene and print a digest of every result, as JSON. The script of `test_cold_and_warm_cache`."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numba
import numpy as np

from cryopipe.imaging.fourier_pixels import half_plane
from cryopipe.imaging.geometry import random_rotations, rotation_from_vector
from cryopipe.imaging.optics import CtfParameters, ctf_stack
from cryopipe.kernels.ctf_score import ctf_score
from cryopipe.kernels.devices import Resources
from cryopipe.kernels.poses import score_poses
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


def main() -> None:
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    rng = np.random.default_rng(3)
    axis = np.arange(BOX) - BOX // 2
    envelope = np.exp(-(axis**2) / 50.0)
    volume = rng.standard_normal((BOX, BOX, BOX)) * envelope[:, None, None] * envelope[:, None] * envelope
    cube = reference_cube(volume.astype(np.float32), RADIUS)
    pixels = half_plane(BOX, RADIUS)
    rotations = random_rotations(rng, IMAGES)
    parameters = CtfParameters(rng.uniform(8e3, 1e4, IMAGES), np.full(IMAGES, 8e3), rng.uniform(0, 180, IMAGES))
    ctf = ctf_stack(pixels.kx / (BOX * 2.0), pixels.ky / (BOX * 2.0), parameters)
    slices = extract_slices(cube, rotations, pixels.kx, pixels.ky)
    noise = rng.standard_normal((*slices.shape, 2), np.float32).view(np.complex64)[..., 0]
    values = (slices * ctf + noise).astype(np.complex64)
    images = ParticleSpectra(pixels, values, ctf, BOX, 2.0, np.ones(IMAGES, np.int32))
    sigma2, weight = np.full(RADIUS + 1, 0.5), np.full(len(pixels), 2, np.float32)
    found = {"ctf_values": digest(ctf), "extract_slices": digest(slices)}

    states = extract_slices(cube, random_rotations(rng, 24), pixels.kx, pixels.ky)
    grid = np.array([[0.0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])
    posterior = search_poses(
        images,
        NoiseModel(sigma2),
        ReferenceSlices(states),
        ShiftGrid(grid),
        scale=GreyScale(sd=0.1),
        options=SearchOptions(candidates=3, accumulate=True, keep_significant=True),
        resources=Resources(threads=1),
    )
    sums = posterior.sums
    assert sums is not None
    found["search_poses"] = digest(
        posterior.log_evidence, posterior.candidate_log, posterior.grey_scale, sums.numerator, sums.weight
    )

    turn = rotation_from_vector(np.radians(rng.normal(size=(IMAGES, 3))))
    start, shifts = turn @ rotations, 0.3 * rng.normal(size=(IMAGES, 2))
    everything = ImageModel(ScaleModel(refine=True), DefocusModel(parameters), OffsetModel(0.9 * BOX * 2.0))
    for name, model in {"refine_poses": ImageModel(), "refine_poses, everything": everything}.items():
        refined = refine_poses(images, NoiseModel(sigma2), ReferenceMap(cube), start, shifts, model=model)
        found[name] = digest(refined.rotations, refined.shifts_px, refined.log_likelihood, refined.covariance)
    common = (cube, values, ctf, weight)
    found["score_poses"] = digest(score_poses(*common, start[:, None], shifts[:, None], pixels.kx, pixels.ky, box=BOX))

    for symmetry in ("O", "D3"):
        half = Reconstruction.empty(BOX, RADIUS, symmetry=symmetry, method="interpolation")
        half.insert(images, rotations, shifts, 1 / sigma2)
        half.symmetrise()
        found[f"insertion, {symmetry}"] = digest(half.numerator, half.weight, half.shell_weight())

    k2 = rng.uniform(1e-4, 0.04, 3000).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi, 3000)
    directions = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    trials = np.stack([rng.uniform(1e4, 2e4, 20), rng.uniform(1e4, 2e4, 20), rng.uniform(0, 180, 20)], axis=1)
    found["ctf_score"] = digest(
        ctf_score(
            rng.standard_normal(3000, np.float32), k2, *directions, trials, wavelength_A=0.0197, cs_mm=2.7,
            amplitude_contrast=0.1,
        )
    )  # fmt: skip

    frame = rng.standard_normal((48, 40), np.float32)
    spline_coefficients(frame)
    field = rng.normal(size=(2, node_count(48, 16), node_count(40, 16))).astype(np.float32)
    total = np.zeros((2, 48, 40), np.float32)
    warp_accumulate(frame, field, 16, np.array([1.0, 0.3], np.float32), total, fill=0.0)
    found["warp"] = digest(frame, total)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
