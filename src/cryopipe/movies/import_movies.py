"""Step ``import_movies``: register the movies of a batch. Each file is checked once and listed for all later steps.

Nothing is modified. Each file is checked for existence, complete data (sizes in the headers against the bytes on
disk), decodable frames, frame size and number, the pixel size of its header and the plausibility of the exposure. A
movie that fails is quarantined with its reason. The others are listed in ``movies.star`` in RELION's layout.

Limits: only the first and the last frame are decoded unless ``check_frames: all``. Damage in another frame is found by
the step that aligns the movie. The exposure can be checked only if pixels are counts of electrons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cryopipe.config.movies import ImportMovies
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.io.micrographs import check_pixel_size
from cryopipe.io.movies import Movie, open_movie
from cryopipe.io.star import StarTable, read_blocks, write_rejections, write_table
from cryopipe.items import Row, process_items
from cryopipe.movies.registration import (
    grouped,
    optics_table,
    same_size,
    typed_rows,
    unique_items,
)

COLUMNS = {
    "rlnMicrographMovieName": "str",
    "rlnOpticsGroup": "int64",
    "rlnImageSizeX": "int64",
    "rlnImageSizeY": "int64",
    "crpItem": "str",
    "crpFrames": "int64",
    "crpBytes": "int64",
    "crpMeanCounts": "float64",
    "crpHeaderPixelSize": "float64",
    "rlnMicrographDoseRate": "float64",
    "rlnMicrographPreExposure": "float64",
    "crpTotalExposure": "float64",
    "rlnEERGrouping": "int64",
    "rlnEERUpsampling": "int64",
    "crpFirst64KiBSha256": "str",
}
#: No specimen is imaged at a larger total exposure (e/Å²). A larger product of frames and exposure is a typing error.
MAX_EXPOSURE_E_A2 = 500.0
#: Range of counts over exposure that is accepted. The specimen removes some 20 % of the electrons, coincidence at high
#: rates as much again, and exposures are measured to about 20 %. The mistakes to be found (exposure per pixel, or total)
#: are factors of 2 and more.
COUNTS_RATIO = (0.6, 1.3)
#: Range of exposures of an EER frame, e/Å². Below it, a frame has too little signal to be aligned. Above it, motion within a
#: frame blurs the image.
EER_FRACTION_E_A2 = (0.25, 2.5)
#: Frames with a larger mean have grey values of an integrating camera, not counts of electrons.
_MOST_COUNTS = 60.0


def check_movie(path: Path, params: ImportMovies, group: int = 1) -> Row:
    """Check one movie and return its row of ``movies.star``.

    Parameters
    ----------
    path : Path
        The movie.
    params : ImportMovies
        Expected values: those of the optics group of the movie.
    group : int
        Number of the optics group.

    Returns
    -------
    dict
        Values of `COLUMNS`. ``crpMeanCounts`` is the mean of the decoded frames, per pixel and frame.
        ``crpHeaderPixelSize`` is 0 if the header has none. The EER columns matter for EER movies only. Exposures are in
        e/Å²: ``rlnMicrographDoseRate`` is that of one frame (0 if unknown), ``crpTotalExposure`` that of all frames.

    Raises
    ------
    InputError
        The movie cannot be used. The message states the reason.
    """
    with open_movie(path, eer_grouping=params.eer_grouping, eer_upsampling=params.eer_upsampling) as movie:
        n, ny, nx = movie.shape
        if params.frames is not None and n != params.frames:
            raise InputError(
                f"{path}: the movie has {n} frames, but {params.frames} are expected. Copy it again if the transfer was "
                "incomplete, or correct import_movies.frames."
            )
        if params.frame_size is not None and (nx, ny) != params.frame_size:
            raise InputError(
                f"{path}: the frames have {nx} x {ny} px, but {' x '.join(map(str, params.frame_size))} are expected. "
                "Leave the movie out, or correct import_movies.frame_size."
            )
        header_A = movie.pixel_size_A
        check_pixel_size(path, header_A, params.pixel_size_A, "dataset.pixel_size_A")
        _check_exposure(path, n, params)
        mean = _check_frames(movie, params.check_frames)
    with path.open("rb") as stream:
        head = hashlib.sha256(stream.read(65536)).hexdigest()
    return {
        "rlnMicrographMovieName": str(path),
        "rlnOpticsGroup": group,
        "rlnImageSizeX": nx,
        "rlnImageSizeY": ny,
        "crpItem": path.stem,
        "crpFrames": n,
        "crpBytes": path.stat().st_size,
        "crpMeanCounts": mean,
        "crpHeaderPixelSize": header_A or 0.0,
        "rlnMicrographDoseRate": params.dose_per_frame_e_A2 or 0.0,
        "rlnMicrographPreExposure": params.pre_exposure_e_A2 or 0.0,
        "crpTotalExposure": exposure_after_e_A2(n, params),
        "rlnEERGrouping": params.eer_grouping,
        "rlnEERUpsampling": params.eer_upsampling,
        "crpFirst64KiBSha256": head,
    }


def exposure_after_e_A2(frame: int, params: ImportMovies) -> float:
    """Return the exposure (e/Å²) at the end of frame ``frame`` (from 1): the pre-exposure plus that of the frames.

    A frame of an EER movie is a group of ``params.eer_grouping`` readouts. Readouts of an incomplete last group do not count.
    """
    return (params.pre_exposure_e_A2 or 0.0) + frame * (params.dose_per_frame_e_A2 or 0.0)


def _check_exposure(path: Path, n_frames: int, params: ImportMovies) -> None:
    total = exposure_after_e_A2(n_frames, params)
    if total > MAX_EXPOSURE_E_A2:
        raise InputError(
            f"{path}: {n_frames} frames of {params.dose_per_frame_e_A2} e/Å² after a pre-exposure of "
            f"{params.pre_exposure_e_A2} are {total:.0f} e/Å² in total, more than {MAX_EXPOSURE_E_A2:.0f}. Correct "
            "dataset.dose_per_frame_e_A2: it is the exposure per frame and per Å², not the total or the exposure per pixel."
        )


def _check_frames(movie: Movie, which: str) -> float:
    indices = range(len(movie)) if which == "all" else sorted({0, len(movie) - 1})
    means = []
    for index in indices:
        frame = movie.read_frame(index)
        low, high = frame.min(), frame.max()
        if low == high:
            raise InputError(
                f"{movie.path}: frame {index + 1} is blank: all pixels have the value {low}. Copy the movie again, or "
                "leave it out."
            )
        if frame.dtype == np.int8 and low < 0 and wraps(frame):
            raise InputError(
                f"{movie.path}: frame {index + 1} has values from {low} to {high}. They are unsigned bytes marked as signed, or "
                "grey values minus a number; the file does not tell which. Write the movie with the measured values "
                "(for unsigned bytes in MRC: mode 6, or IMOD's flag)."
            )
        means.append(float(frame.mean(dtype=np.float64)))
    return float(np.mean(means))


def wraps(frame: np.ndarray) -> bool:
    """Tell whether signed bytes are misread unsigned bytes: values above 127 became negative, far from their neighbours.

    The wrong reading splits a distribution of grey values into two and so makes it wider. If all values are negative, both
    readings are equally wide. But a movie without a positive value is not valid, so it is refused, too.

    This is a reason to refuse a movie, but not to read it differently. A grey value of 60 minus 128 has the same byte as
    188, and signed values in two groups far apart (a grid bar) are also narrower as unsigned ones.
    """
    return bool(frame.max() < 0 or frame.std() > frame.view(np.uint8).std())


def _report(rows: Sequence[Row], params: ImportMovies, context: Context) -> None:
    """Log headers without pixel size. Warn of numbers of frames that differ by more than 5 % and of unlikely counts."""
    unset = [row["crpItem"] for row in rows if row["crpHeaderPixelSize"] in (0.0, 1.0)]
    if unset:
        context.log.info(
            "the headers of %d movies (%s ...) have no pixel size; the configured one is used", len(unset), unset[0]
        )
    frames = np.array([row["crpFrames"] for row in rows])
    usual = float(np.median(frames))
    for row in rows:
        if abs(row["crpFrames"] - usual) > 0.05 * usual:
            context.log.warning("%s has %d frames, but most movies have %g", row["crpItem"], row["crpFrames"], usual)
    dose = params.dose_per_frame_e_A2
    read_as_events = any(row["rlnMicrographMovieName"].lower().endswith(".eer") for row in rows)
    if read_as_events and dose is not None and not EER_FRACTION_E_A2[0] <= dose <= EER_FRACTION_E_A2[1]:
        context.log.warning(
            "an EER frame of %g e/Å² (%d readouts) is unusual: choose eer_grouping so that a frame has 0.5 to 1.3 e/Å², and "
            "change dataset.dose_per_frame_e_A2 with it",
            dose,
            params.eer_grouping,
        )
    mean = float(np.median([row["crpMeanCounts"] for row in rows]))
    if params.dose_per_frame_e_A2 is None or params.pixel_size_A is None or not 0 < mean < _MOST_COUNTS:
        return
    expected = params.dose_per_frame_e_A2 * params.pixel_size_A**2
    context.log.info("counts per pixel and frame: %.4g measured, %.4g expected from the exposure", mean, expected)
    if not COUNTS_RATIO[0] < mean / expected < COUNTS_RATIO[1]:
        context.log.warning(
            "the movies have %.4g counts per pixel and frame, but dataset.dose_per_frame_e_A2 = %g with %g Å/px means %.4g "
            "electrons. If the camera counts electrons, one of the two is wrong (per Å² or per pixel? per frame or in total?)",
            mean,
            params.dose_per_frame_e_A2,
            params.pixel_size_A,
            expected,
        )


def _movies(fetched: Path | list[Path] | None, paths: Sequence[str]) -> tuple[dict[str, str], dict[str, Path]]:
    """Return ``{item: name in the configuration}`` and ``{item: file}`` of a batch."""
    if not isinstance(fetched, Path):
        items = unique_items(paths)
        return {item: str(path) for item, path in items.items()}, items
    rows = read_blocks(fetched)["fetched"].to_dict("records")
    names = {str(row["crpItem"]): str(row["crpSource"]) for row in rows}
    return names, {str(row["crpItem"]): Path(str(row["rlnMicrographMovieName"])) for row in rows}


def main(
    inputs: Mapping[str, Path | list[Path]], outputs: Mapping[str, Path], params: ImportMovies, context: Context
) -> None:
    """Check the movies of ``params.paths`` or of input ``fetched``; write outputs ``movies`` (STAR) and ``rejected`` (TSV)."""
    optics = optics_table(params, aligned=False)
    names, items = _movies(inputs.get("fetched"), params.paths)
    # the check of an item does not depend on the others in its batch
    alone = params.model_copy(update={"paths": []})
    own = grouped(names, alone)

    def check(item: str, facts: tuple[Path, int, ImportMovies]) -> Row:
        path, group, of_group = facts
        return check_movie(path, of_group, group)

    results = process_items(
        {item: (path, *own[item]) for item, path in items.items()},
        check,
        context,
        params=alone,
        reads=lambda item, facts: [facts[0]],
        threads=context.threads,
    )
    rows, odd = same_size(results.rows, "frames")
    if rows:
        _report(rows, params, context)
    write_table(outputs["movies"], StarTable("movies", optics, typed_rows(rows, COLUMNS)))
    write_rejections(outputs["rejected"], [*results.rejections, *odd])
