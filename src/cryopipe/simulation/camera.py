"""The camera: a gain with structure and defects, its reference file in an orientation of its own, and counting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Counts of a hot pixel: this multiple of a frame's mean, and at least so many electrons per frame. Chosen so that they
#: stand out of the counts of a single frame, as those of real cameras do.
_HOT_RATE, _HOT_LEAST = 6.0, 2.0
#: Dead pixels per million, and as many hot ones: the order of what gain references of current cameras mark. At least three,
#: so that a small frame has some.
_DEFECTS_PER_MILLION, _DEFECTS_LEAST = 20, 3


@dataclass(frozen=True)
class SimulatedCamera:
    """A counting camera.

    Attributes
    ----------
    sensitivity : float32 [y, x]
        Share of the electrons that a pixel counts, mean 1; 0 where it is dead.
    hot : bool [y, x]
        Pixels that count electrons which did not arrive.
    orientation : str
        ``[mirror_]rot<angle>``: the gain reference fits the movies after mirroring it along x where the name has ``mirror``
        and turning it by ``numpy.rot90`` angle / 90 times.
    """

    sensitivity: NDArray[np.float32]
    hot: NDArray[np.bool_]
    orientation: str

    @property
    def reference(self) -> NDArray[np.float32]:
        """The gain reference as it is stored: factors to multiply with, 0 at dead pixels, in an orientation of its own."""
        alive = self.sensitivity > 0
        correction = np.where(alive, 1 / np.where(alive, self.sensitivity, 1), 0).astype(np.float32)
        turned = np.rot90(correction, -(int(self.orientation.rsplit("rot", 1)[1]) // 90))
        return np.ascontiguousarray(turned[:, ::-1] if self.orientation.startswith("mirror") else turned)

    def count(self, exposure: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the counts of one frame for the electrons per pixel ``exposure`` [y, x] that reach the camera."""
        expected = exposure * self.sensitivity
        expected[self.hot] += max(_HOT_RATE * float(exposure.mean(dtype=np.float64)), _HOT_LEAST)
        return np.minimum(rng.poisson(expected), 255).astype(np.uint8)


def draw_camera(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> SimulatedCamera:
    """Draw a camera of ``shape`` (y, x): a gain of deviation ``sigma`` with rows, columns and read-out blocks, and defects."""
    height, width = shape
    pixels = rng.normal(0, sigma, shape)
    pixels += rng.normal(0, sigma / 3, (height, 1)) + rng.normal(0, sigma / 3, (1, width))
    blocks = rng.normal(0, sigma / 2, (2, 4))
    pixels += np.repeat(np.repeat(blocks, -(-height // 2), axis=0)[:height], -(-width // 4), axis=1)[:, :width]
    sensitivity = 1 + np.clip(pixels, -0.5, 0.5)
    sensitivity /= sensitivity.mean()
    count = max(_DEFECTS_LEAST, round(_DEFECTS_PER_MILLION * 1e-6 * height * width))
    places = rng.permutation(height * width)[: 2 * count]
    sensitivity.ravel()[places[:count]] = 0
    hot = np.zeros(shape, dtype=bool)
    hot.ravel()[places[count:]] = True
    # The orientation is never that of the movies: finding it is part of the exercise.
    orientations = [f"{mirror}rot{angle}" for mirror in ("", "mirror_") for angle in (0, 90, 180, 270)][1:]
    return SimulatedCamera(sensitivity.astype(np.float32), hot, str(rng.choice(orientations)))
