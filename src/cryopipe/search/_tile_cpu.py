"""The CPU side of a search tile: BLAS blocks and Numba loops on one pool of threads.

Every product is cut into blocks whose shapes depend on the problem alone and each block is one single-threaded BLAS
call; so neither the number of threads nor the place of an image in the stack changes a bit of its result.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import TracebackType
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from cryopipe.search import _tile_loops as loops
from cryopipe.search._tile import TileAnswer, TileSettings

_BLOCK = 1024
_SPARSE_BELOW = 0.04
"""Share of significant states below which adding them one by one beats the dense product (a product runs some 25 "
"times faster an entry)."""


class CpuTile:
    """Score tiles of images against all states and add up their M-step sums, on the CPU."""

    def __init__(self, references: np.ndarray, settings: TileSettings, threads: int) -> None:
        self.settings = settings
        self.n_states, self.n_pixels = references.shape
        self.padded = -(-self.n_states // 32) * 32
        self.references = _pad_rows(references, self.padded)
        self.power = np.empty((self.padded, self.n_pixels), np.float32)
        loops.square(self.references, self.power)
        rows = -(-settings.images * settings.n_shifts // 32) * 32
        self.rows = np.zeros((rows, self.n_pixels), np.complex64)
        self.scores = np.zeros((rows, self.padded), np.float32)
        images = -(-settings.images // 8) * 8
        self.information = np.zeros((images, self.n_pixels), np.float32)
        self.norm = np.zeros((images, self.padded), np.float32)
        self.marginal = np.zeros((images if settings.accumulate else 0, self.padded), np.float32)
        summed = self.padded if settings.accumulate else 0
        self.numerator = np.zeros((summed, self.n_pixels), np.complex64)
        self.weight = np.zeros((summed, self.n_pixels), np.float32)
        blocks = max(2, -(-self.padded // _BLOCK))
        step = -(-self.padded // (32 * blocks)) * 32
        self.blocks = [slice(i, min(i + step, self.padded)) for i in range(0, self.padded, step)]
        self.threads = max(1, threads)
        self.pool = ThreadPoolExecutor(self.threads)

    def __enter__(self) -> CpuTile:
        self.limit = _controller().limit(limits=1, user_api="blas")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.limit.restore_original_limits()
        self.pool.shutdown()

    def score(self, values: np.ndarray, ctf: np.ndarray, inverse_variance: np.ndarray, phases: np.ndarray) -> None:
        """Fill rows, information, scores and norms for the images of a tile (at most ``settings.images``)."""
        self._over(len(values), loops.fill_rows, values, ctf, inverse_variance, phases, self.rows, self.information)
        rows, references = self.rows.view(np.float32), self.references.view(np.float32)

        def block(part: slice) -> None:
            np.matmul(rows, references[part].T, out=self.scores[:, part])
            np.matmul(self.information, self.power[part].T, out=self.norm[:, part])

        list(self.pool.map(block, self.blocks))

    def log_likelihoods(self, n: int) -> np.ndarray:
        """Return the log-likelihoods of the tile just scored, float32 [n, shifts, states]."""
        return (self._scores(n) - 0.5 * self.norm[:n, None, :])[:, :, : self.n_states]

    def posterior(self, n: int, log_state: np.ndarray, log_shift: np.ndarray) -> TileAnswer:
        """Turn the scores of the first ``n`` images into probabilities (in place) and return what is kept of them."""
        settings, answer, scores = self.settings, TileAnswer.empty(n, self.settings), self._scores(n)
        self._over(
            n, loops.posterior, scores, self.norm, log_state, log_shift, np.float32(settings.inverse_temperature),
            settings.mass, answer.number, answer.shift_probability, answer.reference_probability, answer.best,
            answer.kept, answer.candidate_log, answer.candidate, self.marginal,
        )  # fmt: skip
        loops.best_products(self.rows, self.references, self.norm, answer.best, settings.n_shifts, answer.number)
        answer.start[1:] = np.cumsum(answer.kept)
        entries = int(answer.start[-1])
        answer.dense = settings.accumulate and entries > _SPARSE_BELOW * n * settings.n_shifts * self.n_states
        if settings.keep_significant or (settings.accumulate and not answer.dense):
            answer.state, answer.shift = np.empty(entries, np.int32), np.empty(entries, np.int32)
            answer.weight = np.empty(entries, np.float32)
            self._over(n, loops.gather, scores, answer.start, self.n_states, answer.state, answer.shift, answer.weight)
        return answer

    def accumulate(self, n: int, answer: TileAnswer) -> None:
        """Add the tile's probabilities times data to the sums."""
        if not answer.dense:
            order, first = _by_state(answer.state, self.n_states)
            image = np.repeat(np.arange(n), np.diff(answer.start))
            self._over(
                self.n_states, loops.add_sparse, self.rows, self.information, image, answer.shift, answer.weight, order,
                first, self.settings.n_shifts, self.numerator, self.weight,
            )  # fmt: skip
            return
        self.scores[n * self.settings.n_shifts :] = 0
        self.scores[:, self.n_states :] = 0
        self.marginal[n:] = 0
        rows = self.rows.view(np.float32)

        def block(part: slice) -> None:
            self.numerator[part].view(np.float32)[...] += self.scores[:, part].T @ rows
            self.weight[part] += self.marginal[:, part].T @ self.information

        list(self.pool.map(block, self.blocks))

    def sums(self) -> tuple[Any, Any]:
        """Return (numerator, weight) without padding."""
        return self.numerator[: self.n_states], self.weight[: self.n_states]

    def _scores(self, n: int) -> np.ndarray:
        return self.scores[: n * self.settings.n_shifts].reshape(n, self.settings.n_shifts, self.padded)

    def _over(self, count: int, loop: Callable[..., None], *arguments: Any) -> None:
        """Run ``loop(*arguments, first, last)`` over ranges of 0..count on the pool."""
        step = max(1, -(-count // (4 * self.threads)))
        list(self.pool.map(lambda first: loop(*arguments, first, min(first + step, count)), range(0, count, step)))


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _pad_rows(references: np.ndarray, rows: int) -> np.ndarray:
    references = np.ascontiguousarray(references, np.complex64)
    if rows == len(references):
        return references
    padded = np.zeros((rows, references.shape[1]), np.complex64)
    padded[: len(references)] = references
    return padded


def _by_state(state: np.ndarray, n_states: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the entries' order by state (image order kept inside a state) and where each state's entries start."""
    first = np.zeros(n_states + 1, np.int64)
    np.cumsum(np.bincount(state, minlength=n_states), out=first[1:])
    return np.argsort(state, kind="stable"), first
