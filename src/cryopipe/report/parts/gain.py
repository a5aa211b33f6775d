"""Gain of the camera: pictures of estimate and residual, scores of the sixteen orientations, defects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopipe.io.mrc import read_image
from cryopipe.report.drawing import plots
from cryopipe.report.drawing.pictures import blocks, grey_source
from cryopipe.report.run_files import RunFiles

#: Side of a picture in pixels. A choice: a larger picture shows more single pixels of the centre, but makes the page larger.
_SIDE = 320
#: Largest number of pixels of the residual that are used for its histogram.
_SAMPLE = 500_000
#: Number of defects listed on the page. The file lists all.
_LISTED = 200


def gain_page(run: RunFiles, gain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows about the gain. ``gain`` is the summary of the step."""
    # one at a time, since the gain of a large camera in super-resolution has 0.4 GB
    pictures = _views(read_image(run.path("gain_estimate"))[0], "estimate")
    residual = read_image(run.path("gain_residual"))[0]
    pictures += _views(residual, "residual")
    listed = pd.read_csv(run.path("defects"), sep="\t")
    positions = listed[["y", "x"]].to_numpy(np.int64).reshape(-1, 2)
    kinds = [str(kind) for kind in listed["type"]]
    return {
        "source": gain.get("source", ""),
        "reason": gain.get("reason", ""),
        "numbers": [
            (name.replace("_", " "), f"{value:.5g}" if isinstance(value, float) else str(value))
            for name, value in gain.items()
            if name not in ("source", "reason") and isinstance(value, str | int | float)
        ]
        + [(f"residual, {name.replace('_', ' ')}", f"{value:.5g}") for name, value in _residual_numbers(gain)],
        "scores": _scores(gain),
        "pictures": pictures,
        "residual_plot": plots.histogram(
            {"residual": _sample(residual)}, label="residual gain of the corrected frames"
        ),
        "defects_plot": plots.defects(positions, kinds, (residual.shape[0], residual.shape[1]))
        if len(positions)
        else "",
        "defects": dict(Counter(kinds)),
        "defect_rows": [
            (str(x), str(y), kind) for (y, x), kind in zip(positions[:_LISTED].tolist(), kinds[:_LISTED], strict=True)
        ],
    }


def _residual_numbers(gain: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in gain.get("residual", {}).items() if isinstance(value, int | float)]


def _scores(gain: Mapping[str, Any]) -> list[list[str]]:
    """Return one row (orientation, sense, score, share of the best, shift) per orientation and sense."""
    scores = gain.get("scores", [])
    best = scores[0]["score"] if scores else 1.0
    return [
        [
            score["orientation"],
            score["sense"],
            f"{score['score']:.1f}",
            f"{score['score'] / best:.3f}" if best else "–",
            f"{score['shift_yx_px'][1]}, {score['shift_yx_px'][0]}",
        ]
        for score in scores
    ]


def _views(image: NDArray[np.float32], name: str) -> list[tuple[str, str]]:
    """Return the whole area (averaged over blocks) and its centre (single pixels), each with its own grey scale."""
    ny, nx = image.shape
    half = _SIDE // 2
    centre = image[max(ny // 2 - half, 0) : ny // 2 + half, max(nx // 2 - half, 0) : nx // 2 + half]
    small = blocks(image, _SIDE)
    found = []
    for view, words in ((small, "whole camera"), (centre, f"centre, {centre.shape[1]} x {centre.shape[0]} px")):
        low, high = (float(x) for x in np.percentile(view, [1.0, 99.0]))
        source = grey_source(view, width=_SIDE, limits=(low, high))
        found.append((f"{name}, {words}: grey scale {low:.4f} … {high:.4f}", source))
    return found


def _sample(image: NDArray[np.float32]) -> NDArray[np.float64]:
    flat = image.ravel()
    values: NDArray[np.float64] = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64)
    return values
