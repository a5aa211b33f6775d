"""The levels of an adaptive search: score, prune, describe."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cryopipe.imaging.backend import to_numpy
from cryopipe.kernels.cpu.search import states as pose_states
from cryopipe.projection.particle_spectra import content_order
from cryopipe.projection.phases import phase_table
from cryopipe.search.adaptive.bounds import cell_losses, high_band_bound
from cryopipe.search.adaptive.cells import (
    OrientationTree,
    child_shifts,
    in_plane_intervals,
    root_shifts,
    shift_centres,
)
from cryopipe.search.adaptive.levels import AdaptivePosterior, Level, LevelReport
from cryopipe.search.adaptive.survivors import Frontier, Problem, batches, from_dense, joined, prune, score
from cryopipe.search.exhaustive.search import log_likelihoods
from cryopipe.search.exhaustive.tile import group_images
from cryopipe.search.grid import angular_step_deg

_CELL_SAMPLE = 256
_CELL_DEPTH = 4
_VIEW_ORDER = 3
_SIGNIFICANT = 1e-3


@dataclass(frozen=True)
class Plan:
    """The levels of one search, and what it may miss."""

    problem: Problem
    tree: OrientationTree
    levels: tuple[Level, ...]
    shift_range_px: float
    shift_sigma_px: float | None
    miss_probability: float
    guarantee: str

    @property
    def miss(self) -> float:
        """Share of each of a level's two statements in the probability of a miss."""
        return self.miss_probability / (2 * len(self.levels))

    def lattice(self, depth: int) -> np.ndarray:
        """All squares of a level."""
        if self.shift_range_px == 0:
            return np.zeros((1, 2), np.int64)
        squares = root_shifts(self.shift_range_px, self.levels[0].shift_step_px)
        for level in range(1, depth + 1):
            if self.cuts_shifts(level):
                squares = child_shifts(squares).reshape(-1, 2)
        return squares

    def cuts_shifts(self, depth: int) -> bool:
        """Whether the squares of a level are quarters of those of the level before."""
        return self.shift_range_px > 0 and self.levels[depth].shift_step_px < self.levels[depth - 1].shift_step_px

    def centres(self, depth: int) -> np.ndarray:
        """Shifts (x, y) in px at the centres of a level's squares."""
        if self.shift_range_px == 0:
            return np.zeros((1, 2))
        return shift_centres(self.lattice(depth), self.levels[depth].shift_step_px)

    def cell_prior(self, depth: int, cells: np.ndarray) -> np.ndarray:
        """Log prior of cells, summing to one over the level: the part of each that lies in the asymmetric unit."""
        order = self.levels[depth].order
        pixel = cells // in_plane_intervals(order)
        if 12 * 4**order < len(cells):
            shares = self.tree.shares(order, np.arange(12 * 4**order))[pixel]
        else:
            unique, place = np.unique(pixel, return_inverse=True)
            shares = self.tree.shares(order, unique)[place]
        return np.log(shares * len(self.tree.operators) / (12 * 4**order * in_plane_intervals(order)))

    def square_prior(self, depth: int) -> np.ndarray:
        """Log prior of a level's squares, summing to one."""
        squared = (self.centres(depth) ** 2).sum(axis=1)
        log = -squared / (2 * self.shift_sigma_px**2) if self.shift_sigma_px else np.zeros(len(squared))
        return log - np.logaddexp.reduce(log)


def first_level(
    plan: Plan, sigma2: np.ndarray, noise_group: np.ndarray | None, most: int, threads: int | None
) -> tuple[Frontier, LevelReport]:
    """Score all roots against all images by matrix products, a few images at a time, and prune."""
    problem, level, tree = plan.problem, plan.levels[0], plan.tree
    coarse = problem.images.crop(level.radius)
    roots, shifts = tree.roots(), plan.centres(0)
    slices = problem.slices(tree.rotations(level.order, roots), len(coarse.pixels))
    differences = _cell_differences(plan, 0)
    priors = plan.cell_prior(0, roots), plan.square_prior(0)
    order = content_order(coarse)
    parts, losses = [], np.zeros(len(coarse))
    step = group_images(len(shifts), len(roots))
    for first in range(0, len(coarse), step):
        rows = order[first : first + step]
        scores = log_likelihoods(
            coarse.subset(rows), sigma2, slices, shifts, base_shifts_px=problem.base_shifts_px[rows],
            noise_group=None if noise_group is None else problem.noise_group[rows], scale=problem.scale[rows],
            threads=threads,
        )  # fmt: skip
        number, best = np.empty((len(rows), 1)), np.empty((len(rows), 2), np.int64)
        pose_states.dense_evidence(scores, *priors, number, best)
        threshold, losses[rows] = _threshold(plan, 0, rows, number[:, 0], roots[best[:, 1]], best[:, 0], differences)
        parts.append(from_dense(scores, roots, threshold, most))
    frontier = joined(parts, order)
    whole = len(coarse) * len(roots) * len(shifts)
    return frontier, LevelReport(level, whole, whole, len(frontier.squares), _median(losses))


