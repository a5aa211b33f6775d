"""Micrographs of balls and hollow balls whose places are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft
from scipy.optimize import linear_sum_assignment

from cryopipe.imaging.fourier import frequency_grid
from cryopipe.imaging.optics import CtfParameters, ctf
from cryopipe.io.mrc import write_image
from cryopipe.io.star import StarTable, make_optics, write_table
from cryopipe.picking.shell import ball_transform

DIAMETER = 124.0
OPTICS = CtfParameters(12000.0, 12000.0, 0.0, 300.0, 2.7, 0.1)


def blob_image(
    shape: tuple[int, int],
    xy: np.ndarray,
    pixel: float,
    outer: float,
    inner: float = 0.0,
    optics: CtfParameters | None = None,
) -> np.ndarray:
    """Projections of (hollow) balls at ``xy`` px, made in Fourier space, white on zero; peak density one."""
    kx, ky = frequency_grid(shape, pixel)
    k = np.hypot(kx, ky)
    one = (ball_transform(k, outer / 2) - ball_transform(k, inner / 2)) / pixel**2
    if optics is not None:
        one = one * ctf(kx, ky, optics)
    phases = sum(np.exp(-2j * np.pi * pixel * (kx * x + ky * y)) for x, y in xy)
    return scipy.fft.irfft2(one * phases, s=shape)


def separated(
    rng: np.random.Generator, count: int, shape: tuple[int, int], distance: float, border: float
) -> np.ndarray:
    found: list[np.ndarray] = []
    while len(found) < count:
        place = np.array([rng.uniform(border, shape[1] - border), rng.uniform(border, shape[0] - border)])
        if all(np.hypot(*(place - other)) > distance for other in found):
            found.append(place)
    return np.array(found)


def score(found: np.ndarray, truth: np.ndarray, tolerance: float) -> tuple[float, float, float]:
    """Precision, recall and rms distance of a one-to-one assignment within ``tolerance``."""
    distance = np.hypot(*(found[:, None] - truth[None]).transpose(2, 0, 1))
    i, j = linear_sum_assignment(np.where(distance < tolerance, distance, 1e6))
    hit = distance[i, j] < tolerance
    return hit.sum() / len(found), hit.sum() / len(truth), float(np.sqrt(np.mean(distance[i, j][hit] ** 2)))


def phantom(
    seed: int, *, snr: float, ice: float, optics: CtfParameters | None, cavity: float = 0.65
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return an image, the places in it (x, y) and its pixel size; protein dark.

    640² at 3 Å with 60 shells (``cavity``: diameter of the hole over the outer one), white noise to the pixel SNR, and slow
    ice outside the CTF.
    """
    rng = np.random.default_rng(seed)
    shape, pixel = (640, 640), 3.0
    xy = separated(rng, 60, shape, 1.15 * DIAMETER / pixel, 0.6 * DIAMETER / pixel)
    signal = blob_image(shape, xy, pixel, DIAMETER, cavity * DIAMETER, optics)
    kx, ky = frequency_grid(shape, pixel)
    slow = scipy.fft.irfft2(
        scipy.fft.rfft2(rng.standard_normal(shape)) * np.exp(-((np.hypot(kx, ky) * 300) ** 2)), s=shape
    )
    image = signal / signal.std() + ice * slow / slow.std() + rng.standard_normal(shape) / np.sqrt(snr)
    return (100.0 - image).astype(np.float32), xy, pixel


def write_inputs(folder: Path, images: dict[str, np.ndarray], *, header_pixel: float = 3.0) -> Path:
    rows = []
    for item, image in images.items():
        write_image(folder / f"{item}.mrc", image, header_pixel)
        rows.append({"rlnMicrographName": str(folder / f"{item}.mrc"), "rlnOpticsGroup": 1, "crpItem": item,
                     "rlnDefocusU": 12000.0, "rlnDefocusV": 12000.0, "rlnDefocusAngle": 0.0})  # fmt: skip
    optics = make_optics(
        voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=3.0, micrograph_pixel_size_A=3.0
    )
    columns = ["rlnMicrographName", "rlnOpticsGroup", "crpItem", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"]
    write_table(folder / "micrographs.star", StarTable("micrographs", optics, pd.DataFrame(rows, columns=columns)))
    return folder / "micrographs.star"
