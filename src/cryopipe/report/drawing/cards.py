"""Cards of items: the pictures that steps made of one movie or micrograph, and why it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from cryopipe.errors import InputError
from cryopipe.movies.motion.star import read_motion
from cryopipe.report.drawing.pictures import file_source
from cryopipe.report.drawing.tracks import global_track, patch_tracks, read_local
from cryopipe.steps import step_of

_MOVIES = Path("movies/align_movies")
#: Endings of pictures of spectrum and model. An estimator makes one of them.
_CTF_ENDINGS = ("_ctf.png", "_ctf_halfplane.png")
#: Widths in pixels at which rings of spectra, particles in thumbnails and the text of profiles can be seen.
_SPECTRUM, _THUMBNAIL, _PROFILE = 300, 320, 560


@dataclass(frozen=True)
class Picture:
    """One picture of a card.

    Attributes
    ----------
    caption : str
        Words below the picture.
    source : str
        Source of an <img>. Empty if there is a drawing.
    drawing : Markup, optional
        Inline SVG.
    wide : bool
        Whether the picture is as wide as the card.
    """

    caption: str
    source: str = ""
    drawing: Markup | None = None
    wide: bool = False


@dataclass(frozen=True)
class Card:
    """One item with its pictures. ``note`` states why it is shown, or why it was lost."""

    item: str
    note: str
    pictures: list[Picture] = field(default_factory=list)


def spectra(run: Path, item: str, *, wide: bool = False) -> list[Picture]:
    """Return the composite power spectrum of a movie: left half before, right half after alignment."""
    path = run / _MOVIES / "pictures" / f"{item}_psd.png"
    return _file(path, "spectrum, before | after alignment", _SPECTRUM, wide=wide)


def micrograph(run: Path, item: str) -> list[Picture]:
    """Return the thumbnail of an aligned micrograph."""
    return _file(run / _MOVIES / "pictures" / f"{item}_micrograph.png", "micrograph", _THUMBNAIL)


def tracks(run: Path, item: str) -> list[Picture]:
    """Return drawings of the global track and of the tracks of patches; none for a movie that was not aligned."""
    path = run / _MOVIES / "motion" / f"{item}.star"
    try:
        motion = read_motion(path)
    except InputError:
        return []  # the movie was not aligned, or the card states why there are no tracks
    pictures = [Picture("shift of the whole frame", drawing=global_track(motion))]
    local = read_local(path)
    if local is not None:
        pictures.append(Picture("shifts over the frame", drawing=patch_tracks(motion, local)))
    return pictures


def ctf_pictures(run: Path, item: str, estimators: Sequence[str]) -> list[Picture]:
    """Return the pictures of each estimator (step): spectrum | model, and the equiphase average."""
    found: list[Picture] = []
    for step in estimators:
        for ending in _CTF_ENDINGS:
            path = run / "ctf" / step / "pictures" / f"{item}{ending}"
            found += _file(path, f"{step_of(step).label}: spectrum | model", _SPECTRUM)
    for step in estimators:
        path = run / "ctf" / step / "pictures" / f"{item}_epa.png"
        found += _file(path, f"{step_of(step).label}: equiphase average and model", _PROFILE, wide=True)
    return found


def ctf_links(run: Path, estimator: str, items: Iterable[str]) -> dict[str, str]:
    """Return ``{item: link from the report to its picture of spectrum | model}`` by one estimator (step)."""
    folder = run / "ctf" / estimator / "pictures"
    ending = next((e for e in _CTF_ENDINGS if next(folder.glob(f"*{e}"), None)), _CTF_ENDINGS[0])
    return {item: f"../../ctf/{estimator}/pictures/{item}{ending}" for item in items}


def _file(path: Path, caption: str, width: int, *, wide: bool = False) -> list[Picture]:
    return [Picture(caption, file_source(path, width=width), wide=wide)] if path.exists() else []
