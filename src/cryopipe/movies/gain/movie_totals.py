"""Sums over the frames of all movies, which show the fixed pattern of the camera."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cryopipe.config.movies import EstimateGain
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.movies.gain.rank import add_ideal_frame
from cryopipe.movies.movie_list import MovieEntry

#: Largest number of movies whose sums are in memory at a time.
_GROUP = 8


@dataclass(frozen=True)
class MovieTotals:
    """Sums over the frames of all movies, in two halves.

    Attributes
    ----------
    halves : list of ndarray ``[y, x]`` float32
        Two sums over alternating movies (by name). With one movie: over its even and its odd frames. With a single frame
        there is one sum.
    ideal : ndarray ``[y, x]`` float64 or None
        Sum of the rank-equalised frames (method ``rank``).
    movies, frames : int
        Numbers of movies and frames in the sums.
    """

    halves: list[np.ndarray]
    ideal: np.ndarray | None
    movies: int
    frames: int

    @property
    def total(self) -> np.ndarray:
        """Sum of both halves [y, x]."""
        return sum(self.halves[1:], self.halves[0])

    def with_part(self, total: np.ndarray, ideal: np.ndarray | None, frames: int, movies: int) -> MovieTotals:
        """Return these sums plus one more part. The arrays of this object may be reused.

        Parameters
        ----------
        total : ndarray ``[y, x]`` float32
            Sum of the frames of the part. The first two parts start the halves. Later ones are added to them in turn.
        ideal : ndarray ``[y, x]`` float64 or None
            Sum of its rank-equalised frames. None without method ``rank``. It is changed in place.
        frames, movies : int
            Numbers of frames and of movies that the part adds.
        """
        place = len(self.halves) if len(self.halves) < 2 else self.movies % 2
        if place == len(self.halves):
            self.halves.append(total)
        else:
            self.halves[place] += total
        if ideal is not None and self.ideal is not None:
            ideal += self.ideal
        return MovieTotals(self.halves, ideal, self.movies + movies, self.frames + frames)


def sum_frames(entries: Sequence[MovieEntry], params: EstimateGain, context: Context) -> MovieTotals:
    """Add up the frames of all movies, one movie per thread.

    A movie that cannot be read, or whose frames have another size than those of most movies, is left out with a warning.

    Raises
    ------
    InputError
        No movie could be read, or frame sizes differ and none is that of more than half of the movies.
    """
    chosen = of_usual_size(sorted(entries, key=lambda e: e.item), context)[:: params.movie_step]
    # the even and the odd frames of a single movie are two parts, for two threads
    parts = [(entry, first) for entry in chosen for first in range(2 if len(chosen) == 1 else 1)]
    stride = params.frame_step * (2 if len(chosen) == 1 else 1)
    failed: set[str] = set()

    def one(part: tuple[MovieEntry, int]) -> tuple[np.ndarray, np.ndarray | None, int] | None:
        entry, first = part
        try:
            return _sum_movie(entry, first * params.frame_step, stride, params.method == "rank")
        except (InputError, OSError, ValueError) as error:
            if entry.item not in failed:
                context.log.warning("%s: %s is left out: %s", context.step, entry.item, error)
            failed.add(entry.item)
            return None

    sums = MovieTotals([], None, 0, 0)
    with ThreadPoolExecutor(max(context.threads, 1)) as pool:
        for start in range(0, len(parts), _GROUP):  # in groups, so that finished sums do not pile up in memory
            group = parts[start : start + _GROUP]
            for (entry, first), result in zip(group, list(pool.map(one, group)), strict=True):
                if result is None or entry.item in failed or not result[2]:
                    continue
                if sums.halves and result[0].shape != sums.halves[0].shape:
                    ours, others = result[0].shape, sums.halves[0].shape
                    raise InputError(
                        f"{entry.path} has frames of {ours[1]} x {ours[0]} pixels, but the movies before it have "
                        f"{others[1]} x {others[0]}. One gain cannot fit both: run them as two datasets."
                    )
                sums = sums.with_part(*result, movies=int(first == 0))
            context.progress(min(start + _GROUP, len(parts)) * len(chosen) // len(parts), len(chosen), "movies summed")
    if not sums.halves:
        raise InputError(
            f"none of the {len(chosen)} movies could be read, so a gain cannot be estimated. See the warnings above, and "
            "mend or remove these movies."
        )
    return sums


def of_usual_size(entries: Sequence[MovieEntry], context: Context) -> list[MovieEntry]:
    """Leave out movies whose frame size, in the table, is not that of more than half of all movies.

    Batches are registered one by one, so a batch of one movie can have another size than the others. Such a movie does
    not fit the gain, and `align_movies` quarantines it. If no size is that of more than half, all movies are returned.
    """
    sizes = Counter(entry.frame_shape for entry in entries if entry.frame_shape is not None)
    usual = next((shape for shape, count in sizes.items() if 2 * count > sizes.total()), None)
    if usual is None:
        return list(entries)
    kept = [entry for entry in entries if entry.frame_shape in (None, usual)]
    for entry in entries:
        if entry.frame_shape is not None and entry.frame_shape != usual:
            context.log.warning(
                "%s: %s is left out: its frames have %d x %d pixels, but most movies have %d x %d",
                context.step,
                entry.item,
                *entry.frame_shape[::-1],
                *usual[::-1],
            )
    return kept


def _sum_movie(entry: MovieEntry, first: int, step: int, rank: bool) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return the sum [y, x] of every ``step``-th frame, with ``rank`` the sum of the equalised ones, and their number."""
    with entry.open() as movie:
        used = range(first, len(movie), step)
        total = np.zeros(movie.shape[1:], dtype=np.float32)
        ideal = np.zeros(movie.shape[1:]) if rank else None
        for index in used:
            frame = movie.read_frame(index)
            np.add(total, frame, out=total, casting="unsafe")
            if ideal is not None:
                add_ideal_frame(frame, ideal)
    return total, ideal, len(used)
