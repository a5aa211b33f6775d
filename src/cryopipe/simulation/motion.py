"""Motion of the specimen under the beam: a global trajectory and a local field, both zero in the middle frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Powers (p, q) of the terms u^p v^q of the local field: a full polynomial of second order, as in RELION's motion model.
#: The squares have their mean over the frame subtracted.
LOCAL_TERMS = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2))
#: Exposure in e/Å² over which the fast early motion decays: most of it is over after 5 e/Å² (Brilot et al. 2012,
#: doi:10.1016/j.jsb.2012.02.003).
_SETTLING_E_A2 = 5.0


@dataclass(frozen=True)
class Motion:
    """Motion of the specimen's content, in pixels.

    Attributes
    ----------
    shifts_px : float64 [frames, 2 (x, y)]
        Displacement of the content in the middle of each frame; 0 in frame ``frames // 2``.
    travel_px : float64 [frames, 2 (x, y)]
        Displacement between the start and the end of each frame: it blurs the frame.
    local_px : float64 [5, 2 (x, y)]
        Coefficients of `LOCAL_TERMS` in u, v, which run from -1 to 1 across the frame.
    course : float64 [frames]
        Factor of the local field in each frame; 0 in frame ``frames // 2``.
    """

    shifts_px: NDArray[np.float64]
    travel_px: NDArray[np.float64]
    local_px: NDArray[np.float64]
    course: NDArray[np.float64]

    def at(self, xy_px: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
        """Return the motion ``[..., frames, 2]`` at places ``[..., 2 (x, y)]`` of frames of ``shape`` (y, x)."""
        u = 2 * xy_px[..., 0] / (shape[1] - 1) - 1
        v = 2 * xy_px[..., 1] / (shape[0] - 1) - 1
        local = local_basis(u, v) @ self.local_px  # [..., 2]
        return np.asarray(self.shifts_px + self.course[:, None] * local[..., None, :])


def local_basis(u: ArrayLike, v: ArrayLike) -> NDArray[np.float64]:
    """Return the terms of the local field ``[..., 5]`` at the relative places u, v (from -1 to 1 across the frame)."""
    u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
    return np.stack([u**p * v**q - (1 / 3 if 2 in (p, q) else 0) for p, q in LOCAL_TERMS], axis=-1)


def draw_motion(
    rng: np.random.Generator,
    *,
    frames: int,
    dose_per_frame_e_A2: float,
    pixel_size_A: float,
    drift_A: float,
    local_A: float,
    excessive_A: float = 0.0,
) -> Motion:
    """Draw a smooth trajectory: fast at first as the ice settles, then a slow drift with a wobble.

    Parameters
    ----------
    rng : Generator
        The movie's random numbers.
    frames : int
        Number of frames.
    dose_per_frame_e_A2 : float
        Exposure of a frame, e/Å².
    pixel_size_A : float
        Å.
    drift_A : float
        Typical travel over the movie, Å.
    local_A : float
        Typical size of the local motion in the corners of the field over the movie, Å.
    excessive_A : float
        Added straight drift over the movie, Å: a stage that had not come to rest.
    """
    total = frames * dose_per_frame_e_A2
    first, second, wobble = _directions(rng, 3)
    settle, linear = drift_A * rng.uniform(0.4, 0.9), drift_A * rng.uniform(0.2, 0.6)
    period, phase = rng.uniform(0.5, 1.0), rng.uniform(0, 2 * np.pi)

    def course(exposure: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1 - np.exp(-exposure / _SETTLING_E_A2))

    def path(exposure: NDArray[np.float64]) -> NDArray[np.float64]:
        t = exposure / total
        straight = np.outer((linear + excessive_A) * t, first)
        wave = np.outer(0.08 * drift_A * np.sin(2 * np.pi * t / period + phase), wobble)
        return np.asarray(straight + np.outer(settle * course(exposure), second) + wave)

    starts = dose_per_frame_e_A2 * np.arange(frames, dtype=np.float64)
    middles = starts + dose_per_frame_e_A2 / 2
    shifts, locals_ = path(middles), course(middles)
    coefficients = rng.normal(0, 1, (len(LOCAL_TERMS), 2))
    corners = local_basis([-1, -1, 1, 1], [-1, 1, -1, 1]) @ coefficients
    coefficients *= local_A / np.sqrt((corners**2).sum(axis=1).mean())
    reference = frames // 2
    return Motion(
        shifts_px=(shifts - shifts[reference]) / pixel_size_A,
        travel_px=(path(starts + dose_per_frame_e_A2) - path(starts)) / pixel_size_A,
        local_px=coefficients / pixel_size_A,
        course=locals_ - locals_[reference],
    )


def _directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    angle = rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)
