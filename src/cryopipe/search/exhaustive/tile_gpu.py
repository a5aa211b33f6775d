"""A search tile made only of array expressions. CuPy runs it on the GPU (cuBLAS products), and NumPy in the tests."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.kernels.cpu.posteriors.probabilities import BIN_SHIFT, BINS, REACH, TOP_BIN
from cryopipe.projection.phases import separable_ramps
from cryopipe.search.exhaustive.tile import (
    TileAnswer,
    TileData,
    TileSettings,
    averaged_likelihood,
)


class ArrayTile:
    """Score tiles of images against all states and add up their M-step sums, on the device of the references."""

    def __init__(self, references: Any, settings: TileSettings) -> None:
        self.xp = array_module(references)
        self.settings = settings
        self.references = self.xp.ascontiguousarray(references)
        self.power = (self.references.real**2 + self.references.imag**2).astype(np.float32)
        shape = references.shape
        self.numerator = self.xp.zeros(shape, np.complex64) if settings.accumulate else None
        self.weight = self.xp.zeros(shape, np.float32) if settings.accumulate else None
        self.data_power = np.zeros(shape[1])
        self.n_states = shape[0]

    def __enter__(self) -> ArrayTile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def score(self, data: TileData, part: np.ndarray) -> np.ndarray:
        """Fill rows, information, scores and norms for the images ``part``. Return which are finite."""
        xp = self.xp
        index = xp.asarray(part)
        values, ctf = data.values[index], data.ctf[index]
        inverse_variance = data.inverse_variance[xp.asarray(data.noise_group[part])]
        factor = ctf * inverse_variance
        self.data, self.part = data, part
        self.scale = xp.asarray(data.scale[part])
        self.information = factor * ctf
        weighted = values * factor
        finite = to_numpy(xp.isfinite(weighted.sum(axis=1)) & xp.isfinite(self.information.sum(axis=1)))
        if data.base_shifts_px[part].any():
            weighted *= separable_ramps(data.pixels, data.base_shifts_px[part], xp)
        self.rows = (weighted[:, None, :] * xp.asarray(data.phases)[None]).reshape(-1, values.shape[1])  # [n s, K]
        products = self.rows.view(np.float32) @ self.references.view(np.float32).T
        self.scores = products.reshape(len(part), -1, self.n_states)
        self.norm = self.information @ self.power.T
        return finite

    def log_likelihoods(self, n: int) -> np.ndarray:
        """Return the log-likelihoods of the last scored tile, float32 [n, shifts, states]."""
        return to_numpy(self._log_likelihood())

    def _log_likelihood(self) -> Any:
        scale, sd = self.scale[:, None, None], self.settings.scale_sd
        return averaged_likelihood(self.scores, self.norm[:, None, :], scale, sd, self.xp)

    def posterior(self, n: int, log_state: Any, log_shift: Any) -> TileAnswer:
        """Convert the scores to probabilities and return what is kept of them."""
        xp, settings = self.xp, self.settings
        answer = TileAnswer.empty(n, settings)
        beta = np.float32(settings.inverse_temperature)
        value = self._log_likelihood()
        value *= beta
        value += xp.asarray(log_state)
        value += xp.asarray(log_shift)[:, :, None]
        flat = value.reshape(n, -1)
        at = flat.argmax(axis=1)
        top = flat[xp.arange(n), at]
        depth = top[:, None, None] - value
        p = xp.where(depth < REACH, xp.exp(-depth), np.float32(0))
        total = p.sum(axis=(1, 2), dtype=np.float64)
        bins = xp.where(p > 0, xp.minimum(TOP_BIN - (p.view(np.int32) >> BIN_SHIFT), BINS), BINS)
        which = bins.reshape(n, -1) + (BINS + 1) * xp.arange(n)[:, None]
        histogram = xp.bincount(which.ravel(), p.ravel().astype(np.float64), n * (BINS + 1)).reshape(n, -1)
        held = xp.cumsum(histogram, axis=1)
        lowest = xp.minimum((held < settings.mass * total[:, None]).sum(axis=1), BINS - 1)
        keep = (bins <= lowest[:, None, None]) & (p > 0)
        share = (1 / held[xp.arange(n), lowest]).astype(np.float32)
        weights = xp.where(keep, p * share[:, None, None], np.float32(0))
        self.weights = weights
        self._describe(answer, p, depth, total, at)
        self._candidates(answer, value, top)
        answer.kept[:] = to_numpy(keep.sum(axis=(1, 2)))
        answer.start[1:] = np.cumsum(answer.kept)
        if settings.keep_significant:
            _, shift, state = xp.nonzero(keep)
            answer.state, answer.shift = to_numpy(state).astype(np.int32), to_numpy(shift).astype(np.int32)
            answer.weight = to_numpy(weights[keep])
        return answer

    def _describe(self, answer: TileAnswer, p: Any, depth: Any, total: Any, at: Any) -> None:
        xp, n_shifts = self.xp, self.settings.n_shifts
        n = len(p)
        best_shift, best_state = at // self.n_states, at % self.n_states
        row = self.rows[xp.arange(n) * n_shifts + best_shift].astype(np.complex128)
        dot = (xp.conj(row) * self.references[best_state]).real.sum(axis=1)
        spread = (p * xp.where(p > 0, depth, 0)).sum(axis=(1, 2), dtype=np.float64)
        top_log = xp.log(total)
        answer.best[:, 0], answer.best[:, 1] = to_numpy(best_state), to_numpy(best_shift)
        answer.number[:, 1] = to_numpy(1 / total)
        answer.number[:, 2] = to_numpy(xp.exp(top_log + spread / total))
        answer.number[:, 3] = to_numpy(dot)
        norm = self.norm[xp.arange(n), best_state].astype(np.float64)
        variance = self.settings.scale_sd**2
        answer.number[:, 4] = to_numpy(norm)
        grey = xp.maximum((self.scale + variance * dot) / (1 + variance * norm), 0.0)
        answer.number[:, 5] = to_numpy(grey)
        answer.number[:, 6] = to_numpy(grey**2 + variance / (1 + variance * norm))
        answer.number[:, 0] = to_numpy(top_log)
        answer.shift_probability[:] = to_numpy(p.sum(axis=2, dtype=np.float64) / total[:, None])
        references = p.reshape(n, n_shifts, self.settings.n_references, -1).sum(axis=(1, 3), dtype=np.float64)
        answer.reference_probability[:] = to_numpy(references / total[:, None])

    def _candidates(self, answer: TileAnswer, value: Any, top: Any) -> None:
        xp = self.xp
        answer.number[:, 0] += to_numpy(top).astype(np.float64)
        wanted = min(self.settings.n_candidates, self.n_states)
        if wanted == 0:
            return
        highest = value.max(axis=1)
        order = xp.argsort(-highest, axis=1, **({"kind": "stable"} if xp is np else {}))[:, :wanted]
        shift = xp.take_along_axis(value.argmax(axis=1), order, axis=1)
        answer.candidate[:, :wanted, 0] = to_numpy(order)
        answer.candidate[:, :wanted, 1] = to_numpy(shift)
        answer.candidate_log[:, :wanted] = to_numpy(
            xp.take_along_axis(highest, order, axis=1).astype(np.float64) - top[:, None]
        )

    def accumulate(self, n: int, answer: TileAnswer) -> None:
        """Add the probabilities of the tile times the data to the sums. If memory runs out, nothing is added."""
        xp = self.xp
        grey, square = (xp.asarray(answer.number[:, column].astype(np.float32)) for column in (5, 6))
        marginal = self.weights.sum(axis=1) * square[:, None]
        self.weights *= grey[:, None, None]
        numerator = self.weights.reshape(-1, self.n_states).T @ self.rows.view(np.float32)
        numerator = xp.ascontiguousarray(numerator).view(np.complex64)
        weight = marginal.T @ self.information
        power = to_numpy(self.data.whitened_power(self.part))
        self.numerator += numerator
        self.weight += weight
        self.data_power += power

    def sums(self) -> tuple[Any, Any, np.ndarray]:
        """Return (numerator, weight, data power)."""
        return self.numerator, self.weight, self.data_power


def tile_bytes_an_image(n_shifts: int, n_states: int, n_pixels: int, *, accumulate: bool) -> int:
    """Return the memory that the array expressions take per image of a tile.

    At the peak of the posterior these exist together, in bytes per score: dot products, logarithms, depth, p and weights (4
    each), bins and their flat index (4 + 8 + 8), weights of the histogram in float64 (8), masks (2), one temporary (8). The
    rows take 8 bytes per pixel and shift (twice as much while they are made).

    Parameters
    ----------
    n_shifts, n_states, n_pixels : int
        Numbers of shifts, states and Fourier pixels of the search.
    accumulate : bool
        Whether the sums of the M-step are made.
    """
    return n_shifts * n_states * 58 + (16 * n_shifts + 40) * n_pixels + (8 if accumulate else 4) * n_states
