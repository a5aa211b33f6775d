"""The workspace in which a fused loop of poses holds a block of Fourier pixels.

All columns of a block lie in one flat workspace, at offsets that the compiler knows: so it proves by itself that they do
not overlap, and vectorises every loop. While a block is worked on, the cube's cache lines of the next one are on their way.

The functions of this folder share these arguments:

flat : float32 [2 V], radius : int
    Half cube of the reference, V voxels of radius ``radius`` in grid steps, flat.
a : float32 [3, 3]
    Pose matrix times the padding.
row, column : int32 [BLOCK]
    Row of x-lines, and column along x, of each cell of a block.
turn_x, turn_y : float
    Shift over the box.
w : float32 [WORKSPACE]
    The workspace of a block; its columns begin at the offsets of this module.
"""

from __future__ import annotations

import numpy as np

#: samples of a block. Sums over a block run in float32, sums of blocks in float64: rounding stays near 1e-6
BLOCK = 128
#: for sums: their terms may be reordered, or they could not vectorise; NaN and infinity keep their meaning
REDUCE = {"contract", "nsz", "arcp", "reassoc"}
#: columns of the workspace: 8 corners (re, im), fractions, half of the cube read, frequency, C/sigma, dC/dchi/sigma,
#: centred data / sigma, rotation columns u and v, interpolated value Y, up to five further columns, shifted CTF phase
FRACTION, FREQUENCY, GAIN, SLOPE = 16 * BLOCK, 20 * BLOCK, 22 * BLOCK, 23 * BLOCK
DATA, U, V, Y, EXTRA, TURN = 24 * BLOCK, 26 * BLOCK, 28 * BLOCK, 30 * BLOCK, 32 * BLOCK, 42 * BLOCK
WORKSPACE = 46 * BLOCK
ONE = np.float32(1)
