"""Movies with known motion at every place, for the benchmark `movies.py`.

The large movie is semi-synthetic. Each electron of a real micrograph is put into a random frame, at a random place in its
pixel. It is moved along a smooth track and by a bend, and counted with the probability with which the camera's pixel counts.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numba import njit

from cryopipe.io.movies import write_movie
from cryopipe.io.mrc import read_image, write_image

REAL = Path(__file__).resolve().parents[2] / "shared/realdata/micrographs/fei-extended.mrc"
#: Grey value of one electron in the micrograph, and pixel size of the micrograph.
COUNTS_PER_ELECTRON = 106.0
PIXEL_A = 0.85378
#: Margin in pixels from which electrons move into the frame: more than the motion.
MARGIN = 32


def track(n: int) -> np.ndarray:
    """Motion [n, 2] of the specimen: fast at first, then a slow drift."""
    t = np.arange(n) * 50.0 / n
    return np.stack([12.0 * (1 - np.exp(-t / 4.0)) + 0.05 * t, -8.0 * (1 - np.exp(-t / 6.0))], axis=1)


def course(n: int) -> np.ndarray:
    """Amount [n] of the bend in each frame, zero in the reference frame."""
    t = np.arange(n) * 50.0 / n
    return 14.0 * (np.exp(-t[n // 2] / 8.0) - np.exp(-t / 8.0))


def bend(i: int, n: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Local motion [2, a, b] of the specimen at rows y and columns x (-1/2 to 1/2): 8 px from edge to edge."""
    v, u = y[:, None], x[None, :]
    return course(n)[i] * np.stack([0.6 * u + v**2, u * v - 0.6 * v])


@njit(cache=True)
def scatter(counts, margin, moves, amounts, sensitivity, frames):
    """Give every electron of ``counts`` [y, x] (padded by ``margin``) a frame and a place in it."""
    n, ny, nx = frames.shape
    state = np.uint64(88172645463325252)
    unit = 1.0 / 16777216.0
    for row in range(counts.shape[0]):
        y = row - margin
        v = y / ny - 0.5
        for column in range(counts.shape[1]):
            x = column - margin
            u = x / nx - 0.5
            for _ in range(counts[row, column]):
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                mixed = state * np.uint64(2685821657736338717)
                frame = int((mixed >> np.uint64(48)) * np.uint64(n) >> np.uint64(16))
                within_x = (mixed & np.uint64(0xFFFFFF)) * unit
                within_y = ((mixed >> np.uint64(24)) & np.uint64(0xFFFFFF)) * unit
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                chance = (state * np.uint64(2685821657736338717) >> np.uint64(40)) * unit
                a = amounts[frame]
                to_x = int(np.floor(x + within_x + moves[frame, 0] + a * (0.6 * u + v * v)))
                to_y = int(np.floor(y + within_y + moves[frame, 1] + a * (u * v - 0.6 * v)))
                if 0 <= to_x < nx and 0 <= to_y < ny and chance < sensitivity[to_y, to_x]:
                    frames[frame, to_y, to_x] += 1


def sensitivity_of(shape: tuple[int, int]) -> np.ndarray:
    """Return the probability [y, x] that a pixel counts: 3 % from pixel to pixel, 2 % from column to column."""
    rng = np.random.default_rng(3)
    pattern = 0.9 * (1 + 0.03 * rng.standard_normal(shape)) * (1 + 0.02 * rng.standard_normal(shape[1]))
    return np.clip(pattern, 0.5, 1.0)


def write_large(movie: Path, gain: Path, n: int) -> None:
    """Write the semi-synthetic movie, and its gain as from another program: rotated by 180°."""
    image, _ = read_image(REAL)
    counts = np.pad(np.maximum(np.rint(image / COUNTS_PER_ELECTRON), 0).astype(np.int64), MARGIN, mode="reflect")
    frames = np.zeros((n, *image.shape), dtype=np.uint8)
    sensitivity = sensitivity_of(image.shape)
    scatter(counts, MARGIN, track(n) - track(n)[n // 2], course(n), sensitivity, frames)
    write_movie(movie, iter(frames), PIXEL_A)
    write_image(gain, (1.0 / sensitivity).astype(np.float32)[::-1, ::-1].copy(), PIXEL_A)


def write_super(movie: Path, n: int) -> None:
    """Write a super-resolution movie of noise with twice the sampling of the large one. Only its size matters."""
    image, _ = read_image(REAL)
    shape = tuple(2 * length for length in image.shape)
    frames = [np.random.default_rng(i).poisson(0.2, shape).astype(np.uint8) for i in range(2)]
    write_movie(movie, (frames[i % 2] for i in range(n)), PIXEL_A / 2)


def in_a_child(work: Callable[..., None], *arguments: object) -> None:
    """Make a movie in another process, so that its memory is not counted."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} failed with exit code {process.exitcode}")


def phantom_frames(n: int, size: int) -> Iterator[np.ndarray]:
    """Yield n frames uint8 [size, size] of blobs under Poisson noise, moved along :func:`track`."""
    rng = np.random.default_rng(2)
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    noise = np.fft.rfft2(rng.standard_normal((size, size)))
    specimen = np.fft.irfft2(noise * np.exp(-0.5 * (k / 0.05) ** 2), s=(size, size))
    specimen *= 0.1 / specimen.std()
    for x, y in np.rint(track(n)).astype(int):
        yield rng.poisson(np.roll(2.0 * (1.0 + specimen), (y, x), axis=(0, 1)).clip(0)).astype(np.uint8)
