from __future__ import annotations

import shutil
import subprocess
import tracemalloc
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from cryopipe.errors import InputError
from cryopipe.io.movies import open_movie, write_movie

PIXEL_A = 0.495
#: Every file cut off by this much has lost data or directories.
CUTS = (1, 10, 100, 1000)


def frames(n: int = 5, shape: tuple[int, int] = (70, 90), dtype: str = "uint8") -> list[np.ndarray]:
    """Return counts with one bright pixel off all symmetry axes of a rectangular frame, elsewhere in each frame."""
    rng = np.random.default_rng(3)
    movie = [rng.poisson(0.5, shape).astype(dtype) for _ in range(n)]
    for i, frame in enumerate(movie):
        frame[1, 2 + i] = 200
    return movie


def same(movie, expected) -> bool:
    return len(movie) == len(expected) and all(np.array_equal(a, b) for a, b in zip(movie, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("m.tif", "uint8"),
        ("m.tif", "uint16"),
        ("m.tiff", "float32"),
        ("m.mrcs", "uint16"),
        ("m.mrc", "int16"),
        ("m.mrcs", "float32"),
        ("m.mrcs", "float16"),
    ],
)
def test_frames_come_back_as_they_were_written_in_the_order_of_the_file(tmp_path, name, dtype):
    expected = frames(dtype=dtype)
    assert write_movie(tmp_path / name, iter(expected), PIXEL_A) == 5
    with open_movie(tmp_path / name) as movie:
        assert movie.shape == (5, 70, 90)
        assert movie.dtype == np.dtype(dtype)
        # float32 in MRC headers, a quotient of integers in TIFF
        assert movie.pixel_size_A == pytest.approx(PIXEL_A, rel=1e-6)
        assert same(movie, expected)
        assert np.array_equal(movie.read_frame(3), expected[3])


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_tiff_movies_of_other_writers_are_read(tmp_path, compression, byteorder, bigtiff):
    expected = np.stack(frames(dtype="uint16"))
    tifffile.imwrite(
        tmp_path / "m.tif",
        expected,
        compression=compression,
        byteorder=byteorder,
        bigtiff=bigtiff,
        photometric="minisblack",
    )
    with open_movie(tmp_path / "m.tif") as movie:
        assert same(movie, expected)
        assert movie.pixel_size_A is None  # a printer's resolution is none


def test_mrc_movies_of_mrcfile_are_read(tmp_path):
    expected = np.stack(frames(dtype="int16")).clip(-128, 100).astype(np.int8)
    expected[0, 0, 0] = -5
    with mrcfile.new(tmp_path / "m.mrcs") as other:
        other.set_data(expected)
        other.set_image_stack()
        other.voxel_size = PIXEL_A
    with open_movie(tmp_path / "m.mrcs") as movie:
        # the header's minimum says that bytes are signed
        assert same(movie, expected)


def test_tifffile_reads_what_is_written(tmp_path):
    expected = frames()
    write_movie(tmp_path / "m.tif", expected, PIXEL_A)
    assert np.array_equal(tifffile.imread(tmp_path / "m.tif"), np.stack(expected))
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.LZW


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="no RELION on the PATH")
def test_relion_reads_the_frames_and_pixel_size_of_a_tiff_movie(tmp_path):
    expected = frames()
    write_movie(tmp_path / "m.tif", expected, PIXEL_A)
    run = subprocess.run(
        ["relion_image_handler", "--i", "m.tif", "--stats"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = run.stdout.splitlines()
    for line, frame in zip(lines, expected, strict=True):
        assert "(x,y,z,n)= 90 x 70 x 1 x 1" in line
        assert "angpix = 0.495" in line
        assert float(line.split("avg=")[1].split()[0]) == pytest.approx(frame.mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["m.tif", "m.mrcs"])
def test_threads_read_ahead_and_keep_the_order(tmp_path, name):
    expected = frames(12, dtype="uint16")
    write_movie(tmp_path / name, expected, PIXEL_A)
    with open_movie(tmp_path / name) as movie:
        assert same(list(movie.iterate(threads=2)), expected)


@pytest.mark.parametrize("name", ["m.tif", "m.mrcs"])
@pytest.mark.parametrize("threads", [1, 2])
def test_iterating_a_movie_holds_a_few_frames_in_memory(tmp_path, name, threads):
    n, shape = 40, (512, 640)
    write_movie(tmp_path / name, frames(n, shape, "uint16"), PIXEL_A)
    frame_bytes = 2 * shape[0] * shape[1]
    with open_movie(tmp_path / name) as movie:
        movie.read_frame(0)  # imports of codecs are no part of the measurement
        tracemalloc.start()
        total = sum(int(frame[1].sum()) for frame in movie.iterate(threads=threads))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert total > 0
    # a frame, its compressed bytes, and the one that is being made; with threads as many again for each
    assert peak < (1 + 3 * threads) * frame_bytes < n * frame_bytes / 2


@pytest.mark.parametrize("name", ["m.tif", "m.mrcs"])
@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_off_movie_is_an_error_and_never_a_shorter_movie(tmp_path, name, cut):
    write_movie(tmp_path / name, frames(dtype="uint16"), PIXEL_A)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:-cut])
    with pytest.raises(InputError, match=name), open_movie(tmp_path / name) as movie:
        list(movie)


