"""The states of an adaptive search that are still alive, image by image: scored, pruned, cut finer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.kernels.cpu.search import states as pose_states
from cryopipe.kernels.poses import score_poses
from cryopipe.kernels.slices import extract_slices
from cryopipe.projection.particle_spectra import ParticleSpectra
from cryopipe.search.adaptive.cells import OrientationTree

_SLICE_BYTES = 256 << 20
_BATCH_STATES = 1 << 24
_GPU_STATES = 1 << 22


@dataclass(frozen=True)
class Problem:
    """What is searched: images, 1/σ² [g, K] and group [n], the map's cube, base shifts [n, 2], grey scales [n]."""

    images: ParticleSpectra
    inverse_variance: np.ndarray
    noise_group: np.ndarray
    cube: Any
    padding: int
    base_shifts_px: np.ndarray
    scale: np.ndarray

    def slices(self, rotations: np.ndarray, n_pixels: int) -> Any:
        """Return slices of the cube on the first ``n_pixels`` pixels."""
        xp, pixels = array_module(self.cube), self.images.pixels
        kx, ky = (xp.asarray(k[:n_pixels]) for k in (pixels.kx, pixels.ky))
        return extract_slices(self.cube, xp.asarray(rotations), kx, ky, padding=self.padding)

    def information(self, rows: np.ndarray, n_pixels: int) -> np.ndarray:
        """Return (scale C)²/σ² of some images, float32 [rows, n_pixels]."""
        ctf = to_numpy(self.images.ctf[rows, :n_pixels]) * self.scale[rows, None]
        return ctf**2 * self.inverse_variance[self.noise_group[rows], :n_pixels]


@dataclass(frozen=True)
class Frontier:
    """States of n images: each image's cells, ascending, and each cell's squares of shifts.

    ``start`` int64 [n + 1] into ``cells`` int64 [c]; ``state_start`` int64 [c + 1] into ``squares`` int32 (rows of the
    level's lattice); ``capped`` bool [n].
    """

    start: np.ndarray
    cells: np.ndarray
    state_start: np.ndarray
    squares: np.ndarray
    capped: np.ndarray

    def __len__(self) -> int:
        return len(self.start) - 1

    def n_states(self) -> np.ndarray:
        """Return the number of states of each image, int64 [n]."""
        return np.diff(self.state_start[self.start])

    def rows(self, first: int, last: int) -> Frontier:
        """Return the states of some images."""
        a, b = self.start[first], self.start[last]
        c, d = self.state_start[a], self.state_start[b]
        return Frontier(
            self.start[first : last + 1] - a, self.cells[a:b], self.state_start[a : b + 1] - c, self.squares[c:d],
            self.capped[first:last],
        )  # fmt: skip

    def children(self, tree: OrientationTree, order: int, *, cut_shifts: bool) -> Frontier:
        """Cut every cell into 8 (of which those outside the asymmetric unit are left out) and every square into 4."""
        owner = np.repeat(np.arange(len(self)), np.diff(self.start))
        unique, place = np.unique(self.cells, return_inverse=True)
        finer = tree.children(order, unique)
        keep = tree.inside(order + 1, finer)[place].ravel()
        parent = np.repeat(np.arange(len(self.cells)), 8)[keep]
        cells = finer[place].ravel()[keep]
        ascending = np.lexsort((cells, owner[parent]))
        parent, cells = parent[ascending], cells[ascending]
        count = np.diff(self.state_start)[parent]
        first = np.concatenate([[0], np.cumsum(count)])
        squares = self.squares[np.repeat(self.state_start[parent] - first[:-1], count) + np.arange(first[-1])]
        if cut_shifts:
            squares = (4 * squares[:, None] + np.arange(4, dtype=np.int32)).ravel()
            first = 4 * first
        return Frontier(_starts(owner[parent], len(self)), cells, first, squares, self.capped)

    def keep(self, alive: np.ndarray, capped: np.ndarray) -> Frontier:
        """Return the states marked in ``alive``; cells without any go, too."""
        count = np.add.reduceat(alive.astype(np.int64), self.state_start[:-1]) if len(self.cells) else np.zeros(0, int)
        stays = count > 0
        owner = np.repeat(np.arange(len(self)), np.diff(self.start))
        return Frontier(
            _starts(owner[stays], len(self)), self.cells[stays], np.concatenate([[0], np.cumsum(count[stays])]),
            self.squares[alive], self.capped | capped,
        )  # fmt: skip


