"""The side of the windows that a micrograph's spectrum is averaged over."""

from __future__ import annotations

from cryopipe.errors import InputError

#: Below this side a window resolves too few rings for a fit in two dimensions.
_LEAST_WINDOW_PX = 128


def window_side(shape: tuple[int, ...], largest_px: int, pixel_size_A: float, *, step: str) -> int:
    """Return the largest even side that leaves two windows, overlapping by half, along each axis of a micrograph.

    Fewer than two by two windows have no average, only one periodogram with its noise. Two that overlap by half cover
    1.5 sides, so the side is at most two thirds of the micrograph's shorter axis.

    Parameters
    ----------
    shape : tuple
        Of the micrograph at the pixel size of the fit, pixels.
    largest_px : int
        The side is not larger than this.
    pixel_size_A : float
        Of the fit.
    step : str
        Whose windows these are; the error names it.

    Raises
    ------
    InputError
        That is less than 128 pixels.
    """
    side = min(largest_px, 2 * (min(shape) // 3))
    if side < _LEAST_WINDOW_PX:
        raise InputError(
            f"a micrograph of {shape[1]} x {shape[0]} pixels of {pixel_size_A:.3g} Å has room for windows of {side} "
            f"pixels only, {step} needs {_LEAST_WINDOW_PX}. Use less binned or larger micrographs, or leave this "
            "estimator out of the list of the CTF consensus."
        )
    return side
