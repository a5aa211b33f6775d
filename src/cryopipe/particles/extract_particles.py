"""Step ``extract_particles``: cut particle images out of micrographs (downsample, dust, phase flip, cut, invert, normalise).

The order is Xmipp's (de la Rosa-Trevín et al. 2013, doi:10.1016/j.jsb.2013.09.015). By default the CTF is signed (no phase
flip), the images are ramp-normalised, and protein is bright. A box is cut at whole pixels, so the noise is not changed. The
rest of the coordinate goes into the origins: `rlnCoordinateX/Y` are the pixel at the centre of the box, and
`rlnOriginXAngst = -rest · pixel size`. So coordinate - origin / micrograph pixel is the picked position.

Known limit: no z-scores of particle quality are computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.fft

from cryopipe.config.declaration.base import require
from cryopipe.config.particles import ExtractParticles
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.fourier import frequency_grid
from cryopipe.imaging.optics import CtfParameters, ctf, from_row
from cryopipe.io.micrographs import micrograph_path, micrograph_rows, read_micrograph
from cryopipe.io.mrc import StackWriter, format_image_name
from cryopipe.io.star import StarTable, read_table, write_rejections, write_table
from cryopipe.items import Rejection, process_items
from cryopipe.particles.cut import Boxes, cut_boxes, downsample, friendly_box, place_boxes
from cryopipe.particles.dust import remove_dust
from cryopipe.particles.normalise import background_mask, normalise_images

#: Columns of a micrograph that its particles get, too.
INHERITED = (
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnPhaseShift",
    "rlnCtfBfactor",
    "rlnCtfScalefactor",
    "rlnCtfFigureOfMerit",
    "rlnCtfMaxResolution",
)
#: Columns of a pick that its particle keeps.
KEPT = ("rlnAutopickFigureOfMerit",)


def box_size(params: ExtractParticles, image_pixel_size_A: float) -> int:
    """Return the box in pixels: ``box_px``, or else the smallest even number that suits FFTs and covers ``box_A``."""
    if params.box_px is not None:
        if params.box_px % 2:
            raise InputError(f"extract_particles.box_px {params.box_px} is odd. Give an even number.")
        return params.box_px
    (box_A,) = require(params, "box_A")
    return friendly_box(box_A / image_pixel_size_A)


def extract_images(
    micrograph: np.ndarray,
    pixel_size_A: float,
    xy: np.ndarray,
    params: ExtractParticles,
    *,
    optics: CtfParameters | None = None,
    rng: np.random.Generator,
    threads: int = 1,
) -> tuple[np.ndarray, Boxes, float]:
    """Return the particle images of one micrograph.

    Parameters
    ----------
    micrograph : ndarray ``[y, x]``
        Micrograph with dark protein.
    pixel_size_A : float
        Pixel size of the micrograph.
    xy : float ``[n, 2]``
        Particle centres in micrograph pixels.
    optics : CtfParameters, optional
        CTF of the micrograph (scalars). It is needed to flip phases.
    rng : Generator
        Random numbers that replace dust.

    Returns
    -------
    images : float32 ``[kept, box, box]``
        Images in the order of those coordinates whose boxes can be cut.
    boxes : Boxes
        Boxes of all coordinates, in downsampled pixels.
    factor : float
        Exact downsampling factor.
    """
    wanted, background_A = require(params, "downsample", "background_diameter_A")
    image, exact = downsample(micrograph, wanted, threads=threads)
    image_pixel_A = pixel_size_A * float(exact)
    if params.remove_dust:
        image, _ = remove_dust(image, threshold=params.dust_threshold, fill=params.dust_fill, rng=rng)
    if params.phase_flip:
        image = flip_phases(image, image_pixel_A, optics, threads=threads)
    box = box_size(params, image_pixel_A)
    boxes = place_boxes(np.asarray(xy) / float(exact), box, (image.shape[0], image.shape[1]))
    usable = np.array([not reason for reason in boxes.reason], dtype=bool)
    images = cut_boxes(image, boxes.centre[usable], box)
    if params.invert_contrast:
        images = -images
    # outside a circle that fills the box only the corners remain
    mask = background_mask(box, min(0.5 * background_A / image_pixel_A, 0.5 * box))
    return normalise_images(images, mask, params.normalise), boxes, float(exact)


def flip_phases(
    image: np.ndarray, pixel_size_A: float, optics: CtfParameters | None, *, threads: int = 1
) -> np.ndarray:
    """Return ``image`` ``[y, x]`` with the sign of its Fourier transform changed where the CTF is negative.

    Parameters
    ----------
    image : ndarray ``[y, x]``
        The micrograph.
    pixel_size_A : float
        Pixel size of the image.
    optics : CtfParameters or None
        CTF of the micrograph (scalars).
    threads : int
        Threads of the Fourier transforms.

    Returns
    -------
    ndarray ``[y, x]`` float32

    Raises
    ------
    InputError
        The CTF is None.
    """
    if optics is None:
        raise InputError(
            "phases cannot be flipped without a CTF. Estimate it, or set extract_particles.phase_flip: false."
        )
    spectrum = scipy.fft.rfft2(image.astype(np.float32), workers=threads)
    kx, ky = frequency_grid(image.shape, pixel_size_A)
    sign = ctf(kx, ky, optics, mode="flip").astype(np.float32)
    # at the Nyquist frequency k and -k have the same pixel, but an astigmatic CTF may differ between them
    for axis, n in enumerate(image.shape):
        if n % 2 == 0:
            np.moveaxis(sign, axis, 0)[n // 2] = 1.0
    spectrum *= sign
    return scipy.fft.irfft2(spectrum, s=image.shape, workers=threads).astype(np.float32)


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: ExtractParticles, context: Context) -> None:
    """Extract the particles of a batch.

    Inputs: ``micrographs`` and ``coordinates`` (STAR). Outputs: ``particles`` (STAR, one stack per micrograph in ``stacks``
    beside it) and ``rejected`` (TSV, the coordinates without a particle).
    """
    table = read_table(inputs["micrographs"], "micrographs")
    picks = read_table(inputs["coordinates"], "coordinates")
    micrographs = micrograph_rows(table, inputs["micrographs"])
    grouped = {str(item): rows for item, rows in picks.rows.groupby("crpItem", sort=False)} if len(picks) else {}
    stacks = Path(outputs["particles"]).parent / "stacks"

    def work(item: str, facts: tuple[dict[str, Any], pd.DataFrame]) -> dict[str, Any]:
        return _extract_item(item, *facts, stacks, params, context)

    results = process_items(
        {item: (row, grouped[item]) for item, row in micrographs.items() if item in grouped},
        work,
        context,
        params=params,
        reads=lambda item, facts: [micrograph_path(facts[0], dose_weighted=True)],
        makes=lambda item, row: [stacks / f"{item}.mrcs"] if row["particles"] else [],
    )
    lost = {r.item: r for r in results.rejections}
    rejections = []
    for item, rows in grouped.items():
        why = lost.get(item)
        if item not in micrographs:
            why = Rejection(item, "rejected", "its micrograph is not among the accepted ones")
        if why is not None:
            rejections += [Rejection(f"{i + 1:06d}@{item}", why.kind, why.reason) for i in range(len(rows))]
    particles = []
    for result in results.rows:
        particles += result["particles"]
        rejections += [Rejection(*entry) for entry in result["rejected"]]
    write_table(outputs["particles"], _particle_table(table, picks, pd.DataFrame(particles), params))
    write_rejections(outputs["rejected"], rejections)
    context.log.info("%d particles extracted, %d coordinates rejected", len(particles), len(rejections))


def _extract_item(
    item: str, row: dict[str, Any], picks: pd.DataFrame, stacks: Path, params: ExtractParticles, context: Context
) -> dict[str, Any]:
    micrograph = read_micrograph(row, dose_weighted=True)
    images, boxes, factor = extract_images(
        micrograph.image,
        micrograph.pixel_size_A,
        picks[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(),
        params,
        optics=from_row(row),
        rng=context.rng(item),
        threads=context.threads,
    )
    image_A = micrograph.pixel_size_A * factor
    stack = stacks / f"{item}.mrcs"
    if len(images):
        with StackWriter(stack, image_A, half=params.half_precision) as writer:
            writer.append(images)
    particles: list[dict[str, Any]] = []
    rejected = []
    records = picks.to_dict("records")
    for number, (pick, centre, rest, reason) in enumerate(
        zip(records, boxes.centre, boxes.rest, boxes.reason, strict=True), 1
    ):
        if reason:
            rejected.append([f"{number:06d}@{item}", "rejected", reason])
            continue
        particle = {
            "rlnImageName": format_image_name(len(particles), stack),
            "rlnMicrographName": row["rlnMicrographName"],
            "rlnCoordinateX": float(centre[0] * factor),
            "rlnCoordinateY": float(centre[1] * factor),
            "rlnOriginXAngst": float(-rest[0] * image_A),
            "rlnOriginYAngst": float(-rest[1] * image_A),
            "rlnOpticsGroup": int(row["rlnOpticsGroup"]),
            "crpItem": item,
        }
        particle |= {name: float(row[name]) for name in INHERITED if name in row}
        particle |= {name: float(pick[name]) for name in KEPT if name in pick}
        particles.append(particle)
    return {"particles": particles, "rejected": rejected}


def _particle_table(
    micrographs: StarTable, picks: StarTable, rows: pd.DataFrame, params: ExtractParticles
) -> StarTable:
    """Return the particle table with its optics groups. Without particles it has all columns but no rows."""
    (wanted,) = require(params, "downsample")
    optics = micrographs.optics.copy()
    pixel_A = optics["rlnMicrographPixelSize"].to_numpy(dtype=np.float64)
    _, exact = downsample(np.zeros((2, 2), dtype=np.float32), wanted)
    image_A = pixel_A * float(exact)
    optics["rlnImagePixelSize"] = image_A
    optics["rlnImageSize"] = np.array([box_size(params, float(a)) for a in image_A], dtype=np.int64)
    optics["rlnImageDimensionality"] = np.full(len(optics), 2, dtype=np.int64)
    optics["rlnCtfDataArePhaseFlipped"] = np.full(len(optics), int(params.phase_flip), dtype=np.int64)
    if len(rows) == 0:
        text = {"rlnImageName", "rlnMicrographName", "crpItem"}
        names = [
            "rlnImageName",
            "rlnMicrographName",
            "rlnCoordinateX",
            "rlnCoordinateY",
            "rlnOriginXAngst",
            "rlnOriginYAngst",
        ]
        names += ["rlnOpticsGroup", "crpItem", *(n for n in INHERITED if n in micrographs.rows)]
        names += [n for n in KEPT if n in picks.rows]
        kinds = {n: object if n in text else np.int64 if n == "rlnOpticsGroup" else np.float64 for n in names}
        rows = pd.DataFrame({n: pd.Series(dtype=kind) for n, kind in kinds.items()})
    return StarTable("particles", optics, rows)
