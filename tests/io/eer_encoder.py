"""A slow, plain encoder of EER files, after the published layout and independent of the decoder under test."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

#: Rows, columns of the camera; x, y in camera pixels; sub-pixel x, y as indices from the low side.
Event = tuple[int, int, int, int]


def encode_readout(
    events: Sequence[Event], shape: tuple[int, int], layout: tuple[int, int, int], *, fixed: bool
) -> bytes:
    """Return the bytes of one readout; ``layout`` is the bits of a run, of a sub-pixel x and of a sub-pixel y."""
    run_bits, x_bits, y_bits = layout
    largest = (1 << run_bits) - 1
    bits: list[int] = []

    def put(value: int, width: int) -> None:
        bits.extend((value >> i) & 1 for i in range(width))

    def put_run(length: int) -> None:
        while length >= largest:
            put(largest, run_bits)
            if fixed:
                put(0b0101, x_bits + y_bits)  # present and without meaning
            length -= largest
        put(length, run_bits)

    ny, nx = shape
    position = 0
    for x, y, sub_x, sub_y in sorted(events, key=lambda e: e[1] * nx + e[0]):
        put_run(y * nx + x - position)
        # sub-pixels are signed: 0 is the middle, so the top bit of the index is inverted
        put(sub_x ^ ((1 << x_bits) >> 1), x_bits)
        put(sub_y ^ ((1 << y_bits) >> 1), y_bits)
        position = y * nx + x + 1
    put_run(ny * nx - position)
    bits += [0] * (-len(bits) % 8)
    return bytes(sum(bit << i for i, bit in enumerate(bits[k : k + 8])) for k in range(0, len(bits), 8))


def write_eer(
    path: Path, readouts: Sequence[bytes], shape: tuple[int, int], compression: int, layout: tuple[int, int, int]
) -> None:
    """Write a classic TIFF whose directories hold ``readouts``."""
    out = bytearray(b"II*\0\0\0\0\0")
    pointer = 4
    for data in readouts:
        offset = len(out)
        out += data + bytes(len(data) % 2)
        tags = [(256, 4, shape[1]), (257, 4, shape[0]), (258, 3, 1), (259, 3, compression), (262, 3, 1)]
        tags += [(273, 4, offset), (277, 3, 1), (278, 4, shape[0]), (279, 4, len(data))]
        if compression == 65002:
            tags += [(65007 + i, 3, bits) for i, bits in enumerate(layout)]
        out[pointer : pointer + 4] = struct.pack("<I", len(out))
        out += struct.pack("<H", len(tags))
        for code, kind, value in tags:
            out += struct.pack("<HHII", code, kind, 1, value)
        pointer = len(out)
        out += bytes(4)
    path.write_bytes(bytes(out))
