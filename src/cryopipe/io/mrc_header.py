"""The 1024-byte header of MRC files: facts about a file without reading its data, and headers for files to write.

MRC2014 (Cheng et al. 2015, doi:10.1016/j.jsb.2015.04.002) and IMOD's extensions: mode 101 holds two 4-bit pixels a byte
(the first in the low half, rows padded to whole bytes), and mode 0 is unsigned where IMOD's stamp says so or, without
a stamp, where the header's minimum and maximum can only be those of unsigned bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from cryopipe.errors import InputError

HEADER_BYTES = 1024
_IMOD_STAMP = 1146047817
_IMOD_SIGNED_BYTES = 1
_MODE_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", 101: "u1"}
_TYPE_MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}
PACKED_4_BIT = 101


@dataclass(frozen=True)
class MrcInfo:
    """What an MRC header says.

    Attributes
    ----------
    path : Path
        The file.
    shape : tuple of int
        Sections, rows, columns: [z, y, x] or [n, y, x].
    mode : int
        MRC mode.
    dtype : numpy.dtype
        Type of the pixels after unpacking, in the file's byte order.
    pixel_size_A : float or None
        Along x, Å; None where the header leaves it open (cell or sampling 0).
    is_volume : bool
        Space group 1 and more than one section (space group 0 marks images and stacks).
    data_offset : int
        Where the pixels start, bytes.
    row_bytes, section_bytes : int
        Length of a row and a section in the file.
    """

    path: Path
    shape: tuple[int, int, int]
    mode: int
    dtype: np.dtype
    pixel_size_A: float | None
    is_volume: bool
    data_offset: int
    row_bytes: int
    section_bytes: int


def read_header(path: str | Path) -> MrcInfo:
    """Read and check the header of an MRC file.

    Raises
    ------
    InputError
        The file is missing, empty, no MRC file, of an unsupported mode, or shorter than its header promises.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            raw = stream.read(HEADER_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: no such MRC file.") from None
    if size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes). Copy it again.")
    if len(raw) < HEADER_BYTES:
        raise InputError(f"{path}: {size} bytes are less than an MRC header (1024). Copy it again.")
    order = _byte_order(raw, path)
    header = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order))[0]
    nx, ny, nz = (int(header[n]) for n in ("nx", "ny", "nz"))
    mode, extended = int(header["mode"]), int(header["nsymbt"])
    if mode not in _MODE_TYPES:
        raise InputError(f"{path}: MRC mode {mode} is not supported; convert it to mode 2 (float32) or 6 (uint16).")
    if extended < 0:
        raise InputError(f"{path}: the header gives an extended header of {extended} bytes. The file is damaged.")
    dtype = np.dtype(_MODE_TYPES[mode]).newbyteorder(order)
    if mode == 0 and not _signed_bytes(header):
        dtype = np.dtype("u1")
    row_bytes = (nx + 1) // 2 if mode == PACKED_4_BIT else nx * dtype.itemsize
    expected = HEADER_BYTES + extended + nz * ny * row_bytes
    if size < expected:
        raise InputError(
            f"{path}: cut off: {size} bytes, but {nz} x {ny} x {nx} pixels of mode {mode} "
            f"need {expected}. Copy it again."
        )
    return MrcInfo(
        path=path,
        shape=(nz, ny, nx),
        mode=mode,
        dtype=dtype,
        pixel_size_A=_pixel_size_A(header, path),
        is_volume=int(header["ispg"]) == 1 and nz > 1,
        data_offset=HEADER_BYTES + extended,
        row_bytes=row_bytes,
        section_bytes=ny * row_bytes,
    )


def mode_of(dtype: np.dtype) -> int | None:
    """Return the MRC mode that stores ``dtype`` as it is, or None."""
    return _TYPE_MODES.get(np.dtype(dtype).name)


def make_header(
    shape: tuple[int, int, int], mode: int, pixel_size_A: float, *, volume: bool, statistics: tuple[float, ...]
) -> bytes:
    """Return the 1024 bytes of a little-endian MRC2014 header.

    Parameters
    ----------
    shape : tuple of int
        Sections, rows, columns.
    mode : int
        One of those that `mode_of` gives.
    pixel_size_A : float
        The same along all axes, Å.
    volume : bool
        A volume (space group 1, one cell of all sections) or images (space group 0, a cell of one section).
    statistics : tuple of float
        Minimum, maximum, mean, standard deviation.
    """
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder("<"))
    nz, ny, nx = shape
    header["nx"], header["ny"], header["nz"], header["mode"] = nx, ny, nz, mode
    mz = nz if volume else 1
    header["mx"], header["my"], header["mz"] = nx, ny, mz
    header["cella"] = tuple(np.float32(n * pixel_size_A) for n in (nx, ny, mz))
    header["cellb"] = (90.0, 90.0, 90.0)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = statistics
    header["ispg"] = 1 if volume else 0
    header["nversion"] = 20141
    header["map"] = b"MAP "
    header["machst"] = (0x44, 0x44, 0, 0)
    # No program name or date in the labels: the same data give the same bytes.
    return header.tobytes()


def _byte_order(raw: bytes, path: Path) -> Literal["<", ">"]:
    """Return "<" or ">": the order in which mode and dimensions make sense (old files have no machine stamp)."""
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for order in orders:
        nx, ny, nz, mode = struct.unpack(f"{order}4i", raw[:16])
        if 0 <= mode <= 1000 and 0 < nx < 2**20 and 0 < ny < 2**20 and 0 < nz < 2**24:
            return order
    raise InputError(f"{path}: not an MRC file: its first 16 bytes are no dimensions in either byte order.")


def _signed_bytes(header: np.void) -> bool:
    stamp, flags = np.frombuffer(header["extra2"].tobytes()[40:48], dtype=header["nx"].dtype)
    if int(stamp) == _IMOD_STAMP:
        return bool(int(flags) & _IMOD_SIGNED_BYTES)
    # As IMOD does for files without its stamp; MRC2014 says signed, which fits headers without statistics.
    return bool(header["dmin"] < 0 or header["dmax"] < 128)


def _pixel_size_A(header: np.void, path: Path) -> float | None:
    sizes = []
    for axis, samples in (("x", "mx"), ("y", "my")):
        cell, n = float(header["cella"][axis]), int(header[samples])
        if not (np.isfinite(cell) and cell > 0 and n > 0):
            return None
        sizes.append(cell / n)
    if abs(sizes[0] - sizes[1]) > 1e-3 * sizes[0]:
        raise InputError(f"{path}: pixels of {sizes[0]:.5g} x {sizes[1]:.5g} Å are not square. Mend the header's cell.")
    return sizes[0]