def from_dense(scores: np.ndarray, cells: np.ndarray, threshold: np.ndarray, most_states: int) -> Frontier:
    """List the states of dense scores [n, squares, cells] that reach each image's threshold."""
    threshold, capped = threshold.astype(np.float32), np.zeros(len(scores), bool)
    for i in range(len(scores)):
        if np.count_nonzero(scores[i] >= threshold[i]) > most_states:
            threshold[i], capped[i] = _cut(scores[i].ravel(), most_states), True
    count = np.zeros((len(scores), len(cells)), np.int64)
    pose_states.count_dense(scores, threshold, count)
    first = np.concatenate([[0], np.cumsum(count)])
    squares = np.empty(first[-1], np.int32)
    pose_states.list_dense(scores, threshold, first[:-1].reshape(count.shape), squares)
    image, cell = np.nonzero(count)
    state_start = np.concatenate([[0], np.cumsum(count[image, cell])])
    return Frontier(_starts(image, len(scores)), cells[cell], state_start, squares, capped)


def prune(frontier: Frontier, scores: np.ndarray, threshold: np.ndarray, most_states: int) -> Frontier:
    """Keep the states that reach their image's threshold, the ``most_states`` best where there are more."""
    ends = frontier.state_start[frontier.start]
    alive, capped = np.empty(len(scores), bool), np.zeros(len(frontier), bool)
    for i in range(len(frontier)):
        part = slice(ends[i], ends[i + 1])
        alive[part] = scores[part] >= threshold[i]
        if np.count_nonzero(alive[part]) > most_states:
            alive[part], capped[i] = scores[part] >= _cut(scores[part], most_states), True
    return frontier.keep(alive, capped)


def joined(parts: list[Frontier], order: np.ndarray) -> Frontier:
    """Put batches together; image i of the batches is image ``order[i]`` of the result."""
    if not parts:
        none = np.zeros(1, np.int64)
        return Frontier(none, none[:0], none, np.zeros(0, np.int32), np.zeros(0, bool))
    place = np.argsort(order, kind="stable")
    start, at_cell = _reordered(np.concatenate([np.diff(p.start) for p in parts]), place)
    counts = np.concatenate([np.diff(p.state_start) for p in parts])
    state_start, at_state = _reordered(counts, at_cell)
    return Frontier(
        start, np.concatenate([p.cells for p in parts])[at_cell], state_start,
        np.concatenate([p.squares for p in parts])[at_state], np.concatenate([p.capped for p in parts])[place],
    )  # fmt: skip


def batches(frontier: Frontier, growth: int) -> list[tuple[int, int]]:
    """Return ranges of images whose states, ``growth`` times as many once they are cut, fit into memory together."""
    ends = np.cumsum(frontier.n_states()) * growth
    found, first = [], 0
    while first < len(ends):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _BATCH_STATES, side="right")))
        found.append((first, last))
        first = last
    return found


