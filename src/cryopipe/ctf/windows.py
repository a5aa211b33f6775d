"""The side of the windows over which the spectrum of a micrograph is averaged."""

from __future__ import annotations

from cryopipe.errors import InputError

#: With a smaller side a window resolves too few rings for a fit in two dimensions.
_LEAST_WINDOW_PX = 128


def window_side(shape: tuple[int, ...], largest_px: int, pixel_size_A: float, *, step: str) -> int:
    """Return the largest even side that leaves two windows, overlapping by half, along each axis of a micrograph.

    With fewer than two by two windows there is no average, only one noisy periodogram. Two windows that overlap by half
    cover 1.5 sides, so the side is at most two thirds of the micrograph's shorter axis.

    Parameters
    ----------
    shape : tuple
        Shape of the micrograph at the pixel size of the fit, pixels.
    largest_px : int
        Largest side.
    pixel_size_A : float
        Pixel size of the fit.
    step : str
        Step that uses the windows. The error names it.

    Raises
    ------
    InputError
        The side is less than 128 pixels.
    """
    side = min(largest_px, 2 * (min(shape) // 3))
    if side < _LEAST_WINDOW_PX:
        raise InputError(
            f"a micrograph of {shape[1]} x {shape[0]} pixels of {pixel_size_A:.3g} Å has room only for windows of {side} "
            f"pixels, but {step} needs {_LEAST_WINDOW_PX}. Use less binned or larger micrographs, or leave this "
            "estimator out of the list of the CTF consensus."
        )
    return side
