"""Pictures of a movie's alignment: power spectra before and after, trajectory, thumbnail of the micrograph."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import PIL.Image
import scipy.fft
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy import ndimage

from cryopipe.io.atomic import atomic_path
from cryopipe.movies.motion.local_alignment import LocalMotion

#: Side and overlap of the windows whose power is averaged. Choices: larger windows resolve more rings but average less, and
#: with more overlap the tapered borders of the windows count more, for more time.
_WINDOW_PX = 384
_OVERLAP = 0.4
#: Places along a side whose tracks are drawn.
_PLACES = 6
# Matplotlib's text layout keeps global state.
_DRAWING = threading.Lock()


def mean_periodogram(image: np.ndarray, window_px: int = _WINDOW_PX) -> np.ndarray:
    """Return the mean power of overlapping windows (40 %) of ``image`` [y, x], zero frequency at the centre."""
    size = min(window_px, *image.shape) // 2 * 2
    step = max(1, round(size * (1 - _OVERLAP)))
    profile = np.hanning(size + 2)[1:-1].astype(np.float32)
    apodisation = profile[:, None] * profile[None, :]
    total = np.zeros((size, size // 2 + 1))
    starts = [list(range(0, n - size + 1, step)) for n in image.shape]
    for y in starts[0]:
        for x in starts[1]:
            tile = image[y : y + size, x : x + size].astype(np.float32)
            spectrum = scipy.fft.rfft2((tile - tile.mean()) * apodisation)
            total += spectrum.real**2 + spectrum.imag**2
    half = total / (len(starts[0]) * len(starts[1]))
    full = np.empty((size, size))
    full[:, : size // 2 + 1] = half
    mirror = np.roll(half[::-1], 1, axis=0)
    full[:, size // 2 + 1 :] = mirror[:, size // 2 - 1 : 0 : -1]
    return np.fft.fftshift(full)


def composite_spectrum(unaligned: np.ndarray, aligned: np.ndarray) -> np.ndarray:
    """Return a flattened log spectrum [n, n] float32: left half unaligned, right half aligned.

    The smooth background is subtracted from each half, so that Thon rings are visible at all radii. Both have the same
    grey scale.
    """
    halves = []
    for image in (unaligned, aligned):
        log_power = np.log(mean_periodogram(image) + 1e-30)
        halves.append(log_power - ndimage.uniform_filter(log_power, 41, mode="nearest"))
    middle = halves[0].shape[1] // 2
    both = np.concatenate([halves[0][:, :middle], halves[1][:, middle:]], axis=1)
    return ndimage.gaussian_filter(both, 0.7).astype(np.float32)


def save_grey(path: Path, image: np.ndarray, *, low: float = 1.0, high: float = 99.5) -> None:
    """Write an image as a grey PNG, atomically.

    Parameters
    ----------
    path : Path
        The file.
    image : ndarray ``[y, x]``
        The picture, row 0 at the top.
    low, high : float
        Percentiles of its values that become black and white.
    """
    black, white = np.percentile(image, [low, high])
    grey = np.clip((image - black) * (255.999 / max(white - black, 1e-12)), 0, 255).astype(np.uint8)
    with atomic_path(path) as temporary:
        PIL.Image.fromarray(grey).save(temporary, format="PNG")


def thumbnail(micrograph: np.ndarray, size_px: int = 512) -> np.ndarray:
    """Return ``micrograph`` [y, x] averaged over blocks to at most ``size_px`` on the longer side."""
    block = max(1, int(np.ceil(max(micrograph.shape) / size_px)))
    ny, nx = (n // block for n in micrograph.shape)
    small: np.ndarray = micrograph[: ny * block, : nx * block].reshape(ny, block, nx, block).mean(axis=(1, 3))
    return small


def save_trajectory(
    path: Path, shifts_px: np.ndarray, pixel_size_A: float, title: str, local: LocalMotion | None = None
) -> None:
    """Plot the shifts ``[n, 2]`` (x, y; to apply) in Å, as a track whose start is marked and against the frame number.

    With a local field, a third plot shows the enlarged tracks of places across the frame: global plus local motion.

    Parameters
    ----------
    path : Path
        The PNG file.
    shifts_px : ndarray ``[n, 2]``
        Global shifts (x, y) to apply to the frames, unbinned pixels.
    pixel_size_A : float
        Unbinned pixel size of the movie.
    title : str
        Title of the track.
    local : LocalMotion, optional
        Local field of the movie.
    """
    track = shifts_px * pixel_size_A
    with _DRAWING:
        figure = Figure(figsize=(8 if local is None else 12, 3.6))
        FigureCanvasAgg(figure)
        plane, time, *rest = figure.subplots(1, 2 if local is None else 3)
        # a layout engine would draw everything twice
        figure.subplots_adjust(
            left=0.6 / figure.get_figwidth(), right=1 - 0.6 / figure.get_figwidth(), bottom=0.15, wspace=0.4
        )
        plane.plot(track[:, 0], track[:, 1], "-", color="0.6", linewidth=1)
        plane.scatter(track[:, 0], track[:, 1], c=np.arange(len(track)), cmap="viridis", s=14, zorder=3)
        plane.plot(*track[0], "o", mfc="none", mec="red", ms=10, label="first frame")
        plane.set(xlabel="x shift [Å]", ylabel="y shift [Å]", title=title)
        plane.set_aspect("equal", adjustable="datalim")
        plane.legend(fontsize="small")
        frames = np.arange(1, len(track) + 1)
        time.plot(frames, track[:, 0], ".-", label="x")
        time.plot(frames, track[:, 1], ".-", label="y")
        time.set(xlabel="frame", ylabel="shift [Å]")
        other = time.secondary_yaxis("right", functions=(lambda a: a / pixel_size_A, lambda p: p * pixel_size_A))
        other.set_ylabel("shift [px]")
        time.legend(fontsize="small")
        if local is not None:
            _draw_patches(rest[0], shifts_px, local)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=90)


def _draw_patches(axes: Axes, shifts_px: np.ndarray, local: LocalMotion) -> None:
    """Draw the tracks of 6 x 6 places of the frame: with the local motion, and (grey) with the global motion alone."""
    n, ny, nx = local.shape
    y, x = ((np.arange(_PLACES) + 0.5) * length / _PLACES for length in (ny, nx))
    bend = np.stack([local.at(t, y, x) for t in range(n)]).transpose(0, 2, 3, 1)  # [n, y, x, 2]
    total = bend + shifts_px[:, None, None]
    total -= total[0]
    scale = 0.75 * min(ny, nx) / _PLACES / max(float(np.abs(total).max()), 1e-9)
    whole = (shifts_px - shifts_px[0]) * scale
    places = np.stack(np.meshgrid(x, y), axis=-1)  # [y, x, 2]
    tracks = places + scale * total
    straight = np.broadcast_to(places + whole[:, None, None], tracks.shape)
    for lines, colour in ((straight, "0.8"), (tracks, "C0")):
        axes.add_collection(
            LineCollection(list(lines.reshape(n, -1, 2).transpose(1, 0, 2)), colors=colour, linewidths=0.9)
        )
    axes.plot(*places.reshape(-1, 2).T, "o", color="red", ms=2.5)
    axes.set(xlim=(0, nx), ylim=(0, ny), xlabel="x [px]", ylabel="y [px]", title=f"over the frame, × {scale:.0f}")
    axes.set_aspect("equal")
