"""STAR tables, MRC stacks, EER readouts: ``python -m benchmarks.whole.files [star|stack|eer] [GB] [folder]``.

The table has 100,000 particles in 22 columns. The stack has 256 x 256 float32 images. It is written by appending blocks and
dropped from the page cache. Then it is read at random places and from end to end. It is removed afterwards. For comparison,
starfile, mrcfile's memory map and imagecodecs' decoder do the same, without any check.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import imagecodecs
import mrcfile
import numpy as np
import pandas as pd
import starfile

from cryopipe.io.movie_files.eer import EER_LAYOUTS, render_events
from cryopipe.io.mrc import StackWriter, read_stack
from cryopipe.io.star import StarTable, make_optics, read_table, write_table

T = TypeVar("T")
ROWS, SIDE, BLOCK = 100_000, 256, 200
FLOATS = """rlnCoordinateX rlnCoordinateY rlnDefocusU rlnDefocusV rlnDefocusAngle rlnAngleRot rlnAngleTilt rlnAnglePsi
rlnOriginXAngst rlnOriginYAngst rlnCtfMaxResolution rlnCtfFigureOfMerit rlnAutopickFigureOfMerit rlnNormCorrection
rlnLogLikeliContribution rlnMaxValueProbDistribution crpScore"""
INTEGERS = "rlnClassNumber rlnRandomSubset rlnOpticsGroup"


def main(part: str = "", gigabytes: str = "10", folder: str = "") -> None:
    with tempfile.TemporaryDirectory(dir=folder or None) as name:
        if part in ("", "star"):
            star(Path(name))
        if part in ("", "stack"):
            stack(Path(name), float(gigabytes))
    if part in ("", "eer"):
        for upsampling in (1, 2, 4):
            eer(upsampling)


def star(folder: Path) -> None:
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "rlnImageName": [f"{i % 300 + 1:06d}@stacks/movie_{i // 300:05d}.mrcs" for i in range(ROWS)],
            "rlnMicrographName": [f"micrographs/movie_{i // 300:05d}.mrc" for i in range(ROWS)],
        }
        | {column: rng.normal(0, 1000, ROWS) for column in FLOATS.split()}
        | {column: np.ones(ROWS, np.int64) for column in INTEGERS.split()}
    )
    optics = make_optics(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, image_pixel_size_A=1.2, image_size=SIDE)
    table = StarTable("particles", optics, rows)
    path = folder / "particles.star"
    for _ in range(3):
        timed(f"write {ROWS} x {rows.shape[1]}", lambda: write_table(path, table))
        back = timed(f"read  {ROWS} x {rows.shape[1]}", lambda: read_table(path, "particles"))
        pd.testing.assert_frame_equal(back.rows, rows, check_dtype=False, check_exact=True)
    print(f"{path.stat().st_size / 1e6:.1f} MB")
    names = [*optics, *rows]
    timed("starfile.read, types by guess", lambda: starfile.read(path))
    timed("starfile.read, all as words", lambda: starfile.read(path, parse_as_string=names))
    timed("starfile.write, shortest floats", lambda: starfile.write({"particles": rows}, path, float_format=None))


def stack(folder: Path, gigabytes: float) -> None:
    count = int(gigabytes * 1e9 / (SIDE * SIDE * 4)) // BLOCK * BLOCK
    rng = np.random.default_rng(1)
    block = rng.normal(size=(BLOCK, SIDE, SIDE)).astype(np.float32)
    path = folder / "particles.mrcs"

    def write() -> None:
        with StackWriter(path, 1.2) as writer:
            for _ in range(count // BLOCK):
                writer.append(block)

    def read_all() -> None:
        for start in range(0, count, BLOCK):
            images, _ = read_stack(path, np.arange(start, start + BLOCK))
            assert images[0, 0, 0] == block[0, 0, 0]

    def read_some() -> None:
        for _ in range(50):
            indices = rng.integers(0, count, BLOCK)
            images, _ = read_stack(path, indices)
            assert np.array_equal(images[:, 0, 0], block[indices % BLOCK, 0, 0])

    def map_some() -> None:
        with mrcfile.mmap(path) as stack:
            for _ in range(50):
                assert np.isfinite(stack.data[rng.integers(0, count, BLOCK)]).all()

    def map_all() -> None:
        with mrcfile.mmap(path) as stack:
            for start in range(0, count, BLOCK):
                assert np.isfinite(stack.data[start : start + BLOCK].copy()).all()

    timed(f"write {count} images in blocks of {BLOCK}", write)
    for _ in range(2):
        forget(path)
        timed(f"read {50 * BLOCK} images at random places, from the disk", read_some)
        forget(path)
        timed(f"read all {count} in blocks, from the disk", read_all)
    timed(f"read {50 * BLOCK} images at random places, in part from memory", read_some)
    forget(path)
    timed(f"mrcfile.mmap: read {50 * BLOCK} images at random places, from the disk", map_some)
    forget(path)
    timed(f"mrcfile.mmap: read all {count} in blocks, from the disk", map_all)


def eer(upsampling: int, *, side: int = 4096, electrons: int = 60_000, repeats: int = 20) -> None:
    """Decode one readout of a camera again and again: compression 65001, 7-bit runs, 2 + 2 sub-pixel bits."""
    data = readout(side, electrons)
    image = np.zeros((side * upsampling,) * 2, np.uint8)
    layout = EER_LAYOUTS[65001]

    def ours() -> None:
        for _ in range(repeats):
            assert render_events(data, image, (side, side), layout, upsampling)

    def theirs() -> None:
        for _ in range(repeats):
            imagecodecs.eer_decode(data, image.shape, *layout[:3], superres=upsampling.bit_length() - 1, out=image)

    render_events(data, image, (side, side), layout, upsampling)
    what = f"{repeats} readouts of {side}² with {electrons} electrons, upsampling {upsampling}"
    timed(what, ours)
    timed(f"imagecodecs.eer_decode: {what}", theirs)


def readout(side: int, electrons: int) -> bytes:
    """Return a readout that imagecodecs decodes. It refuses some, depending on the bits left at the end."""
    for seed in range(100):
        places = np.sort(np.random.default_rng(seed).choice(side * side, electrons, replace=False))
        gaps = np.diff(places, prepend=-1, append=side * side) - 1
        # the least significant bit comes first
        runs = ["1" * 7 * (gap // 127) + f"{gap % 127:07b}"[::-1] for gap in gaps.tolist()]
        data = np.packbits(np.array([*"0110".join(runs)], dtype=np.uint8), bitorder="little").tobytes()
        with contextlib.suppress(RuntimeError):
            imagecodecs.eer_decode(data, (side, side), *EER_LAYOUTS[65001][:3])
            return data
    raise RuntimeError("imagecodecs refuses a hundred readouts")


def forget(path: Path) -> None:
    """Drop the file's pages from the page cache."""
    handle = os.open(path, os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def timed(what: str, work: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {wall:.2f} s, {cpu:.2f} s of CPU, peak {peak:.0f} MB", flush=True)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
