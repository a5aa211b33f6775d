"""Pictures inside the page: data URIs in WebP, at the size at which they are shown.

With the pictures that the steps wrote (PNG, 512 px) a page of twelve movies has 10-17 MB. In WebP at the size shown it has
2-3 MB. Plots are compressed without loss, photographs (spectra, micrographs, maps) with a quality at which rings stay
visible.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

#: WebP quality of photographs from 0 to 100. A choice: lower values smear Thon rings, higher ones make the page larger.
_QUALITY = 55


def plot_source(figure: Figure, *, dpi: int = 120) -> str:
    """Return a plot as a data URI, compressed without loss: flat colours compress well and text stays sharp."""
    return _encoded(_drawn(figure, dpi), lossless=True)


def photograph_source(figure: Figure, *, dpi: int = 110, margin_inches: float = 0.1) -> str:
    """Return a figure of grey pictures as a data URI, compressed with loss."""
    return _encoded(_drawn(figure, dpi, margin_inches), quality=80)


def array_source(pixels: NDArray[np.uint8], *, lossless: bool = False) -> str:
    """Return a grey [y, x] or RGB [y, x, 3] array as a data URI, pixel by pixel."""
    return _encoded(Image.fromarray(pixels), lossless=lossless, quality=80)


def grey_source(image: NDArray[np.float32], *, width: int, limits: tuple[float, float] | None = None) -> str:
    """Return an image [y, x], at most ``width`` pixels wide, between ``limits`` (its 1st and 99.5th percentiles)."""
    low, high = limits or tuple(np.percentile(image, [1.0, 99.5]))
    scaled = np.clip((image - low) / max(high - low, 1e-12), 0.0, 1.0)
    return _encoded(_narrowed(Image.fromarray((255 * scaled).astype(np.uint8)), width))


def file_source(path: Path, *, width: int) -> str:
    """Return a picture file as a data URI, at most ``width`` pixels wide, in grey if it is grey.

    A plot (few colours on white) is compressed without loss and keeps its sharp edges. All others are compressed with loss.
    """
    with Image.open(path) as image:
        colours = image.convert("RGB")
    channels = colours.split()
    grey = channels[0].tobytes() == channels[1].tobytes() == channels[2].tobytes()
    small = _narrowed(colours.convert("L") if grey else colours, width)
    return _encoded(small, quality=_QUALITY if grey else 75)


def blocks(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Return ``image`` [y, x] averaged over square blocks to at most ``size`` pixels on the longer side."""
    block = max(1, -(-max(image.shape) // size))
    ny, nx = (n // block for n in image.shape)
    small = image[: ny * block, : nx * block].reshape(ny, block, nx, block).mean(axis=(1, 3), dtype=np.float64)
    return small.astype(np.float32)


def _drawn(figure: Figure, dpi: int, margin_inches: float = 0.1) -> Image.Image:
    stream = io.BytesIO()
    figure.savefig(
        stream, format="png", dpi=dpi, bbox_inches="tight", pad_inches=margin_inches, metadata={"Software": None}
    )
    stream.seek(0)
    return Image.open(stream).convert("RGB")


def _narrowed(image: Image.Image, width: int) -> Image.Image:
    if image.width <= width:
        return image
    return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)


def _encoded(image: Image.Image, *, lossless: bool = False, quality: int = _QUALITY) -> str:
    stream = io.BytesIO()
    image.save(stream, format="WEBP", lossless=lossless, quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
