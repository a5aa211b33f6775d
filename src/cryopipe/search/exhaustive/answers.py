"""Put the results of the tiles of a search together, in the order of the given images."""

from __future__ import annotations

import numpy as np

from cryopipe.projection.pose_sums import PoseSums
from cryopipe.search.exhaustive.tile import TileAnswer, TileSettings
from cryopipe.search.posterior import Posterior, SignificantStates


def posterior_of(
    answers: list[TileAnswer],
    settings: TileSettings,
    order: np.ndarray,
    shifts: np.ndarray,
    offset: np.ndarray,
    sums: PoseSums | None,
) -> Posterior:
    """Put the results of the tiles together, in the order of the given images.

    Parameters
    ----------
    answers : list of TileAnswer
        Results of the tiles, in the order in which they were made.
    settings : TileSettings
        Settings of the search.
    order : int64 [n]
        Indices of the images in the order in which the tiles processed them.
    shifts : float64 [s, 2]
        The grid of shifts in pixels.
    offset : float64 [n, 2]
        Base shift of each image.
    sums : PoseSums, optional
        Sums of the M-step.
    """
    if not answers:
        answers = [TileAnswer.empty(0, settings)]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))  # position of each image in the tiles

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(answer, name) for answer in answers])

    def in_order(name: str) -> np.ndarray:
        """Return the values of all tiles in the order of the images, with a single copy."""
        first = getattr(answers[0], name)
        whole, start = np.empty((len(order), *first.shape[1:]), first.dtype), 0
        for answer in answers:
            part = getattr(answer, name)
            whole[order[start : start + len(part)]] = part
            start += len(part)
        return whole

    number, best, candidate, kept = (in_order(name) for name in ("number", "best", "candidate", "kept"))
    significant = None
    if settings.keep_significant:
        start = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        there = np.concatenate([[0], np.cumsum(joined("kept"))])[place]
        entry = np.repeat(there - start[:-1], kept) + np.arange(start[-1])
        significant = SignificantStates(start, *(joined(name)[entry] for name in ("state", "shift", "weight")))
    return Posterior(
        best_state=best[:, 0],
        best_shift=best[:, 1],
        shift_px=offset + shifts[best[:, 1]],
        mean_shift_px=offset + in_order("shift_probability") @ shifts,
        log_evidence=number[:, 0],
        max_probability=number[:, 1],
        n_effective=number[:, 2],
        n_significant=kept,
        reference_probability=in_order("reference_probability"),
        best_dot=number[:, 3],
        best_norm=number[:, 4],
        grey_scale=number[:, 5],
        candidate_state=candidate[:, :, 0],
        candidate_shift=candidate[:, :, 1],
        candidate_log=in_order("candidate_log"),
        significant=significant,
        sums=sums,
    )
