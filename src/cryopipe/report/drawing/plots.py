"""Plots of tables: motion of all movies, CTFs of all micrographs, pairs of estimators, residual gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryopipe.report.drawing.pictures import plot_source

Values = NDArray[np.float64]
_KEPT, _LOST, _LIMIT = "#2f6fb0", "#c0392b", "0.55"
#: Largest number of bins of a histogram. A choice: narrower bars would mostly show the noise of their counts.
_BINS = 40


def scatter(
    x: Values,
    y: Values,
    lost: NDArray[np.bool_],
    *,
    labels: tuple[str, str],
    limits: tuple[float | None, float | None] = (None, None),
) -> str:
    """Plot y against x. Items that were not accepted are red.

    Parameters
    ----------
    x, y : float64 ``[n]``
        Values. NaN if there is none.
    lost : bool ``[n]``
        Items that were not accepted.
    labels : (str, str)
        Labels of the axes x and y.
    limits : (float or None, float or None)
        Limits of x and y, drawn as dashed lines.
    """
    figure, axes = _axes()
    _points(axes, x, y, lost)
    if limits[0] is not None:
        axes.axvline(limits[0], color=_LIMIT, ls="--", lw=1)
    if limits[1] is not None:
        axes.axhline(limits[1], color=_LIMIT, ls="--", lw=1)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    return plot_source(figure)


def course(y: Values, lost: NDArray[np.bool_], *, labels: tuple[str, str], limit: float | None = None) -> str:
    """Plot a value in the order of the items. Items that were not accepted are red.

    Parameters
    ----------
    y : float64 ``[n]``
        Values. NaN if there is none.
    lost : bool ``[n]``
        Items that were not accepted.
    labels : (str, str)
        Labels of the axes x and y.
    limit : float, optional
        Limit of y, drawn as a dashed line.
    """
    return scatter(np.arange(1, len(y) + 1, dtype=np.float64), y, lost, labels=labels, limits=(None, limit))


def histogram(values: Mapping[str, Values], *, label: str, lines: Sequence[float] = ()) -> str:
    """Plot overlaid histograms between the 0.5th and 99.5th percentiles, with dashed lines at ``lines``."""
    figure, axes = _axes()
    finite = {name: v[np.isfinite(v)] for name, v in values.items()}
    together = np.concatenate([*finite.values(), np.zeros(0)])
    if together.size:
        low, high = np.percentile(together, [0.5, 99.5])
        bins = np.linspace(low, max(high, low + 1e-6), min(_BINS, max(5, 2 * round(together.size**0.5))) + 1)
        for name, v in finite.items():
            # values outside are counted in the outermost bars, so that none is left out
            axes.hist(np.clip(v, bins[0], bins[-1]), bins=bins.tolist(), histtype="stepfilled", alpha=0.45, label=name)
    for line in lines:
        axes.axvline(line, color=_LIMIT, ls="--", lw=1)
    axes.set(xlabel=label, ylabel="count")
    if len(finite) > 1:
        axes.legend(fontsize=8, frameon=False)
    return plot_source(figure)


def against(
    first: Values, second: Values, lost: NDArray[np.bool_], *, names: tuple[str, str], half_width_A: float
) -> str:
    """Plot the defocus of two estimators against each other in µm, with the band in which they agree.

    Parameters
    ----------
    first, second : float64 ``[n]``
        Mean defocus from each, Å.
    lost : bool ``[n]``
        Micrographs that were not accepted.
    names : (str, str)
        Names of the two estimators.
    half_width_A : float
        Half width of the band, Å.
    """
    figure, axes = _axes(square=True)
    _points(axes, first / 1e4, second / 1e4, lost)
    both = np.concatenate([first, second])
    both = both[np.isfinite(both)] / 1e4
    if both.size:
        room = 0.05 * max(float(np.ptp(both)), 0.05)
        ends = np.array([both.min() - room, both.max() + room])
        axes.plot(ends, ends, color=_LIMIT, lw=0.8)
        axes.fill_between(
            ends, ends - half_width_A / 1e4, ends + half_width_A / 1e4, color="0.5", alpha=0.18, lw=0, label="agree"
        )
        axes.set(xlim=tuple(ends), ylim=tuple(ends))
    axes.set(xlabel=f"defocus by {names[0]} (µm)", ylabel=f"defocus by {names[1]} (µm)")
    return plot_source(figure)


def defects(positions: NDArray[np.int64], kinds: Sequence[str], shape: tuple[int, int]) -> str:
    """Plot the positions (y, x) [n, 2] of the defects of a camera of ``shape`` (y, x), by kind."""
    figure, axes = _axes(square=True)
    for kind, colour in (("dead", _KEPT), ("hot", _LOST)):
        chosen = positions[np.array([k == kind for k in kinds], dtype=bool)]
        if len(chosen):
            axes.plot(chosen[:, 1], chosen[:, 0], ".", ms=3, color=colour, label=f"{len(chosen)} {kind}")
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(-0.5, shape[0] - 0.5), xlabel="x (px)", ylabel="y (px)", aspect="equal")
    if len(positions):
        axes.legend(fontsize=8, loc="upper right")
    return plot_source(figure)


def _points(axes: Axes, x: Values, y: Values, lost: NDArray[np.bool_]) -> None:
    size = 5.0 if len(x) <= 200 else 2.5
    for chosen, colour in ((~lost, _KEPT), (lost, _LOST)):
        axes.plot(x[chosen], y[chosen], "o", ms=size, mew=0, color=colour, alpha=0.75 if len(x) <= 200 else 0.5)


def _axes(*, square: bool = False) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.0, 3.6) if square else (4.6, 3.0))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes
