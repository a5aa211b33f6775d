"""Cards of items: what the steps drew of one movie or micrograph, and why it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from cryopipe.errors import InputError
from cryopipe.movies.motion.star import read_motion
from cryopipe.report.drawing.pictures import file_source
from cryopipe.report.drawing.tracks import global_track, patch_tracks, read_local

_MOVIES = Path("movies/align_movies")
#: Pixels across: spectra need their rings, thumbnails their particles, profiles their text.
_SPECTRUM, _THUMBNAIL, _PROFILE = 300, 320, 560


@dataclass(frozen=True)
class Picture:
    """One picture: caption with either the source of an <img> or a drawing; ``wide``: over the whole card."""

    caption: str
    source: str = ""
    drawing: Markup | None = None
    wide: bool = False


@dataclass(frozen=True)
class Card:
    """One item with its pictures; ``note`` says why it is shown or what became of it."""

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
    """Return the drawings of the global track and of the tracks of patches; none where the movie was not aligned."""
    path = run / _MOVIES / "motion" / f"{item}.star"
    try:
        motion = read_motion(path)
    except InputError:
        return []  # not aligned, or what stopped it is the reason that the card gives
    pictures = [Picture("shift of the whole frame", drawing=global_track(motion))]
    local = read_local(path)
    if local is not None:
        pictures.append(Picture("shifts over the frame", drawing=patch_tracks(motion, local)))
    return pictures


def ctf_pictures(run: Path, item: str, estimators: Sequence[str]) -> list[Picture]:
    """Return what each estimator (step name) drew: spectrum | model; and the profile along equal phases."""
    found: list[Picture] = []
    for step in estimators:
        folder, name = run / "ctf" / step / "pictures", step.removeprefix("estimate_ctf_")
        for ending in ("_ctf.png", "_ctf_halfplane.png"):
            found += _file(folder / f"{item}{ending}", f"{name}: spectrum | model", _SPECTRUM)
    for step in estimators:
        path = run / "ctf" / step / "pictures" / f"{item}_epa.png"
        words = f"{step.removeprefix('estimate_ctf_')}: equiphase average and model"
        found += _file(path, words, _PROFILE, wide=True)
    return found


def _file(path: Path, caption: str, width: int, *, wide: bool = False) -> list[Picture]:
    return [Picture(caption, file_source(path, width=width), wide=wide)] if path.exists() else []
