"""Picking by shape: F1 of a picker with the particle's diameter alone, on micrographs whose places are known.

    python -m benchmarks.particles.picking [--picker pick_log] [--set min_distance_fraction=0.7 ...] [--seeds 3]

Each micrograph has 640² pixels of 3 Å and 30 particles at random views, 1.2 µm under focus, ice whose thickness varies over
300 Å by half of the particles' contrast, and white noise to the stated SNR (variances over the whole micrograph). Every other
micrograph is crowded: the longest extents of neighbours touch. A pick counts within a quarter of the diameter of a particle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

import numpy as np
import scipy.fft
import yaml
from scipy.optimize import linear_sum_assignment

from cryopipe.config.picking import PickLog, PickShell
from cryopipe.imaging.fourier import frequency_grid
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.simulation.particle_images import BlobModel, project

PIXEL_A, SIDE, PARTICLES = 3.0, 640, 30
OPTICS = CtfParameters(12000.0, 12000.0, 0.0, 300.0, 2.7, 0.1)
#: Share of the particles' standard deviation that slow ice has, and the length over which it varies in Å.
ICE, ICE_LENGTH_A = 0.5, 300.0
#: Blobs that fill a shape, and their standard deviation in Å: a residue's.
BLOBS, SIGMA_A = 1500, 4.0


def _l(p: np.ndarray) -> np.ndarray:
    upright = (np.abs(p[:, 0] + 45) < 25) & (np.abs(p[:, 1]) < 70)
    foot = (np.abs(p[:, 1] + 45) < 25) & (np.abs(p[:, 0]) < 70)
    return (upright | foot) & (np.abs(p[:, 2]) < 25)


#: Longest extent in Å, and whether points [n, 3] in Å lie inside.
SHAPES: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "hollow ball 124": (124.0, lambda p: np.abs(np.linalg.norm(p, axis=1) - 51) < 11),
    "hollow ball, cavity stated": (124.0, lambda p: np.abs(np.linalg.norm(p, axis=1) - 51) < 11),
    "ball 124": (124.0, lambda p: np.linalg.norm(p, axis=1) < 62),
    "rod 180 x 60": (180.0, lambda p: (np.hypot(p[:, 0], p[:, 1]) < 30) & (np.abs(p[:, 2]) < 90)),
    "ellipsoid 180 x 110 x 80": (180.0, lambda p: ((p / (90, 55, 40)) ** 2).sum(axis=1) < 1),
    "L 140 x 140 x 50": (190.0, _l),
    "plate 150 x 40": (150.0, lambda p: (np.hypot(p[:, 0], p[:, 1]) < 75) & (np.abs(p[:, 2]) < 20)),
}


def model(name: str, rng: np.random.Generator) -> BlobModel:
    """Return blobs that fill a shape evenly, centred."""
    diameter_A, inside = SHAPES[name]
    points = rng.uniform(-diameter_A / 2, diameter_A / 2, (200 * BLOBS, 3))
    points = points[inside(points)][:BLOBS]
    return BlobModel(points - points.mean(axis=0), np.ones(len(points)), np.full(len(points), SIGMA_A))


def micrograph(
    name: str, snr: float, crowded: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image [y, x] with dark particles, their places [n, 2] in pixels, and their pose matrices [n, 3, 3]."""
    diameter_A, _ = SHAPES[name]
    places: list[np.ndarray] = []
    apart, border = (1.0 if crowded else 1.3) * diameter_A / PIXEL_A, 0.5 * diameter_A / PIXEL_A
    for _ in range(20000):
        place = rng.uniform(border, SIDE - 1 - border, 2)
        if all(np.hypot(*(place - other)) >= apart for other in places):
            places.append(place)
        if len(places) == PARTICLES:
            break
    poses = random_rotations(rng, len(places))
    box = 2 * int(np.ceil(0.6 * diameter_A / PIXEL_A)) + 2
    signal = np.zeros((SIDE, SIDE))
    padded = np.pad(signal, box)
    for image, place in zip(
        project(model(name, rng), poses, box=box, pixel_size_A=PIXEL_A, shifts_px=-(np.array(places) % 1)),
        places,
        strict=True,
    ):
        x, y = np.floor(place).astype(int) + box - box // 2
        padded[y : y + box, x : x + box] += image
    kx, ky = frequency_grid((SIDE, SIDE), PIXEL_A)
    transfer = ctf(kx, ky, OPTICS)
    signal = scipy.fft.irfft2(scipy.fft.rfft2(padded[box:-box, box:-box]) * transfer, s=(SIDE, SIDE))
    slow = np.exp(-((np.hypot(kx, ky) * ICE_LENGTH_A) ** 2))
    ice = scipy.fft.irfft2(scipy.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * slow, s=(SIDE, SIDE))
    image = signal / signal.std() + ICE * ice / ice.std() + rng.standard_normal((SIDE, SIDE)) / np.sqrt(snr)
    return (100.0 - image).astype(np.float32), np.array(places), poses


