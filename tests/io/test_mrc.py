from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE

from cryopipe.errors import InputError
from cryopipe.io.mrc import (
    StackWriter,
    format_image_name,
    image_size,
    parse_image_name,
    read_image,
    read_stack,
    read_volume,
    write_image,
    write_stack,
    write_volume,
)
from tests.io.realdata import REALDATA, needs_realdata

PIXEL_A = 0.495


def marked(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Return small counts with one large value off all symmetry axes of a rectangular image."""
    image = np.random.default_rng(1).integers(0, 15, shape).astype(dtype)
    image[..., 1, 2] = 100
    return image


def raw_file(path: Path, data: bytes, shape: tuple[int, int, int], mode: int, *, order: str = "<", **fields) -> Path:
    """Write an MRC file by hand, independently of the writer under test."""
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder(order))
    header["nz"], header["ny"], header["nx"] = shape
    header["mode"] = mode
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.tobytes() + data)
    return path


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
def test_an_image_comes_back_as_it_was_written_and_mrcfile_finds_it_valid(tmp_path, dtype):
    image = marked((5, 8), dtype)
    write_image(tmp_path / "i.mrc", image, PIXEL_A)
    back, pixel_A = read_image(tmp_path / "i.mrc")
    assert back.dtype == np.float32
    assert np.array_equal(back, image.astype(np.float32))
    assert pixel_A == pytest.approx(PIXEL_A, rel=1e-6)  # float32 cell
    with warnings.catch_warnings():
        # mrcfile warns of mode 0 only in writing
        assert mrcfile.validate(tmp_path / "i.mrc")
    assert np.array_equal(mrcfile.read(tmp_path / "i.mrc"), image)


def test_volumes_have_space_group_1_and_stacks_0(tmp_path):
    volume = marked((3, 5, 8))
    write_volume(tmp_path / "v.mrc", volume, PIXEL_A)
    write_stack(tmp_path / "s.mrcs", volume, PIXEL_A)
    for name, is_volume in (("v.mrc", True), ("s.mrcs", False)):
        assert mrcfile.validate(tmp_path / name)
        with mrcfile.open(tmp_path / name) as other:
            assert other.is_volume() == is_volume
            assert other.is_image_stack() != is_volume
            assert other.voxel_size.x == pytest.approx(PIXEL_A, rel=1e-6)
            assert np.array_equal(other.data, volume)
        assert image_size(tmp_path / name).is_volume == is_volume
        assert image_size(tmp_path / name).shape == (3, 5, 8)
    assert np.array_equal(read_volume(tmp_path / "v.mrc")[0], volume)
    assert np.array_equal(read_stack(tmp_path / "s.mrcs")[0], volume)


def test_images_of_a_stack_come_in_the_order_asked_for(tmp_path):
    stack = marked((6, 5, 8)) + np.arange(6, dtype=np.float32)[:, None, None]
    write_stack(tmp_path / "s.mrcs", stack, PIXEL_A)
    wanted = [5, 0, 3, 0]
    assert np.array_equal(read_stack(tmp_path / "s.mrcs", wanted)[0], stack[wanted])
    assert read_stack(tmp_path / "s.mrcs", [])[0].shape == (0, 5, 8)
    with pytest.raises(InputError, match=r"image 7 is asked for, but the stack has 6"):
        read_stack(tmp_path / "s.mrcs", [0, 6])


def test_half_precision_takes_half_the_space_and_keeps_three_digits(tmp_path):
    image = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    write_image(tmp_path / "h.mrc", image, PIXEL_A, half=True)
    assert (tmp_path / "h.mrc").stat().st_size == 1024 + 2 * image.size
    # 11 bits of mantissa: relative rounding at most 2^-11
    np.testing.assert_allclose(read_image(tmp_path / "h.mrc")[0], image, rtol=2**-11, atol=1e-7)


@pytest.mark.parametrize("nx", [7, 8])
def test_packed_4_bit_pixels_are_unpacked_low_half_first(tmp_path, nx):
    image = np.random.default_rng(2).integers(0, 16, (5, nx))
    padded = np.pad(image, ((0, 0), (0, nx % 2)))
    packed = (padded[:, 0::2] | padded[:, 1::2] << 4).astype(np.uint8)
    path = raw_file(tmp_path / "p.mrc", packed.tobytes(), (1, 5, nx), 101)
    assert np.array_equal(read_image(path)[0], image)


def imod_stamp(flags: int) -> bytes:
    extra = bytearray(84)
    extra[40:44] = (1146047817).to_bytes(4, "little")
    extra[44:48] = flags.to_bytes(4, "little")
    return bytes(extra)


@pytest.mark.parametrize(
    ("fields", "signed"),
    [
        ({"extra2": imod_stamp(1)}, True),
        ({"extra2": imod_stamp(0)}, False),
        ({"dmin": 0.0, "dmax": 200.0}, False),
        ({"dmin": -5.0, "dmax": 200.0}, True),
        ({}, True),
    ],
)
def test_bytes_are_signed_as_imod_stamps_them_or_as_their_range_says(tmp_path, fields, signed):
    data = np.arange(256, dtype=np.uint8)
    path = raw_file(tmp_path / "b.mrc", data.tobytes(), (1, 16, 16), 0, **fields)
    expected = data.view(np.int8) if signed else data
    assert np.array_equal(read_image(path)[0].ravel(), expected)


def test_files_of_the_other_byte_order_and_with_extended_headers_are_read(tmp_path):
    image = marked((5, 8), "int16")
    data = b"x" * 160 + image.astype(">i2").tobytes()
    path = raw_file(
        tmp_path / "big.mrc", data, (1, 5, 8), 1, order=">", nsymbt=160, mx=8, my=5, cella=(16.0, 10.0, 2.0)
    )
    back, pixel_A = read_image(path)
    assert np.array_equal(back, image)
    assert pixel_A == 2.0


def test_a_header_without_cell_gives_no_pixel_size(tmp_path):
    path = raw_file(tmp_path / "n.mrc", bytes(4 * 40), (1, 5, 8), 2)
    assert read_image(path)[1] is None


def test_pixels_that_are_not_square_are_refused(tmp_path):
    path = raw_file(tmp_path / "n.mrc", bytes(4 * 40), (1, 5, 8), 2, mx=8, my=5, cella=(8.0, 10.0, 1.0))
    with pytest.raises(InputError, match=r"n\.mrc: pixels of 1 x 2 Å"):
        read_image(path)


def test_float64_is_refused_before_a_file_is_made(tmp_path):
    for write, array, name in (
        (write_image, np.zeros((4, 4)), "i.mrc"),
        (write_volume, np.zeros((4, 4, 4)), "v.mrc"),
        (write_stack, np.zeros((4, 4, 4)), "s.mrcs"),
    ):
        with pytest.raises(InputError, match="float64 cannot be stored"):
            write(tmp_path / name, array, PIXEL_A)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.array([[1, np.nan]], np.float32), {}, "1 values are not finite"),
        (np.array([[1, 7e4]], np.float32), {"half": True}, "70000 is too large for float16"),
        (np.zeros((4, 4), np.int16), {"half": True}, "only floats can be stored as float16"),
        (np.zeros((2, 4, 4), np.float32), {}, "2 dimensions"),
        (np.zeros((0, 4), np.float32), {}, "no pixels"),
    ],
)
def test_what_mrc_cannot_hold_is_refused_and_no_file_is_made(tmp_path, array, options, message):
    with pytest.raises(InputError, match=message):
        write_image(tmp_path / "i.mrc", array, PIXEL_A, **options)
    assert list(tmp_path.iterdir()) == []


def test_suffix_and_pixel_size_must_be_right(tmp_path):
    image = np.zeros((4, 4), np.float32)
    with pytest.raises(InputError, match=r"must end in \.mrc"):
        write_image(tmp_path / "i.mrcs", image, PIXEL_A)
    with pytest.raises(InputError, match=r"must end in \.mrcs"):
        write_stack(tmp_path / "i.mrc", image[None], PIXEL_A)
    with pytest.raises(InputError, match="pixel size of 0 Å"):
        write_image(tmp_path / "i.mrc", image, 0)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_image(tmp_path / "i.mrc", marked((4, 4)), PIXEL_A)
    before = (tmp_path / "i.mrc").read_bytes()
    with pytest.raises(InputError):
        write_image(tmp_path / "i.mrc", np.full((4, 4), np.inf, np.float32), PIXEL_A)
    assert (tmp_path / "i.mrc").read_bytes() == before


def test_damaged_files_are_refused_with_name_and_numbers(tmp_path):
    write_image(tmp_path / "good.mrc", marked((5, 8)), PIXEL_A)
    data = (tmp_path / "good.mrc").read_bytes()
    bad = tmp_path / "bad.mrc"
    for content, message in (
        (b"", "empty"),
        (data[:500], "500 bytes, less than an MRC header"),
        (data[:-1], f"cut off: it has {len(data) - 1} bytes, but 1 x 5 x 8 pixels of mode 2 need {len(data)}"),
        (b"\xff" * 2000, "not an MRC file"),
        (data[:12] + (4).to_bytes(4, "little") + data[16:], "mode 4 is not supported"),
    ):
        bad.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.mrc") as caught:
            read_image(bad)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="the MRC file does not exist"):
        read_image(tmp_path / "none.mrc")


def test_values_that_are_not_finite_are_found_with_their_place(tmp_path):
    data = np.zeros((5, 8), "<f4")
    data[3, 6] = np.nan
    path = raw_file(tmp_path / "nan.mrc", data.tobytes(), (1, 5, 8), 2)
    with pytest.raises(InputError, match=r"nan\.mrc: 1 values are not finite, the first in section 1, row 3, column 6"):
        read_image(path)


def test_an_image_is_no_volume_and_a_stack_no_image(tmp_path):
    write_image(tmp_path / "i.mrc", marked((4, 4)), PIXEL_A)
    write_stack(tmp_path / "s.mrcs", marked((3, 4, 4)), PIXEL_A)
    with pytest.raises(InputError, match="only one section"):
        read_volume(tmp_path / "i.mrc")
    with pytest.raises(InputError, match="3 sections"):
        read_image(tmp_path / "s.mrcs")


def test_an_appended_stack_equals_one_written_at_once(tmp_path):
    stack = marked((6, 5, 8))
    with StackWriter(tmp_path / "a.mrcs", PIXEL_A) as writer:
        assert writer.append(stack[0]) == 0
        assert writer.append(stack[1:4]) == 1
        assert not (tmp_path / "a.mrcs").exists()
        assert writer.append(stack[4:]) == 4
    write_stack(tmp_path / "b.mrcs", stack, PIXEL_A)
    assert (tmp_path / "a.mrcs").read_bytes() == (tmp_path / "b.mrcs").read_bytes()
    assert mrcfile.validate(tmp_path / "a.mrcs")


def test_an_interrupted_stack_and_one_without_images_leave_no_file(tmp_path):
    with pytest.raises(InputError), StackWriter(tmp_path / "a.mrcs", PIXEL_A) as writer:  # noqa: PT012
        writer.append(marked((5, 8)))
        writer.append(np.zeros((5, 8)))
    with StackWriter(tmp_path / "b.mrcs", PIXEL_A):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_stack_takes_images_of_one_size_only(tmp_path):
    with StackWriter(tmp_path / "a.mrcs", PIXEL_A) as writer:
        writer.append(marked((5, 8)))
        with pytest.raises(InputError, match=r"\(4, 4\) float32 does not fit into a stack of \(5, 8\)"):
            writer.append(marked((4, 4)))
    with pytest.raises(InputError, match="not open"):
        StackWriter(tmp_path / "a.mrcs", PIXEL_A).append(marked((4, 4)))


def test_image_names_count_from_one():
    assert parse_image_name("000001@a/b.mrcs") == (0, Path("a/b.mrcs"))
    assert parse_image_name("a.mrc") == (0, Path("a.mrc"))
    assert parse_image_name(format_image_name(41, "x@y.mrcs")) == (41, Path("x@y.mrcs"))
    for wrong in ("0@a.mrcs", "-1@a.mrcs", "x@a.mrcs", "1@"):
        with pytest.raises(InputError, match="expected <number from 1>"):
            parse_image_name(wrong)
    with pytest.raises(InputError, match="negative"):
        format_image_name(-1, "a.mrcs")


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="no RELION on the PATH")
def test_relion_finds_the_size_pixel_size_and_mean_that_were_written(tmp_path):
    stack = marked((3, 6, 6))
    with StackWriter(tmp_path / "s.mrcs", PIXEL_A) as writer:
        writer.append(stack)
    run = subprocess.run(
        ["relion_image_handler", "--i", "s.mrcs", "--stats"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = run.stdout.splitlines()
    assert len(lines) == 3
    for line, image in zip(lines, stack, strict=True):
        assert "(x,y,z,n)= 6 x 6 x 1 x 1" in line
        assert "angpix = 0.495" in line
        # six digits are printed
        assert float(line.split("avg=")[1].split()[0]) == pytest.approx(image.mean(), rel=1e-5)


@pytest.mark.realdata
@needs_realdata
def test_real_micrographs_are_read_as_mrcfile_reads_them():
    for path in sorted((REALDATA / "empiar-10146").glob("*.mrc"))[:2]:
        image, pixel_A = read_image(path)
        assert image.shape == (1200, 1240)
        assert pixel_A == pytest.approx(1.5, rel=1e-6)
        assert np.array_equal(image, mrcfile.read(path))
    stack, pixel_A = read_stack(REALDATA / "interop" / "relion31.mrcs", [4, 1])
    # mrcfile refuses this file: RELION 2 wrote neither the map string nor a machine stamp
    values = np.fromfile(REALDATA / "interop" / "relion31.mrcs", "<f4", offset=1024).reshape(5, 256, 256)
    assert np.array_equal(stack, values[[4, 1]])
    assert pixel_A == 1.0
    # an extended header of 786,432 bytes stands before the pixels
    info = image_size(REALDATA / "micrographs" / "fei-extended.mrc")
    assert info.shape == (1, 3838, 3710)
    assert info.pixel_size_A == pytest.approx(0.85378, rel=1e-4)
