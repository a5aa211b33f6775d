"""Electron events of EER movies. An EER file is a TIFF in which each directory is one camera readout, as run lengths.

Source: Guo et al. 2020 (doi:10.1107/S205225252000929X). The layout is that of RELION's ``renderEER.cpp``. Bits are read from
the least significant one. A run of ``run_bits`` bits skips pixels. Its all-ones value skips as many pixels without an electron.
After any other value the sub-pixel bits of x and then y follow. There are three compressions: 65000 (8-bit runs, 4 sub-pixel
bits after every run, also after all ones), 65001 (7 bits, 4 sub-pixel bits only after electrons) and 65002 (numbers of bits in
tags 65007 to 65009).

tifffile finds the readouts. ``eer_decode`` of imagecodecs is not used: it does not know the first compression, it returns the
first part of a damaged readout as if it were complete, and it takes at least 2.5 times as long, since it visits all pixels of
each readout (``tests/io/movie_files/test_eer.py``, ``docs/benchmarks.md``).
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: ``{compression: (run bits, x bits, y bits, whether sub-pixel bits follow an all-ones run, too)}``.
EER_LAYOUTS = {65000: (8, 2, 2, True), 65001: (7, 2, 2, False)}
EER_VARIABLE = 65002
EER_COMPRESSIONS = (*EER_LAYOUTS, EER_VARIABLE)


def render_events(
    data: bytes,
    image: np.ndarray,
    shape: tuple[int, int],
    layout: tuple[int, int, int, bool],
    upsampling: int,
) -> bool:
    """Add the electrons of one camera readout to ``image``, in place.

    Parameters
    ----------
    data : bytes
        The compressed readout.
    image : ndarray of uint8 or uint16
        [y * upsampling, x * upsampling]. One count is added at each electron.
    shape : tuple of int
        Rows and columns of the camera.
    layout : tuple
        One of the values of `EER_LAYOUTS`.
    upsampling : int
        1, 2 or 4, at most what the sub-pixel bits resolve.

    Returns
    -------
    bool
        False if the runs do not end exactly after the last pixel (a damaged readout). Then ``image`` is not changed.
    """
    bits = np.frombuffer(data, dtype=np.uint8)
    run_bits, x_bits, y_bits, fixed = layout
    positions = np.empty(8 * bits.size // (run_bits + x_bits + y_bits) + 1, dtype=np.int64)
    symbols = np.empty(positions.size, dtype=np.uint8)
    count = _decode(bits, shape[0] * shape[1], run_bits, x_bits + y_bits, fixed, positions, symbols)
    if count < 0:
        return False
    _render(image, positions[:count], symbols[:count], shape[1], x_bits, y_bits, upsampling)
    return True


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _decode(
    data: np.ndarray,
    n_pixels: int,
    run_bits: int,
    symbol_bits: int,
    fixed: bool,
    positions: np.ndarray,
    symbols: np.ndarray,
) -> int:
    """Write positions and symbols of the electrons. Return their number, or -1 for a damaged readout."""
    skip = (1 << run_bits) - 1
    symbol_mask = (1 << symbol_bits) - 1
    word = np.uint64(0)
    available = 0
    byte = 0
    position = 0
    count = 0
    while True:
        while available <= 48 and byte < data.size:
            word |= np.uint64(data[byte]) << np.uint64(available)
            byte += 1
            available += 8
        if available < run_bits:
            return -1 if position != n_pixels else count
        run = int(word & np.uint64(skip))
        word >>= np.uint64(run_bits)
        available -= run_bits
        position += run
        if position >= n_pixels:
            return count if position == n_pixels else -1
        if run == skip and not fixed:
            continue
        if available < symbol_bits:
            return -1
        symbol = int(word & np.uint64(symbol_mask))
        word >>= np.uint64(symbol_bits)
        available -= symbol_bits
        if run == skip:
            continue
        positions[count] = position
        symbols[count] = symbol
        count += 1
        position += 1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _render(
    image: np.ndarray, positions: np.ndarray, symbols: np.ndarray, nx: int, x_bits: int, y_bits: int, upsampling: int
) -> None:
    """Count electrons at their (sub-)pixels. A sub-pixel coordinate is a signed number, so its top bit is inverted."""
    levels = 0
    while (1 << levels) < upsampling:
        levels += 1
    x_top = (1 << x_bits) >> 1
    y_top = (1 << y_bits) >> 1
    for i in range(positions.size):
        x = positions[i] % nx
        y = positions[i] // nx
        symbol = int(symbols[i])
        sub_x = (symbol & ((1 << x_bits) - 1)) ^ x_top
        sub_y = (symbol >> x_bits) ^ y_top
        # the grid resolves only the leading bits
        image[y * upsampling + (sub_y >> (y_bits - levels)), x * upsampling + (sub_x >> (x_bits - levels))] += 1