def hits(found: np.ndarray, true: np.ndarray, tolerance_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which picks and which true places are paired, one to one, within a tolerance."""
    distance = np.hypot(*(found[:, None] - true[None]).transpose(2, 0, 1)) if len(found) else np.empty((0, len(true)))
    i, j = linear_sum_assignment(np.where(distance < tolerance_px, distance, 1e6))
    good = distance[i, j] < tolerance_px
    paired, known = np.zeros(len(found), bool), np.zeros(len(true), bool)
    paired[i[good]], known[j[good]] = True, True
    return paired, known


def main() -> None:
    """Print F1, precision and recall by shape and SNR."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picker", default="pick_log", choices=["pick_log", "pick_shell"])
    parser.add_argument("--set", action="append", default=[], help="parameter=value")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--snr", type=float, nargs="+", default=[0.05, 0.02])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    options = parser.parse_args()
    pick = import_module(f"cryopipe.picking.{options.picker}").pick_particles
    given = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in options.set)}
    print(
        "| shape | "
        + " | ".join(f"SNR {snr}: F1 (precision, recall); recall side to end" for snr in options.snr)
        + " |"
    )
    print("|---|" + "---|" * len(options.snr))
    for name in (shape for shape in SHAPES if any(shape.startswith(wanted) for wanted in options.shapes)):
        cells = []
        for snr in options.snr:
            picked, paired, known, along = 0, 0, [], []
            for seed in range(options.seeds):
                image, places, poses = micrograph(name, snr, bool(seed % 2), np.random.default_rng([seed, 11]))
                params = parameters(options.picker, SHAPES[name][0], given, 80.0 if "stated" in name else None)
                xy = pick(image, PIXEL_A, params, optics=OPTICS).xy
                good, true = hits(xy, places, 0.25 * SHAPES[name][0] / PIXEL_A)
                picked, paired = picked + len(good), paired + int(good.sum())
                known.append(true)
                along.append(np.abs(poses[:, 2, 2]))
            found, view = np.concatenate(known), np.minimum((np.concatenate(along) * 3).astype(int), 2)
            precision, recall = paired / max(picked, 1), found.mean()
            by_view = " ".join(f"{found[view == i].mean():.2f}" for i in range(3))
            f1 = 2 * precision * recall / max(precision + recall, 1e-9)
            cells.append(f"{f1:.2f} ({precision:.2f}, {recall:.2f}); {by_view}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def parameters(picker: str, diameter_A: float, given: dict[str, object], cavity_A: float | None) -> PickLog | PickShell:
    """Return a picker's parameters as a configuration with these facts fills them."""
    from cryopipe.config.derive import resolve
    from cryopipe.config.load import parse_config

    dataset = {
        "micrographs": "*.mrc",
        "pixel_size_A": PIXEL_A,
        "voltage_kV": 300,
        "cs_mm": 2.7,
        "particle_diameter_A": diameter_A,
        "symmetry": "C1",
        "cavity_diameter_A": cavity_A,
    }
    return resolve(parse_config({"dataset": dataset, "picking": {picker: given}}))[picker]  # type: ignore[return-value]


if __name__ == "__main__":
    main()
