"""Figures of the report. Each is returned as the source of an <img>, which contains the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from cryopipe.report.drawing.pictures import array_source, photograph_source, plot_source

mpl.use("Agg")


def fsc_plot(curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], *, threshold: float) -> str:
    """Plot FSC curves ``{label: (spatial frequency 1/Å, FSC)}`` with the threshold."""
    figure, axes = _axes(6.4, 3.6)
    for label, (frequency, curve) in curves.items():
        axes.plot(frequency, curve, label=label, lw=1.5)
    axes.axhline(threshold, color="0.5", lw=0.8, ls="--")
    axes.axhline(0, color="0.8", lw=0.8)
    axes.set(ylim=(-0.1, 1.05), xlim=(0, None), ylabel="FSC", xlabel="resolution (Å)")
    ticks = [t for t in axes.get_xticks() if t > 0]
    axes.set_xticks(ticks, [f"{1 / t:.1f}" for t in ticks])
    axes.legend(fontsize=8, frameon=False)
    return plot_source(figure)


def slices(volume: NDArray[np.float32], pixel_size_A: float, title: str) -> str:
    """Show the central slices across z, y, x and the projection along z."""
    centre = volume.shape[0] // 2
    half = _half_extent(volume)
    part = slice(max(centre - half, 0), centre + half)
    views = [volume[centre, part, part], volume[part, centre, part], volume[part, part, centre]]
    figure = Figure(figsize=(9.6, 2.7))
    names = ["z", "y", "x"]
    low, high = np.percentile(volume[part, part, part], [0.5, 99.8])
    for i, view in enumerate(views):
        axes = figure.add_subplot(1, 4, i + 1)
        axes.imshow(view, cmap="gray", vmin=low, vmax=high, origin="lower")
        axes.set_title(f"{title}, slice across {names[i]}", fontsize=8)
        axes.axis("off")
        if i == 0:
            _scale_bar(axes, pixel_size_A)
    axes = figure.add_subplot(1, 4, 4)
    axes.imshow(volume[part, part, part].sum(0), cmap="gray", origin="lower")
    axes.set_title("projection along z", fontsize=8)
    axes.axis("off")
    return photograph_source(figure)


def picks_picture(
    micrograph: NDArray[np.float32],
    pixel_size_A: float,
    picks: NDArray[np.float64],
    kept: NDArray[np.bool_],
    diameter_A: float,
) -> str:
    """Show a micrograph, low-passed to about 15 Å, with its picks: kept ones green, others red.

    Parameters
    ----------
    micrograph : float32 ``[y, x]``
        Image of the micrograph.
    pixel_size_A : float
        Å.
    picks : float64 ``[n, 2]``
        Positions (x, y) in pixels.
    kept : bool ``[n]``
        Which picks are kept.
    diameter_A : float
        Diameter of the circles, Å.
    """
    view = ndimage.gaussian_filter(micrograph, 6.0 / pixel_size_A)
    low, high = np.percentile(view, [0.5, 99.5])
    figure = Figure(figsize=(5.2, 5.2 * micrograph.shape[0] / micrograph.shape[1]))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(view, cmap="gray", vmin=low, vmax=high, origin="lower")
    from matplotlib.collections import EllipseCollection

    for chosen, colour in ((kept, "lime"), (~kept, "red")):
        size = np.full(int(chosen.sum()), diameter_A / pixel_size_A)
        axes.add_collection(
            EllipseCollection(
                size, size, np.zeros_like(size), offsets=picks[chosen], units="xy", facecolors="none",
                edgecolors=colour, linewidths=0.9, transOffset=axes.transData,
            )
        )  # fmt: skip
    axes.set(xlim=(-0.5, micrograph.shape[1] - 0.5), ylim=(-0.5, micrograph.shape[0] - 0.5))
    axes.axis("off")
    return photograph_source(figure, dpi=90, margin_inches=0)


def class_picture(average: NDArray[np.float32], *, size: int = 96) -> str:
    """Return one class average as a small grey picture."""
    zoomed = ndimage.zoom(average, size / average.shape[0], order=1)
    low, high = np.percentile(zoomed, [0.5, 99.8])
    return array_source((np.clip((zoomed - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)[::-1])


def history_plot(rows: Sequence[Mapping[str, float]], columns: Sequence[str]) -> str:
    """Plot columns of an iteration history, one panel for each."""
    figure = Figure(figsize=(3.0 * len(columns), 2.5))
    for i, column in enumerate(columns):
        axes = figure.add_subplot(1, len(columns), i + 1)
        axes.plot([row[column] for row in rows], ".-")
        axes.set(title=column, xlabel="iteration")
        axes.title.set_fontsize(9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return plot_source(figure)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _scale_bar(axes: Axes, pixel_size_A: float) -> None:
    axes.plot([4, 4 + 50 / pixel_size_A], [5, 5], color="w", lw=2)
    axes.text(4, 9, "50 Å", color="w", fontsize=7)


def _half_extent(volume: NDArray[np.float32]) -> int:
    """Return half the side of the cube around the centre that contains the strong densities of the particle."""
    n = volume.shape[0]
    projection = np.abs(volume).max(0)
    y, x = np.indices(projection.shape) - n // 2
    strong = projection > 0.25 * np.percentile(projection, 99.5)
    return int(min(n // 2, np.percentile(np.hypot(y, x)[strong], 99) * 1.2 + 4)) if strong.any() else n // 2
