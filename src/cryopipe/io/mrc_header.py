"""Facts about an MRC file without its pixels. mrcfile reads the header; here it is checked and interpreted.

When mrcfile 1.5.4 reads only a header, it does not compare it with the size of the file. It always takes mode 0 for signed
bytes. And it takes the byte order from the machine stamp, which files of RELION 2 and older programs do not have
(``tests/io/test_mrc_library.py``). So sizes are checked here. Mode 0 is unsigned if IMOD's stamp marks it so. Without a stamp
it is unsigned if the header's minimum and maximum can only be those of unsigned bytes. The byte order is the one in which the
dimensions make sense. Mode 101 of IMOD (two 4-bit pixels per byte) is known here, but not in mrcfile.
MRC2014: Cheng et al. 2015, doi:10.1016/j.jsb.2015.04.002.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

from cryopipe.errors import InputError

#: Length of the header, by MRC2014.
HEADER_BYTES = 1024
#: IMOD's mode of two 4-bit pixels per byte.
PACKED_4_BIT = 101
#: The letters IMOD as a little-endian number, and that bit of the flags after it which marks bytes as signed (from IMOD's
#: description of its MRC format).
_IMOD_STAMP = 1146047817
_IMOD_SIGNED_BYTES = 1
_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", PACKED_4_BIT: "u1"}


@dataclass(frozen=True)
class MrcInfo:
    """Facts of an MRC header.

    Attributes
    ----------
    path : Path
        The file.
    shape : tuple of int
        Sections, rows, columns: (z, y, x) or (n, y, x).
    mode : int
        MRC mode.
    dtype : numpy.dtype
        Type of the pixels after unpacking, in the file's byte order.
    pixel_size_A : float or None
        Pixel size along x, Å. None if the header does not state it (cell or sampling 0).
    is_volume : bool
        Space group 1 and more than one section (space group 0 marks images and stacks).
    data_offset : int
        Byte at which the pixels start.
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
        The file is missing, empty, compressed or not an MRC file, its mode is not supported, or it is shorter than its
        header states.
    """
    path = Path(path)
    header, size = _mrcfile_header(path)
    nx, ny, nz = (int(header[n]) for n in ("nx", "ny", "nz"))
    mode, extended = int(header["mode"]), int(header["nsymbt"])
    if mode not in _TYPES:
        raise InputError(f"{path}: MRC mode {mode} is not supported. Convert it to mode 2 (float32) or 6 (uint16).")
    dtype = np.dtype(_TYPES[mode]).newbyteorder(header["mode"].dtype.byteorder)
    if mode == 0 and not _signed_bytes(header):
        dtype = np.dtype("u1")
    row_bytes = (nx + 1) // 2 if mode == PACKED_4_BIT else nx * dtype.itemsize
    expected = HEADER_BYTES + extended + nz * ny * row_bytes
    if size < expected:
        raise InputError(
            f"{path}: the file is cut off: it has {size} bytes, but {nz} x {ny} x {nx} pixels of mode {mode} "
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


def _mrcfile_header(path: Path) -> tuple[np.ndarray, int]:
    """Return the header from mrcfile, in the byte order in which it makes sense, and the size of the file."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path}: the MRC file does not exist. Correct the path.") from None
    if size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes). Copy it again.")
    if size < HEADER_BYTES:
        raise InputError(f"{path}: the file has {size} bytes, less than an MRC header (1024). Copy it again.")
    try:
        with mrcfile.open(path, header_only=True) as mrc:
            header, compressed = mrc.header, type(mrc) is not mrcfile.mrcfile.MrcFile
    except (ValueError, OSError):
        header, compressed = _permissive_header(path), False
    if compressed:
        raise InputError(f"{path}: the file is compressed. Unpack it with gunzip or bunzip2.")
    for dtype in (header.dtype, header.dtype.newbyteorder()):
        found = np.frombuffer(header.tobytes(), dtype=dtype).reshape(())
        if 0 <= found["mode"] <= 1000 and all(0 < found[n] < 2**20 for n in ("nx", "ny")) and 0 < found["nz"] < 2**24:
            return found, size
    raise InputError(
        f"{path}: this is not an MRC file: its first 16 bytes are not dimensions in either byte order. Copy it again."
    )


def _permissive_header(path: Path) -> np.ndarray:
    """Return the header of a file without the string MAP or a machine stamp."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            with mrcfile.open(path, header_only=True, permissive=True) as mrc:
                return mrc.header
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: this is not an MRC file, or it is damaged ({error}). Copy it again.") from None


def _signed_bytes(header: np.ndarray) -> bool:
    stamp, flags = np.frombuffer(header["extra2"].tobytes()[40:48], dtype=header["nx"].dtype)
    if int(stamp) == _IMOD_STAMP:
        return bool(int(flags) & _IMOD_SIGNED_BYTES)
    # As in IMOD for files without its stamp. MRC2014 prescribes signed bytes, which fits headers without statistics.
    return bool(header["dmin"] < 0 or header["dmax"] < 128)


def _pixel_size_A(header: np.ndarray, path: Path) -> float | None:
    sizes = []
    for axis, samples in (("x", "mx"), ("y", "my")):
        cell, n = float(header["cella"][axis]), int(header[samples])
        if not (np.isfinite(cell) and cell > 0 and n > 0):
            return None
        sizes.append(cell / n)
    if abs(sizes[0] - sizes[1]) > 1e-3 * sizes[0]:
        raise InputError(f"{path}: pixels of {sizes[0]:.5g} x {sizes[1]:.5g} Å are not square. Mend the header's cell.")
    return sizes[0]
