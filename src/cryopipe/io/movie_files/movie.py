"""The interface of an open movie of any format: shape, type, pixel size, and single frames."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from cryopipe.errors import InputError


class Movie(ABC):
    """An open movie. Use it as a context manager. Iterate it, or read single frames from any thread.

    Attributes
    ----------
    path : Path
        The file.
    shape : tuple of int
        Frames, rows, columns (n, y, x). A frame of an EER movie is a group of camera readouts.
    dtype : numpy.dtype
        Type of the frames.
    pixel_size_A : float or None
        Pixel size in the header, Å. None if it has none.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: np.dtype, pixel_size_A: float | None) -> None:
        self.path = path
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.pixel_size_A = pixel_size_A

    def __len__(self) -> int:
        return self.shape[0]

    def __enter__(self) -> Movie:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.read_frame(i) for i in range(len(self)))

    def iterate(self, *, threads: int = 1) -> Iterator[np.ndarray]:
        """Yield the frames in order. Up to ``threads`` frames are decoded ahead, in parallel."""
        if threads <= 1:
            yield from self
            return
        with ThreadPoolExecutor(threads) as pool:
            ahead: deque[Future[np.ndarray]] = deque()
            indices = iter(range(len(self)))
            for index in itertools.islice(indices, threads):
                ahead.append(pool.submit(self.read_frame, index))
            while ahead:
                frame = ahead.popleft().result()
                for index in itertools.islice(indices, 1):
                    ahead.append(pool.submit(self.read_frame, index))
                yield frame

    def read_frame(self, index: int) -> np.ndarray:
        """Return frame ``index`` (zero-based) as a new array [y, x] of `dtype`.

        Raises
        ------
        InputError
            The frame does not exist, or its data are damaged or not finite. The message names file and frame (from 1).
        """
        if not 0 <= index < len(self):
            raise InputError(f"{self.path}: frame {index + 1} is asked for, but the movie has {len(self)} frames.")
        frame = self._read(index)
        if frame.dtype.kind == "f" and not np.isfinite(frame).all():
            raise InputError(f"{self.path}: frame {index + 1} has values that are not finite. Write the movie again.")
        return frame

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    @abstractmethod
    def _read(self, index: int) -> np.ndarray: ...