def test_a_tiff_movie_cut_anywhere_is_an_error(tmp_path):
    write_movie(tmp_path / "m.tif", frames(), PIXEL_A)
    data = (tmp_path / "m.tif").read_bytes()
    for length in range(0, len(data), 97):
        (tmp_path / "m.tif").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"m\.tif"), open_movie(tmp_path / "m.tif") as movie:
            list(movie)


def test_tifffile_takes_a_cut_off_movie_for_a_shorter_one(tmp_path):
    """The reason for walking the directories ourselves (`io/movie_files/tiff_pages.py`)."""
    write_movie(tmp_path / "m.tif", frames(), PIXEL_A)
    data = (tmp_path / "m.tif").read_bytes()
    (tmp_path / "m.tif").write_bytes(data[: len(data) // 2])
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        assert 0 < len(tiff.pages) < len(frames())
    with pytest.raises(InputError, match="is outside of it"):
        open_movie(tmp_path / "m.tif")


def test_damaged_compressed_data_are_an_error_that_names_the_frame(tmp_path):
    write_movie(tmp_path / "m.tif", frames(), PIXEL_A)
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        offset = tiff.pages[2].dataoffsets[0]
    data = bytearray((tmp_path / "m.tif").read_bytes())
    data[offset : offset + 60] = b"\xff" * 60
    (tmp_path / "m.tif").write_bytes(data)
    with open_movie(tmp_path / "m.tif") as movie:
        movie.read_frame(1)
        with pytest.raises(InputError, match=r"m\.tif: frame 3 cannot be decoded"):
            movie.read_frame(2)


def test_frames_of_other_size_type_or_colour_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "m.tif") as writer:
        for shape in ((70, 90), (70, 91)):
            writer.write(np.zeros(shape, np.uint8), photometric="minisblack", contiguous=False)
    with pytest.raises(InputError, match=r"frame 2 is \(70, 91\) uint8, but frame 1 is \(70, 90\)"):
        open_movie(tmp_path / "m.tif")
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((70, 90, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="not grey"):
        open_movie(tmp_path / "c.tif")
    tifffile.imwrite(tmp_path / "d.tif", np.zeros((70, 90), np.uint64), photometric="minisblack")
    with pytest.raises(InputError, match="uint64 are not supported"):
        open_movie(tmp_path / "d.tif")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.tif", b"", "empty"),
        ("m.tif", b"hello world", "not a TIFF file"),
        ("m.tif", b"II*\0\0\0\0\0", "has no image"),
        ("m.mrcs", b"", "empty"),
        ("m.png", b"x", "is not a movie format"),
        ("m.eer", b"", "empty"),
    ],
)
def test_other_files_are_refused_with_their_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_movie(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["m.tif", "m.mrcs", "m.eer"])
def test_a_missing_movie_is_named(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}: the .* does not exist"):
        open_movie(tmp_path / name)


def test_a_frame_that_does_not_exist_is_refused(tmp_path):
    write_movie(tmp_path / "m.tif", frames(), PIXEL_A)
    with (
        open_movie(tmp_path / "m.tif") as movie,
        pytest.raises(InputError, match="frame 6 is asked for, but the movie has 5"),
    ):
        movie.read_frame(5)


def test_values_that_are_not_finite_are_found(tmp_path):
    bad = np.zeros((2, 4, 4), np.float32)
    bad[1, 2, 3] = np.inf
    tifffile.imwrite(tmp_path / "m.tif", bad, photometric="minisblack")
    with (
        open_movie(tmp_path / "m.tif") as movie,
        pytest.raises(InputError, match="frame 2 has values that are not finite"),
    ):
        list(movie)


@pytest.mark.parametrize(
    ("name", "movie", "message"),
    [
        ("m.tif", [np.zeros((4, 4), np.float64)], "float64"),
        ("m.mrcs", [np.zeros((4, 4), np.uint8)], "uint8 cannot be stored in MRC"),
        ("m.tif", [np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)], "frame 2"),
        ("m.tif", [], "no frames"),
        ("m.mrcs", [], "no frames"),
        ("m.eer", frames(1), "written as"),
    ],
)
def test_a_movie_that_cannot_be_written_leaves_no_file(tmp_path, name, movie, message):
    with pytest.raises(InputError, match=message):
        write_movie(tmp_path / name, movie, PIXEL_A)
    assert list(Path(tmp_path).iterdir()) == []
