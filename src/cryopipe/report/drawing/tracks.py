"""Motion of a movie as line drawings (inline SVG): track of the whole frame, and tracks of patches across the frame.

Both show the shifts that are applied, as in the motion file. The specimen moved in the opposite direction.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cryopipe.io.star import read_blocks
from cryopipe.movies.motion.local_alignment import LocalMotion
from cryopipe.movies.motion.star import Motion

#: Side and margin of a drawing and height of a line of text, in units of the SVG, which is scaled to the page.
_SIDE = 200.0
_MARGIN = 14.0
_WORDS = 10.0
#: Largest number of patches and points that are drawn. They are enough for any movie, because the field is smooth.
_PATCHES, _POINTS = 4, 24
_FIRST, _LAST, _LINE = "#b3261e", "#17804a", "#27507f"


def read_local(path: Path) -> LocalMotion | None:
    """Return the local field of a motion file, or None if it has none.

    Only the field itself is used here, so its residual and number of patches are set to zero.
    """
    blocks = read_blocks(path)
    if "local_spline" not in blocks:
        return None
    table, general = blocks["local_spline"], blocks["general"].iloc[0]
    index = table[["crpSplineAxis", "crpSplineT", "crpSplineY", "crpSplineX"]].to_numpy(np.int64)
    coefficients = np.zeros(index.max(axis=0) + 1)
    coefficients[tuple(index.T)] = table["crpSplineCoefficient"].to_numpy(np.float64)
    shape = (int(general["rlnImageSizeZ"]), int(general["rlnImageSizeY"]), int(general["rlnImageSizeX"]))
    return LocalMotion(coefficients, shape, shape[0] // 2, 0.0, (0, 0))


def global_track(motion: Motion) -> Markup:
    """Draw the track of the whole frame in Å with a scale bar. The first frame is red, the last one green."""
    track = motion.shifts_px * motion.pixel_size_A
    low, high = track.min(axis=0), track.max(axis=0)
    extent = max(float((high - low).max()), 1e-3)
    scale = (_SIDE - 2 * _MARGIN - 16) / extent
    points = _SIDE / 2 + (track - (low + high) / 2) * scale * (1, -1)
    bar = _round_length(extent / 3)
    parts = [_path(points, 1.4), *(_dot(p, 1.6, _LINE) for p in points[1:-1])]
    parts += [_dot(points[0], 3.5, _FIRST), _dot(points[-1], 3.5, _LAST), _bar(bar * scale, f"{bar:g} Å")]
    label = f"Track of the whole frame over {len(track)} frames, extent {extent:.1f} Å"
    return _drawing(parts, (_SIDE, _SIDE), label)


def patch_tracks(motion: Motion, local: LocalMotion) -> Markup:
    """Draw the enlarged sum of global and local motion at points across the frame. Grey lines are the global part."""
    n, ny, nx = local.shape
    factor = (_SIDE - 2 * _MARGIN) / max(ny, nx)
    y, x = ((np.arange(_PATCHES) + 0.5) * length / _PATCHES for length in (ny, nx))
    frames = np.unique(np.linspace(0, min(n, len(motion.shifts_px)) - 1, _POINTS).astype(int))
    field = np.stack([local.at(int(f), y, x) for f in frames]) * motion.pixel_size_A  # [frames, 2, y, x]
    whole = motion.shifts_px[frames] * motion.pixel_size_A
    total = field + whole[:, :, None, None]
    # all tracks are moved by the same vector, so that their middle, not their start, is at the point
    origin = (whole.min(axis=0) + whole.max(axis=0)) / 2
    reach = max(float(np.abs(total - origin[:, None, None]).max()), 1e-3)
    enlarged = 0.45 * min(ny, nx) / _PATCHES * factor / reach  # drawing units per Å
    width, height = nx * factor + 2 * _MARGIN, ny * factor + 2 * _MARGIN + _WORDS
    parts = [
        f'<rect x="{_MARGIN:g}" y="{_MARGIN:g}" width="{nx * factor:.1f}" height="{ny * factor:.1f}" fill="none" '
        'stroke="#c3cad4"/>'
    ]
    for i, j in np.ndindex(_PATCHES, _PATCHES):
        at = np.array([_MARGIN + x[j] * factor, height - _MARGIN - _WORDS - y[i] * factor])
        own = at + (total[:, :, i, j] - origin) * enlarged * (1, -1)
        parts += [_path(at + (whole - origin) * enlarged * (1, -1), 1.0, "#b9c1cc"), _path(own, 1.3)]
        parts.append(_dot(own[0], 1.8, _FIRST))
    share = enlarged / factor * motion.pixel_size_A
    largest = float(np.hypot(*(field - field[0]).transpose(1, 0, 2, 3)).max())
    label = (
        f"Tracks at {_PATCHES} x {_PATCHES} points, enlarged {share:.0f} times; largest local motion {largest:.1f} Å"
    )
    return _drawing(parts, (width, height), label, caption=f"× {share:.0f}; local part up to {largest:.1f} Å")


def _drawing(parts: list[str], size: tuple[float, float], label: str, caption: str = "") -> Markup:
    words = f'<text x="{_MARGIN:g}" y="{size[1] - 3:.0f}">{caption}</text>' if caption else ""
    return Markup(  # all parts are numbers formatted above
        f'<svg viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img" aria-label="{label}">{"".join(parts)}{words}</svg>'
    )


def _path(points: NDArray[np.float64], width: float, colour: str = _LINE) -> str:
    # steps are shorter to write than places; as differences of rounded places they do not add up rounding errors
    places = np.round(points, 1)
    steps = "".join(f"l{x:.3g} {y:.3g}" for x, y in np.round(np.diff(places, axis=0), 1))
    start = f"M{places[0, 0]:g} {places[0, 1]:g}"
    return f'<path d="{start}{steps}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'


def _dot(point: NDArray[np.float64], radius: float, colour: str) -> str:
    return f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius:g}" fill="{colour}"/>'


def _bar(length: float, words: str) -> str:
    y = _SIDE - 5
    return (
        f'<path d="M5 {y:g}h{length:.1f}" stroke="#1d2430" stroke-width="2"/>'
        f'<text x="{length + 10:.0f}" y="{y + 3:g}">{words}</text>'
    )


def _round_length(length: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten below ``length``."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1, 2, 5) if step * power <= length)
