"""Checks of what a pose refinement is given, and its batches put together."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.errors import InputError
from cryopipe.kernels.pose_steps import DEFOCUS, OFFSET, SCALE, TX, StepRules
from cryopipe.poses.batch import End, Start
from cryopipe.poses.model import DefocusModel, PoseRefinement
from cryopipe.projection.particle_spectra import ParticleSpectra


def start_of(
    n: int,
    rotations: np.ndarray,
    shifts_px: np.ndarray,
    shift_centre_px: np.ndarray | None,
    rotation_centre: np.ndarray | None,
    scale: np.ndarray | None,
    defocus: DefocusModel | None,
    offset: np.ndarray | None,
) -> Start:
    """Put start and prior centres together, after checking their shapes and values."""
    poses, shifts = np.array(rotations, np.float64), np.asarray(shifts_px, np.float64)
    middle = poses if rotation_centre is None else np.asarray(rotation_centre, np.float64)
    about = np.zeros((n, 2)) if shift_centre_px is None else np.asarray(shift_centre_px, np.float64)
    if poses.shape != (n, 3, 3) or middle.shape != (n, 3, 3) or shifts.shape != (n, 2) or about.shape != (n, 2):
        raise InputError(
            f"{n} images with rotations {poses.shape}, shifts {shifts.shape}, centres of their priors {middle.shape} and "
            f"{about.shape}: one pose for each image is needed"
        )
    x, centre = np.zeros((n, 5)), np.zeros((n, 5))
    x[:, TX:SCALE], centre[:, TX:SCALE] = shifts, about
    x[:, SCALE] = centre[:, SCALE] = 1
    begin, prior = (None, None) if defocus is None else (defocus.start_A, defocus.centre_A)
    for target, slot, name, values in (
        (x, SCALE, "scale", scale), (x, OFFSET, "offset", offset), (x, DEFOCUS, "start_A", begin),
        (centre, DEFOCUS, "centre_A", prior),
    ):  # fmt: skip
        if values is not None:
            if np.shape(values) != (n,):
                raise InputError(f"{name} of shape {np.shape(values)} for {n} images: give one value for each image")
            target[:, slot] = values
    if not all(np.isfinite(array).all() for array in (poses, middle, x, centre)):
        raise InputError("start poses contain NaN or infinite values: search poses globally first")
    return Start(poses, x, middle, centre)


def check_options(
    images: ParticleSpectra,
    iterations: int,
    padding: int,
    map_pixel_size_A: float | None,
    cube: Any,
    positive: dict[str, float],
) -> None:
    """Raise an `InputError` where an option, the map's pixel size or the reference's size cannot be used."""
    wrong = [f"{name} {value:g}" for name, value in positive.items() if not value > 0]
    if iterations < 1 or wrong:
        raise InputError(
            f"iterations, largest steps and prior widths must be positive, not {', '.join(wrong) or iterations}"
        )
    if map_pixel_size_A is not None and abs(map_pixel_size_A / images.pixel_size_A - 1) > 1e-3:
        raise InputError(
            f"the map has {map_pixel_size_A:g} Å per pixel, the images {images.pixel_size_A:g} Å: resample the map "
            "(resize_volume)"
        )
    needed = int(np.ceil(padding * (images.pixels.radius + 0.5)))
    if cube.ndim != 3 or cube.shape[2] - 1 < needed:
        raise InputError(
            f"a reference cube of shape {tuple(cube.shape)} does not reach shell {images.pixels.radius} at padding "
            f"{padding}: make it with that radius (reference_cube), or crop the images"
        )


def joined(ends: list[End], rules: StepRules, start: Start) -> PoseRefinement:
    """Put the batches together and refuse results that are not finite."""
    size = 3 + len(rules.slots)
    names = ("wx", "wy", "wz", *(("tx", "ty", "scale", "defocus", "offset")[slot] for slot in rules.slots))
    if not ends:
        empty = np.zeros(0)
        none = np.zeros((0, size, size))
        return PoseRefinement(
            start.rotations,
            start.x[:, :2],
            empty,
            empty,
            none,
            np.zeros(0, bool),
            0,
            np.zeros(0, np.int64),
            empty,
            empty,
            names,
        )
    fields = ("rotations", "x", "log_likelihood", "covariance", "converged", "evaluations")
    found = End(*(np.concatenate([getattr(end, name) for end in ends]) for name in fields))
    bad = np.flatnonzero(~np.isfinite(found.log_likelihood))
    if len(bad):
        raise InputError(
            f"image {bad[0] + 1} (and {len(bad) - 1} more) has a log-likelihood of {found.log_likelihood[bad[0]]}: its "
            "spectrum, its CTF or the map holds NaN or infinite values; leave the image out or make it again"
        )
    x = found.x
    return PoseRefinement(
        found.rotations,
        x[:, TX:SCALE].copy(),
        x[:, SCALE].copy(),
        found.log_likelihood,
        found.covariance,
        found.converged,
        int(found.evaluations.max()),
        found.evaluations,
        x[:, DEFOCUS].copy(),
        x[:, OFFSET].copy(),
        names,
    )
