"""Minimum, maximum, mean and standard deviation of images that are added one by one, for MRC headers."""

from __future__ import annotations

import numpy as np


class Statistics:
    """Minimum, maximum, mean and standard deviation of images that are added one by one, in double precision."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0
        self.low, self.high = np.inf, -np.inf

    def add(self, images: np.ndarray) -> None:
        """Add images [n, y, x]."""
        # image by image, since a copy of a whole stack in double precision may not fit into memory
        for image in images:
            self.count += image.size
            self.sum += float(image.sum(dtype=np.float64))
            self.squares += float(np.square(image, dtype=np.float64).sum())
            self.low, self.high = min(self.low, float(image.min())), max(self.high, float(image.max()))

    def values(self) -> tuple[float, float, float, float]:
        """Return minimum, maximum, mean, standard deviation, or MRC2014's marks for unknown ones."""
        if self.count == 0:
            return 0.0, -1.0, -2.0, -1.0
        mean = self.sum / self.count
        return self.low, self.high, mean, max(0.0, self.squares / self.count - mean * mean) ** 0.5