def next_level(
    plan: Plan, depth: int, frontier: Frontier, most: int, n_candidates: int
) -> tuple[Frontier, LevelReport, AdaptivePosterior | None]:
    """Cut the survivors, score and prune; on the last level describe the posterior instead."""
    level, problem, centres = plan.levels[depth], plan.problem, plan.centres(depth)
    last = depth == len(plan.levels) - 1
    differences = None if last else _cell_differences(plan, depth)
    cuts = plan.cuts_shifts(depth)
    parts, answers, losses, scored = [], [], np.zeros(len(frontier)), 0
    for first, end in batches(frontier, 32 if cuts else 8):
        part = frontier.rows(first, end).children(plan.tree, level.order - 1, cut_shifts=cuts)
        scores = score(problem, part, first, plan.tree, level.order, centres, level.radius)
        scored += len(scores)
        if differences is None:
            parts.append(part)
            answers.append(describe(plan, depth, part, scores, n_candidates))
            continue
        number, best = _numbers(plan, depth, part, scores)
        threshold, losses[first:end] = _threshold(
            plan, depth, np.arange(first, end), number[:, 0], part.cells[best[:, 0]], part.squares[best[:, 1]],
            differences,
        )  # fmt: skip
        parts.append(prune(part, scores, threshold, most))
    joint = joined(parts, np.arange(len(frontier)))
    whole = len(frontier) * len(plan.tree.roots()) * 8**depth * len(centres)
    report = LevelReport(level, scored, whole, len(joint.squares), _median(losses))
    return joint, report, stacked(answers, problem.base_shifts_px, n_candidates) if last else None


def _median(losses: np.ndarray) -> float:
    return float(np.median(losses)) if len(losses) else 0.0


def _cell_differences(plan: Plan, depth: int) -> np.ndarray:
    """Return |Y(pose) - Y(centre of its cell)|² of a sample of poses spread evenly over cells, float32 [j, K].

    The sample is a fixed one: results do not depend on a seed.
    """
    level, tree = plan.levels[depth], plan.tree
    rng = np.random.default_rng(0)
    turns, inner = in_plane_intervals(level.order), 4**_CELL_DEPTH
    pixel = rng.integers(0, 12 * 4**level.order, _CELL_SAMPLE)
    turn = rng.integers(0, turns, _CELL_SAMPLE)
    deeper = pixel * inner + rng.integers(0, inner, _CELL_SAMPLE)
    deeper_turn = turn * 2**_CELL_DEPTH + rng.integers(0, 2**_CELL_DEPTH, _CELL_SAMPLE)
    order = level.order + _CELL_DEPTH
    pixels = plan.problem.images.pixels.crop(level.radius)
    centres = plan.problem.slices(tree.rotations(level.order, pixel * turns + turn), len(pixels))
    poses = plan.problem.slices(tree.rotations(order, deeper * in_plane_intervals(order) + deeper_turn), len(pixels))
    moves = rng.uniform(-0.5, 0.5, (_CELL_SAMPLE, 2)) * (level.shift_step_px if plan.shift_range_px else 0.0)
    difference = to_numpy(poses) * phase_table(pixels, moves) - to_numpy(centres)
    return difference.real**2 + difference.imag**2


