"""A search tile in array expressions alone: what CuPy runs on the GPU (cuBLAS products), and NumPy in the tests."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from cryopipe.imaging.backend import array_module, to_numpy
from cryopipe.search._tile import BIN_SHIFT, BINS, REACH, TOP_BIN, TileAnswer, TileSettings


class ArrayTile:
    """Score tiles of images against all states and add up their M-step sums, on the side where the references live."""

    def __init__(self, references: Any, settings: TileSettings) -> None:
        self.xp = array_module(references)
        self.settings = settings
        self.references = self.xp.ascontiguousarray(references)
        self.power = (self.references.real**2 + self.references.imag**2).astype(np.float32)
        shape = references.shape
        self.numerator = self.xp.zeros(shape, np.complex64) if settings.accumulate else None
        self.weight = self.xp.zeros(shape, np.float32) if settings.accumulate else None
        self.n_states = shape[0]

    def __enter__(self) -> ArrayTile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def score(self, values: Any, ctf: Any, inverse_variance: Any, phases: Any) -> None:
        """Fill rows, information, scores and norms for the images of a tile."""
        factor = ctf * inverse_variance
        self.information = factor * ctf
        self.rows = ((values * factor)[:, None, :] * phases[None]).reshape(-1, values.shape[1])  # [n s, K]
        products = self.rows.view(np.float32) @ self.references.view(np.float32).T
        self.scores = products.reshape(len(values), len(phases), self.n_states)
        self.norm = self.information @ self.power.T

    def log_likelihoods(self, n: int) -> np.ndarray:
        """Return the log-likelihoods of the tile just scored, float32 [n, shifts, states]."""
        return to_numpy(self.scores - 0.5 * self.norm[:, None, :])

    def posterior(self, n: int, log_state: Any, log_shift: Any) -> TileAnswer:
        """Turn the scores into probabilities and return what is kept of them."""
        xp, settings = self.xp, self.settings
        answer = TileAnswer.empty(n, settings)
        beta = np.float32(settings.inverse_temperature)
        value = beta * (self.scores - np.float32(0.5) * self.norm[:, None, :]) + log_state + log_shift[:, :, None]
        flat = value.reshape(n, -1)
        at = flat.argmax(axis=1)
        top = flat[xp.arange(n), at]
        depth = top[:, None, None] - value
        p = xp.where(depth < REACH, xp.exp(-depth), 0).astype(np.float32)
        total = p.sum(axis=(1, 2), dtype=np.float64)
        bins = xp.where(p > 0, xp.minimum(TOP_BIN - (p.view(np.int32) >> BIN_SHIFT), BINS), BINS)
        which = bins.reshape(n, -1) + (BINS + 1) * xp.arange(n)[:, None]
        histogram = xp.bincount(which.ravel(), p.ravel().astype(np.float64), n * (BINS + 1)).reshape(n, -1)
        held = xp.cumsum(histogram, axis=1)
        lowest = xp.minimum((held < settings.mass * total[:, None]).sum(axis=1), BINS - 1)
        keep = (bins <= lowest[:, None, None]) & (p > 0)
        weights = xp.where(keep, p / held[xp.arange(n), lowest][:, None, None], 0).astype(np.float32)
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
        answer.number[:, 4] = to_numpy(self.norm[xp.arange(n), best_state])
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
        """Add the tile's probabilities times data to the sums."""
        weights = self.weights.reshape(-1, self.n_states)
        products = self.xp.ascontiguousarray(weights.T @ self.rows.view(np.float32))
        self.numerator += products.view(np.complex64)
        self.weight += self.weights.sum(axis=1).T @ self.information

    def sums(self) -> tuple[Any, Any]:
        """Return (numerator, weight)."""
        return self.numerator, self.weight
