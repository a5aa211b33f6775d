"""The CPU side of a search tile: BLAS blocks and Numba loops on one pool of threads.

Every product is a (group of images) x (block of states) and one single-threaded BLAS call. Its shape depends on the problem
alone. The last bits of a BLAS result depend on the shape and on the place of a row in it. Both follow from the rank of the
image in content order, so neither threads nor the memory budget change a bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import TracebackType
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from cryopipe.kernels.cpu.posteriors import inputs, probabilities, summation
from cryopipe.search.exhaustive.tile import TileAnswer, TileData, TileSettings, filled

#: Largest number of states in a block of the products. The threads share the blocks.
_BLOCK = 1024
_SPARSE_BELOW = 0.04
"""Share of significant states below which adding them one by one is faster than the dense product (a product is some 25 "
"times faster per entry)."""


class CpuTile:
    """Score tiles of images against all states and add up their M-step sums, on the CPU."""

    def __init__(self, references: np.ndarray, settings: TileSettings, threads: int) -> None:
        self.settings = settings
        self.n_states, self.n_pixels = references.shape
        self.padded = filled(self.n_states, 32)
        self.references = _pad_rows(references, self.padded)
        self.power = np.empty((self.padded, self.n_pixels), np.float32)
        inputs.square(self.references, self.power)
        groups, rows, images = settings.groups, settings.group_rows, filled(settings.group_images, 12)
        self.rows = np.zeros((groups, rows, self.n_pixels), np.complex64)
        self.scores = np.zeros((groups, rows, self.padded), np.float32)
        self.information = np.zeros((groups, images, self.n_pixels), np.float32)
        self.norm = np.zeros((groups, images, self.padded), np.float32)
        self.marginal = np.zeros((groups if settings.accumulate else 0, images, self.padded), np.float32)
        summed = self.padded if settings.accumulate else 0
        self.numerator = np.zeros((summed, self.n_pixels), np.complex64)
        self.weight = np.zeros((summed, self.n_pixels), np.float32)
        self.data_power = np.zeros(self.n_pixels)
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

    def score(self, data: TileData, part: np.ndarray) -> np.ndarray:
        """Fill rows, information, scores and norms for the images ``part`` (at most ``settings.images``).

        Returns
        -------
        bool [len(part)]
            Which images and CTFs are finite.
        """
        finite = np.empty(len(part), bool)
        pixels = data.pixels
        self.scale, self.data, self.part = data.scale[part], data, part
        self._over(
            len(part), inputs.fill_rows, data.values, data.ctf, data.inverse_variance, data.noise_group,
            data.base_shifts_px / pixels.box, pixels.kx, pixels.ky, data.phases, part, self.settings.group_images,
            self.rows, self.information, finite,
        )  # fmt: skip
        references = self.references.view(np.float32)

        def product(job: tuple[slice, int]) -> None:
            states, group = job
            np.matmul(self.rows[group].view(np.float32), references[states].T, out=self.scores[group][:, states])
            np.matmul(self.information[group], self.power[states].T, out=self.norm[group][:, states])

        list(self.pool.map(product, itertools.product(self.blocks, range(self._groups(len(part))))))
        return finite

    def log_likelihoods(self, n: int) -> np.ndarray:
        """Return the log-likelihoods of the last scored tile, float32 [n, shifts, states]."""
        settings = self.settings
        found = np.empty((n, settings.n_shifts, self.n_states), np.float32)
        self._over(
            n, probabilities.likelihoods, self.scores, self.norm, settings.group_images, self.scale,
            np.float32(settings.scale_sd**2), found,
        )  # fmt: skip
        return found

    def posterior(self, n: int, log_state: np.ndarray, log_shift: np.ndarray) -> TileAnswer:
        """Convert the scores of the first ``n`` images to probabilities (in place) and return what is kept of them."""
        settings, answer = self.settings, TileAnswer.empty(n, self.settings)
        group, variance = settings.group_images, np.float32(settings.scale_sd**2)
        self._over(
            n, probabilities.posterior, self.scores, self.norm, group, log_state, log_shift, self.scale, variance,
            np.float32(settings.inverse_temperature), settings.mass, answer.number, answer.shift_probability,
            answer.reference_probability, answer.best, answer.kept, answer.candidate_log, answer.candidate,
            self.marginal,
        )  # fmt: skip
        self._over(
            n, summation.best_products, self.rows, self.references, self.norm, group, self.scale, variance, answer.best,
            settings.n_shifts, answer.number,
        )  # fmt: skip
        answer.start[1:] = np.cumsum(answer.kept)
        bounds = answer.start[np.minimum(np.arange(self._groups(n) + 1) * group, n)]
        answer.dense = settings.accumulate & (
            np.diff(bounds) > _SPARSE_BELOW * group * settings.n_shifts * self.n_states
        )
        if settings.keep_significant or (settings.accumulate and not answer.dense.all()):
            entries = int(answer.start[-1])
            answer.state, answer.shift = np.empty(entries, np.int32), np.empty(entries, np.int32)
            answer.weight = np.empty(entries, np.float32)
            self._over(
                n, summation.gather, self.scores, group, settings.n_shifts, answer.start, self.n_states, answer.state,
                answer.shift, answer.weight,
            )  # fmt: skip
        return answer

    def accumulate(self, n: int, answer: TileAnswer) -> None:
        """Add the probabilities of the tile times the data to the sums, group by group, in an order that is always the same."""
        size = self.settings.group_images
        for group in range(self._groups(n)):
            first, last = group * size, min(group * size + size, n)
            self.data_power += self.data.whitened_power(self.part[first:last])
            number = answer.number[first:last]
            if answer.dense[group]:
                self._add_dense(group, number)
            else:
                self._add_sparse(group, number, answer, first, last)

    def sums(self) -> tuple[Any, Any, np.ndarray]:
        """Return (numerator, weight, data power) without padding."""
        return self.numerator[: self.n_states], self.weight[: self.n_states], self.data_power

    def _add_dense(self, group: int, number: np.ndarray) -> None:
        scores, marginal = self.scores[group], self.marginal[group]
        scores[len(number) * self.settings.n_shifts :] = 0
        scores[:, self.n_states :] = 0
        marginal[len(number) :] = 0
        summation.apply_scale(scores, marginal, self.settings.n_shifts, number)
        rows, information = self.rows[group].view(np.float32), self.information[group]

        def add(part: slice) -> None:
            self.numerator[part].view(np.float32)[...] += scores[:, part].T @ rows
            self.weight[part] += marginal[:, part].T @ information

        list(self.pool.map(add, self.blocks))

    def _add_sparse(self, group: int, number: np.ndarray, answer: TileAnswer, first: int, last: int) -> None:
        entries = slice(answer.start[first], answer.start[last])
        order, starts = _by_state(answer.state[entries], self.n_states)
        image = np.repeat(np.arange(last - first), answer.kept[first:last])
        self._over(
            self.n_states, summation.add_sparse, self.rows[group], self.information[group], image, answer.shift[entries],
            answer.weight[entries], order, starts, self.settings.n_shifts, number, self.numerator, self.weight,
        )  # fmt: skip

    def _groups(self, n: int) -> int:
        return -(-n // self.settings.group_images)

    def _over(self, count: int, loop: Callable[..., None], *arguments: Any) -> None:
        """Run ``loop(*arguments, first, last)`` over ranges of 0..count on the pool."""
        step = max(1, -(-count // (4 * self.threads)))
        list(self.pool.map(lambda first: loop(*arguments, first, min(first + step, count)), range(0, count, step)))


def tile_bytes(settings: TileSettings, n_states: int, n_pixels: int) -> int:
    """Return the memory of the buffers of a tile: scores, norms, rows, and the part of the posterior for the M-step."""
    images = filled(settings.group_images, 12)
    a_state = 4 * (settings.group_rows + images * (2 if settings.accumulate else 1))
    a_pixel = 8 * settings.group_rows + 4 * images
    return settings.groups * (a_state * filled(n_states, 32) + a_pixel * n_pixels)


def held_bytes(n_states: int, n_pixels: int, *, accumulate: bool) -> int:
    """Return the memory of padded references, their powers and the sums."""
    return filled(n_states, 32) * n_pixels * (8 + 4 + (12 if accumulate else 0))


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
    """Return the order of the entries by state (and by image within a state), and where the entries of a state start."""
    first = np.zeros(n_states + 1, np.int64)
    np.cumsum(np.bincount(state, minlength=n_states), out=first[1:])
    return np.argsort(state, kind="stable"), first