def _threshold(
    plan: Plan, depth: int, rows: np.ndarray, log_evidence: np.ndarray, cell: np.ndarray, square: np.ndarray,
    differences: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the log-likelihood that states must reach, and the allowance for the coarseness of cells, of images.

    ``cell``, ``square``: each image's best state on the level.
    """
    level = plan.levels[depth]
    n_pixels = plan.problem.images.pixels.count_within(level.radius)
    loss = cell_losses(plan.problem.information(rows, n_pixels) @ differences.T, plan.miss)
    threshold = log_evidence + np.log(plan.miss) - loss
    if plan.guarantee == "best" and level.radius < plan.levels[-1].radius:
        threshold = np.minimum(threshold, _branch_and_bound(plan, depth, rows, cell, square) - loss)
    return threshold, loss


def _branch_and_bound(plan: Plan, depth: int, rows: np.ndarray, cell: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Return the log-likelihood inside the level's radius below which no state can be significant at the full one."""
    problem, level, final = plan.problem, plan.levels[depth], plan.levels[-1]
    one = np.arange(len(rows) + 1)
    known = Frontier(one, cell, one, square.astype(np.int32), np.zeros(len(rows), bool))
    chosen = replace(
        problem,
        images=problem.images.subset(rows),
        noise_group=problem.noise_group[rows],
        base_shifts_px=problem.base_shifts_px[rows],
        scale=problem.scale[rows],
    )
    found = score(chosen, known, 0, plan.tree, level.order, plan.centres(depth), final.radius)
    low, full = (problem.images.pixels.count_within(r) for r in (level.radius, final.radius))
    views = plan.tree.rotations(level.order, _view_cells(level.order))
    power = np.abs(to_numpy(problem.slices(views, full))[:, low:]) ** 2
    most = (problem.information(rows, full)[:, low:] @ power.T).max(axis=1)
    orientations = 12 * 4**final.order * in_plane_intervals(final.order) / len(plan.tree.operators)
    n_states = orientations * len(plan.lattice(len(plan.levels) - 1))
    return found + np.log(_SIGNIFICANT) - high_band_bound(most, n_states, plan.miss)


def _view_cells(order: int) -> np.ndarray:
    """Return cells of a level that spread over all views."""
    pixels = np.arange(12 * 4**_VIEW_ORDER, dtype=np.int64)
    if order >= _VIEW_ORDER:
        return (pixels << 2 * (order - _VIEW_ORDER)) * in_plane_intervals(order)
    return np.arange(12 * 4**order, dtype=np.int64) * in_plane_intervals(order)


def _numbers(plan: Plan, depth: int, part: Frontier, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    priors = plan.cell_prior(depth, part.cells), plan.square_prior(depth)
    number, best = np.zeros((len(part), 4)), np.zeros((len(part), 2), np.int64)
    pose_states.describe(scores, part.start, part.state_start, part.squares, *priors, number, best)
    return number, best


def describe(plan: Plan, depth: int, part: Frontier, scores: np.ndarray, n_candidates: int) -> AdaptivePosterior:
    """Return the posterior of a batch on the last level, base shifts not yet added."""
    level, centres, wanted = plan.levels[depth], plan.centres(depth), max(1, n_candidates)
    number, _ = _numbers(plan, depth, part, scores)
    value, square = np.empty(len(part.cells)), np.empty(len(part.cells), np.int32)
    priors = plan.cell_prior(depth, part.cells), plan.square_prior(depth)
    pose_states.best_of_cells(scores, part.state_start, part.squares, *priors, value, square)
    n = len(part)
    rotations, moves = np.empty((n, wanted, 3, 3)), np.empty((n, wanted, 2))
    logs = np.full((n, wanted), -np.inf)
    apart = np.cos(np.radians(2 * angular_step_deg(level.order)))
    for i in range(n):
        mine = slice(part.start[i], part.start[i + 1])
        chosen = _peaks(plan.tree, level.order, part.cells[mine], value[mine], wanted, apart)
        logs[i, : len(chosen)] = value[mine][chosen] - value[mine][chosen[0]]
        filled = np.concatenate([chosen, np.repeat(chosen[:1], wanted - len(chosen))])
        rotations[i] = plan.tree.rotations(level.order, part.cells[mine][filled])
        moves[i] = centres[square[mine][filled]]
    return AdaptivePosterior(
        rotations=rotations[:, 0],
        shift_px=moves[:, 0],
        log_likelihood=number[:, 3],
        log_evidence=number[:, 0],
        max_probability=number[:, 1],
        n_effective=number[:, 2],
        candidate_rotations=rotations,
        candidate_shifts_px=moves,
        candidate_log=logs,
        capped=part.capped,
        reports=(),
    )


def _peaks(
    tree: OrientationTree, order: int, cells: np.ndarray, value: np.ndarray, wanted: int, least_cosine: float
) -> np.ndarray:
    """Return the places of the best cells that are an angle apart, best first (among the 512 best)."""
    ranked = np.argsort(-value, kind="stable")[:512]
    poses = tree.rotations(order, cells[ranked])
    chosen: list[int] = []
    free = np.ones(len(ranked), bool)
    for _ in range(wanted):
        if not free.any():
            break
        i = int(np.flatnonzero(free)[0])
        chosen.append(i)
        trace = np.einsum("ij,nij->n", poses[i], poses)
        free &= (trace - 1) / 2 < least_cosine
    return ranked[chosen]


def stacked(parts: list[AdaptivePosterior], base_shifts_px: np.ndarray, n_candidates: int) -> AdaptivePosterior:
    """Put batches together and add the images' base shifts."""
    m, none = max(1, n_candidates), np.zeros(0)
    nothing = AdaptivePosterior(
        np.zeros((0, 3, 3)), np.zeros((0, 2)), none, none, none, none, np.zeros((0, m, 3, 3)), np.zeros((0, m, 2)),
        np.zeros((0, m)), np.zeros(0, bool), (),
    )  # fmt: skip
    names = [name for name in AdaptivePosterior.__dataclass_fields__ if name != "reports"]
    whole = {name: np.concatenate([getattr(part, name) for part in [nothing, *parts]]) for name in names}
    whole["shift_px"] = whole["shift_px"] + base_shifts_px
    whole["candidate_shifts_px"] = whole["candidate_shifts_px"] + base_shifts_px[:, None, :]
    return AdaptivePosterior(**whole, reports=())
