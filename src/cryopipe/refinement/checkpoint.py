"""The state of a refinement between two iterations, and its file: a killed job goes on from there, bit by bit."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryopipe.io.atomic import atomic_path
from cryopipe.iteration.half_set import HalfSet


@dataclass(frozen=True)
class Progress:
    """State between iterations.

    Attributes
    ----------
    iteration : int
        Iterations done.
    radius : int
        Shells that decide poses in the next one.
    states : pair of HalfSet
    references : pair of array float32 [z, y, x]
        References of the next iteration, in a working box.
    history : list of list of float
        A row an iteration.
    settled : bool
        Whether the last iteration neither gained a shell nor moved poses.
    """

    iteration: int
    radius: int
    states: tuple[HalfSet, HalfSet]
    references: tuple[NDArray[np.float32], NDArray[np.float32]]
    history: list[list[float]]
    settled: bool


def save_progress(path: Path, progress: Progress, stamp: str) -> None:
    """Write the checkpoint atomically; ``stamp`` identifies parameters and inputs."""
    arrays: dict[str, Any] = {
        "stamp": np.array(stamp),
        "iteration": np.array(progress.iteration),
        "radius": np.array(progress.radius),
        "history": np.array(progress.history),
        "settled": np.array(progress.settled),
    }
    for half in (0, 1):
        arrays[f"reference_{half}"] = progress.references[half]
        for field in fields(HalfSet):
            arrays[f"{field.name}_{half}"] = np.asarray(getattr(progress.states[half], field.name))
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def load_progress(path: Path, stamp: str) -> Progress | None:
    """Read a checkpoint; None where there is none or it belongs to other inputs or parameters."""
    if not path.exists():
        return None
    with np.load(path) as kept:
        if str(kept["stamp"]) != stamp:
            return None
        states = []
        for half in (0, 1):
            values = {field.name: kept[f"{field.name}_{half}"] for field in fields(HalfSet)}
            values["angle_change_deg"] = float(values["angle_change_deg"])
            states.append(HalfSet(**values))
        return Progress(
            int(kept["iteration"]),
            int(kept["radius"]),
            (states[0], states[1]),
            (kept["reference_0"], kept["reference_1"]),
            kept["history"].tolist(),
            bool(kept["settled"]),
        )
