"""Checks of the input of a pose refinement, and the joining of its batches."""

from __future__ import annotations

import numpy as np

from cryopipe.errors import InputError
from cryopipe.kernels.pose_steps import DEFOCUS, OFFSET, SCALE, TX, StepRules
from cryopipe.poses.batch import End, Start
from cryopipe.poses.model import ImageModel, PosePrior, Steps
from cryopipe.poses.refinement import PoseRefinement

#: limits of the scale of an image
SCALE_BOUNDS = (0.2, 5.0)


def start_of(n: int, rotations: np.ndarray, shifts_px: np.ndarray, model: ImageModel, prior: PosePrior) -> Start:
    """Join start values and centres of the priors, after a check of their shapes and values.

    Parameters
    ----------
    n : int
        Number of images.
    rotations, shifts_px : ndarray [n, 3, 3], [n, 2]
        Start poses.
    model : ImageModel
        Start values of scale, defocus and offset.
    prior : PosePrior
        Centres of the priors of the poses.

    Raises
    ------
    InputError
        A shape does not fit, or a value is not finite.
    """
    poses, shifts = np.array(rotations, np.float64), np.asarray(shifts_px, np.float64)
    middle = poses if prior.rotation_centre is None else np.asarray(prior.rotation_centre, np.float64)
    about = np.zeros((n, 2)) if prior.shift_centre_px is None else np.asarray(prior.shift_centre_px, np.float64)
    if poses.shape != (n, 3, 3) or middle.shape != (n, 3, 3) or shifts.shape != (n, 2) or about.shape != (n, 2):
        raise InputError(
            f"{n} images with rotations {poses.shape}, shifts {shifts.shape}, centres of their priors {middle.shape} and "
            f"{about.shape}. Give one pose for each image."
        )
    x, centre = np.zeros((n, 5)), np.zeros((n, 5))
    x[:, TX:SCALE], centre[:, TX:SCALE] = shifts, about
    x[:, SCALE] = centre[:, SCALE] = 1
    defocus, offset = model.defocus, model.offset
    for target, slot, name, values in (
        (x, SCALE, "scale", model.scale.start),
        (x, OFFSET, "offset", None if offset is None else offset.start),
        (x, DEFOCUS, "start_A", None if defocus is None else defocus.start_A),
        (centre, DEFOCUS, "centre_A", None if defocus is None else defocus.centre_A),
    ):
        if values is not None:
            if np.shape(values) != (n,):
                raise InputError(f"{name} of shape {np.shape(values)} for {n} images. Give one value for each image.")
            target[:, slot] = values
    if not all(np.isfinite(array).all() for array in (poses, middle, x, centre)):
        raise InputError("start poses contain NaN or infinite values. Search poses globally first.")
    return Start(poses, x, middle, centre)


def rules_of(model: ImageModel, prior: PosePrior, steps: Steps) -> StepRules:
    """Return steps, priors and bounds in the form of the kernel.

    Raises
    ------
    InputError
        A number of evaluations, a largest step or the width of a prior is not positive.
    """
    defocus = model.defocus
    positive = {
        "shift_sigma_px": prior.shift_sigma_px,
        "rotation_sigma_deg": prior.rotation_sigma_deg,
        "scale sigma": model.scale.sigma,
        "max_angle_deg": steps.max_angle_deg,
        "max_shift_px": steps.max_shift_px,
        "tolerance": steps.tolerance,
    }
    if defocus is not None:
        positive |= {
            "defocus sigma_A": defocus.sigma_A,
            "defocus range_A": defocus.range_A,
            "defocus max_step_A": defocus.max_step_A,
        }
    wrong = [f"{name} {value:g}" for name, value in positive.items() if not value > 0]
    if steps.evaluations < 1 or wrong:
        raise InputError(
            f"evaluations, largest steps and prior widths must be positive, not {', '.join(wrong) or steps.evaluations}"
        )
    longest_A, sigma_A, reach_A = (
        (np.inf,) * 3 if defocus is None else (defocus.max_step_A, defocus.sigma_A, defocus.range_A)
    )
    widths = [np.radians(prior.rotation_sigma_deg), prior.shift_sigma_px, model.scale.sigma, sigma_A, np.inf]
    return StepRules(
        model.scale.refine,
        defocus is not None,
        model.offset is not None,
        steps.evaluations,
        steps.tolerance,
        np.array([np.radians(steps.max_angle_deg), steps.max_shift_px, 0.5, longest_A, np.inf]),
        np.array(widths) ** -2.0,
        np.array([-np.inf, -np.inf, SCALE_BOUNDS[0], -reach_A, -np.inf]),
        np.array([np.inf, np.inf, SCALE_BOUNDS[1], reach_A, np.inf]),
    )


def joined(ends: list[End], rules: StepRules, start: Start) -> PoseRefinement:
    """Join the batches and refuse results that are not finite."""
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
            f"image {bad[0] + 1} (and {len(bad) - 1} more) has a log-likelihood of {found.log_likelihood[bad[0]]}. Its "
            "spectrum, its CTF or the map contains NaN or infinite values. Leave the image out or make it again."
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