def score(
    problem: Problem,
    frontier: Frontier,
    first: int,
    tree: OrientationTree,
    order: int,
    centres: np.ndarray,
    radius: int,
) -> np.ndarray:
    """Return the log-likelihoods of the states of a batch that starts at image ``first``, float32 [states].

    ``centres`` are the shifts in px of the level's lattice.
    """
    n_pixels = problem.images.pixels.count_within(radius)
    rows = slice(first, first + len(frontier))
    if array_module(problem.cube) is not np:
        return score_by_kernel(problem, frontier, rows, tree, order, centres, n_pixels)
    scores = np.empty(len(frontier.squares), np.float32)
    pixels = problem.images.pixels
    union, slot = np.unique(frontier.cells, return_inverse=True)
    step = max(1, _SLICE_BYTES // (8 * n_pixels))
    for begin in range(0, len(union), step):
        slices = problem.slices(tree.rotations(order, union[begin : begin + step]), n_pixels)
        pose_states.score_states(
            problem.images.values[rows], problem.images.ctf[rows], problem.inverse_variance, problem.noise_group[rows],
            problem.scale[rows], pixels.kx[:n_pixels], pixels.ky[:n_pixels], pixels.box, slices, begin, frontier.start,
            slot, frontier.state_start, frontier.squares, centres, problem.base_shifts_px[rows], scores,
        )  # fmt: skip
    return scores


def score_by_kernel(
    problem: Problem, frontier: Frontier, rows: slice, tree: OrientationTree, order: int, centres: np.ndarray,
    n_pixels: int,
) -> np.ndarray:  # fmt: skip
    """Return the same by the fused kernel that interpolates each pair's slice anew: what runs on a GPU.

    Lists are filled up to the longest among a few images, by repeating the last entry.
    """
    images, xp = problem.images, array_module(problem.cube)
    kx, ky = (xp.asarray(k[:n_pixels]) for k in (images.pixels.kx, images.pixels.ky))
    scores = np.empty(len(frontier.squares), np.float32)
    counts, moves = np.diff(frontier.start), np.diff(frontier.state_start)
    i = 0
    while i < len(counts):
        last = i + 1
        while last < len(counts) and _filled_size(frontier, i, last + 1) < _GPU_STATES:
            last += 1
        part = slice(rows.start + i, rows.start + last)
        cell = np.minimum(np.arange(counts[i:last].max()), counts[i:last, None] - 1) + frontier.start[i:last, None]
        widest = np.arange(moves[frontier.start[i] : frontier.start[last]].max())
        state = np.minimum(widest, moves[cell][..., None] - 1) + frontier.state_start[cell][..., None]
        poses = tree.rotations(order, frontier.cells[cell].ravel()).reshape(*cell.shape, 3, 3)
        shifts = centres[frontier.squares[state]] + problem.base_shifts_px[part, None, None]
        values = xp.ascontiguousarray(images.values[part, :n_pixels])
        ctf = xp.ascontiguousarray(images.ctf[part, :n_pixels])
        inverse = xp.asarray(problem.inverse_variance[problem.noise_group[part], :n_pixels])
        found = score_poses(
            problem.cube, values, ctf, inverse, xp.asarray(poses), xp.asarray(shifts), kx, ky, box=images.pixels.box,
            padding=problem.padding, scale=xp.asarray(problem.scale[part]),
        )  # fmt: skip
        alone = 0.5 * ((values.real**2 + values.imag**2) * inverse).sum(axis=1, dtype=np.float64)
        scores[state] = to_numpy(found + alone[:, None, None])  # repetitions hold the same value
        i = last
    return scores


def _filled_size(frontier: Frontier, first: int, last: int) -> int:
    cells = np.diff(frontier.start[first : last + 1]).max()
    states = np.diff(frontier.state_start[frontier.start[first] : frontier.start[last] + 1]).max()
    return int((last - first) * cells * states)


def _cut(scores: np.ndarray, most: int) -> float:
    """Return the threshold that the ``most`` best scores reach (ties may leave a few more)."""
    return float(np.partition(scores, len(scores) - most)[len(scores) - most])


def _reordered(counts: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and entries of lists of the given lengths, in the order ``place``."""
    first = np.concatenate([[0], np.cumsum(counts)])[:-1][place]
    counts = counts[place]
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return start, np.repeat(first - start[:-1], counts) + np.arange(start[-1])


def _starts(owner: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))]).astype(np.int64)
