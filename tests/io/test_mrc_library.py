"""What mrcfile does where `io.mrc` does otherwise. A test that fails here says that code of ours may go."""

from __future__ import annotations

import signal
import subprocess
import sys
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryopipe.errors import InputError
from cryopipe.io.mrc import StackWriter, image_size, read_image, read_stack, write_image, write_volume
from tests.io.test_mrc import imod_stamp, raw_file

STAMPED = {"map": b"MAP ", "machst": (0x44, 0x44, 0, 0)}


def test_mrcfile_has_no_4_bit_pixels(tmp_path):
    path = raw_file(tmp_path / "p.mrc", bytes(20), (1, 5, 8), 101, **STAMPED)
    with pytest.raises(ValueError, match="Unrecognised mode '101'"):
        mrcfile.open(path)
    assert read_image(path)[0].shape == (5, 8)


def test_mrcfile_takes_all_bytes_for_signed(tmp_path):
    data = np.full(40, 200, np.uint8).tobytes()
    path = raw_file(tmp_path / "b.mrc", data, (1, 5, 8), 0, extra2=imod_stamp(0), **STAMPED)
    assert mrcfile.read(path).max() == -56
    assert read_image(path)[0].min() == 200


def test_mrcfile_misses_the_byte_order_of_a_file_without_a_stamp(tmp_path):
    # mode 0 is the same number in both orders
    path = raw_file(tmp_path / "big.mrc", bytes(range(40)), (1, 5, 8), 0, order=">", dmin=0, dmax=39)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert mrcfile.open(path, permissive=True, header_only=True).header.nx == 8 << 24
    assert np.array_equal(read_image(path)[0].ravel(), np.arange(40))


def test_mrcfile_trusts_a_header_that_promises_more_than_the_file_has(tmp_path):
    path = raw_file(tmp_path / "short.mrc", bytes(100), (9, 5, 8), 2, **STAMPED)
    assert mrcfile.open(path, header_only=True).header.nz == 9
    with pytest.raises(InputError, match="cut off"):
        image_size(path)


def test_the_stamp_of_imod_is_understood_in_both_byte_orders(tmp_path):
    data = np.full(40, 200, np.uint8).tobytes()
    stamp = np.zeros(21, ">i4")
    stamp[10:12] = 1146047817, 1
    path = raw_file(tmp_path / "b.mrc", data, (1, 5, 8), 0, order=">", extra2=stamp.tobytes(), dmin=0.0, dmax=200.0)
    assert read_image(path)[0].max() == -56


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
def test_a_compressed_file_is_refused_with_what_to_do(tmp_path, suffix):
    mrcfile.write(tmp_path / f"a.mrc{suffix}", np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32))
    with pytest.raises(InputError, match=r"compressed\. Unpack it"):
        image_size(tmp_path / f"a.mrc{suffix}")


def test_mrcfile_writes_the_time_of_day_and_statistics_of_single_precision(tmp_path):
    image = np.random.default_rng(1).normal(100_000, 1, (512, 512)).astype(np.float32)
    mrcfile.write(tmp_path / "a.mrc", image)
    theirs = mrcfile.open(tmp_path / "a.mrc", header_only=True).header
    assert bytes(theirs.label[0]).startswith(b"Created by mrcfile.py      ")
    assert theirs.rms != pytest.approx(image.std(dtype=np.float64), rel=1e-6)
    write_image(tmp_path / "b.mrc", image, 1.0)
    ours = mrcfile.open(tmp_path / "b.mrc", header_only=True).header
    assert ours.nlabl == 0
    assert bytes(ours.label.tobytes()).strip(b"\0") == b""
    # 16 digits of a difference of sums that agree in 10
    assert ours.rms == pytest.approx(image.std(dtype=np.float64), rel=1e-6)
    assert ours.dmean == np.float32(image.mean(dtype=np.float64))


def test_mrcfile_widens_bytes_and_takes_complex_numbers(tmp_path):
    for dtype in (np.uint8, np.complex64):
        mrcfile.write(tmp_path / "a.mrc", np.zeros((5, 8), dtype), overwrite=True)
        with pytest.raises(InputError, match="cannot be stored in MRC"):
            write_image(tmp_path / "b.mrc", np.zeros((5, 8), dtype), 1.0)


WRITE_AND_DIE = """
import os, sys, numpy as np, mrcfile
from cryopipe.io import mrc_write
volume = np.ones((8, 64, 64), np.float32)
written = 0
flush = mrcfile.mrcfile.MrcFile.flush
def die(self):
    self._iostream.write(b"half of it")
    self._iostream.flush()
    os._exit(9)
mrcfile.mrcfile.MrcFile.flush = die
if sys.argv[2] == "mrcfile":
    mrcfile.write(sys.argv[1], volume, overwrite=True)
else:
    mrc_write.write_volume(sys.argv[1], volume, 1.0)
"""


def test_a_killed_job_leaves_the_old_file_where_mrcfile_leaves_a_part(tmp_path):
    path = tmp_path / "v.mrc"
    for who, kept in (("mrcfile", False), ("cryopipe", True)):
        write_volume(path, np.zeros((2, 5, 8), np.float32), 1.0)
        before = path.read_bytes()
        run = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(path), who], check=False)
        assert run.returncode == 9
        assert (path.read_bytes() == before) == kept


CUT_WHILE_READ = """
import os, sys, mrcfile, numpy as np
from cryopipe.io import mrc, mrc_header
from cryopipe.errors import InputError
path = sys.argv[1]
if sys.argv[2] == "mrcfile":
    data = mrcfile.mmap(path).data
    os.truncate(path, 5000)
    print(data[-1].sum())
else:
    info = mrc_header.read_header(path)
    os.truncate(path, 5000)
    try:
        mrc.read_sections(info, [9])
    except InputError as error:
        print(error)
"""


def test_a_file_that_becomes_shorter_is_an_error_where_a_memory_map_kills_the_job(tmp_path):
    for who, code, message in (("mrcfile", -signal.SIGBUS, ""), ("cryopipe", 0, "the file became shorter")):
        written(tmp_path / "s.mrcs", 10)
        run = subprocess.run(
            [sys.executable, "-c", CUT_WHILE_READ, str(tmp_path / "s.mrcs"), who],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == code
        assert message in run.stdout


READ_ALL = """
import psutil, sys, mrcfile, numpy as np
from cryopipe.io import mrc
path = sys.argv[1]
def resident():
    return psutil.Process().memory_info().rss / 2**20
mrc.read_stack(path, [0]), np.isfinite(mrcfile.mmap(path).data[0]).all()
before = resident()
if sys.argv[2] == "mrcfile":
    stack = mrcfile.mmap(path)
    for i in range(400):
        stack.data[i].astype(np.float32)
else:
    for i in range(400):
        mrc.read_stack(path, [i])
print(resident() - before)
"""


def test_a_memory_map_counts_as_memory_what_it_has_read(tmp_path):
    written(tmp_path / "s.mrcs", 400)  # 100 MiB
    grown = {}
    for who in ("mrcfile", "cryopipe"):
        run = subprocess.run(
            [sys.executable, "-c", READ_ALL, str(tmp_path / "s.mrcs"), who], capture_output=True, text=True, check=True
        )
        grown[who] = float(run.stdout)
    # all of it, and a few images
    assert grown["mrcfile"] > 90
    assert grown["cryopipe"] < 10


def written(path: Path, count: int) -> None:
    with StackWriter(path, 1.0) as stack:
        for i in range(count):
            stack.append(np.full((256, 256), i, np.float32))
    assert read_stack(path, [count - 1])[0].min() == count - 1
