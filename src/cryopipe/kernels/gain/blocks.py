"""Sums over blocks of pixels, and values between the centres of blocks: a smooth background at the cost of a copy."""

from __future__ import annotations

import numpy as np

from cryopipe.kernels._dispatch import check, check_on_cpu
from cryopipe.kernels.cpu.gain import blocks as cpu


def block_sums(image: np.ndarray, good: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of good values and the numbers of good pixels of blocks of ``step`` pixels, float32.

    ``image`` float32 and ``good`` bool are ``[y, x]``. Blocks at the far edges may be smaller.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype or shape, or an array of the GPU.
    """
    check_on_cpu(image=image, good=good)
    check("image", image, np.float32, (None, None))
    check("good", good, np.bool_, image.shape)
    values, weights = cpu.block_sums(image, good, step)
    return values, weights


def interpolate(coarse: np.ndarray, shape: tuple[int, int], step: int) -> np.ndarray:
    """Return an image of ``shape`` (y, x), linear between the centres of blocks of ``step`` pixels, float32.

    ``coarse`` float32 ``[blocks, blocks]`` are the values at the centres. Beyond the outermost centres they are constant.

    Raises
    ------
    TypeError, ValueError
        As :func:`block_sums`.
    """
    check_on_cpu(coarse=coarse)
    check("coarse", coarse, np.float32, (None, None))
    result: np.ndarray = cpu.interpolate(coarse, *shape, step)
    return result
