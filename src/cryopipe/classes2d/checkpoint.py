"""Checkpoints of a classification: after a kill it goes on where it was, bit by bit the same."""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from cryopipe.classes2d.maximisation import State
from cryopipe.io.atomic import atomic_path

_NAME = "classification.npz"


def save_state(folder: Path, fingerprint: str, state: State, done: int, history: list[dict[str, float]]) -> None:
    """Write the state after ``done`` iterations, replacing the one before."""
    arrays: dict[str, Any] = {field.name: np.asarray(getattr(state, field.name)) for field in fields(State)}
    note = json.dumps({"fingerprint": fingerprint, "done": done, "history": history})
    with atomic_path(folder / _NAME) as temporary, temporary.open("wb") as stream:
        np.savez(stream, note=np.array(note), **arrays)


def remove_state(folder: Path) -> None:
    """Forget the state of a run that has written its results: another run starts afresh, with the code of its day."""
    (folder / _NAME).unlink(missing_ok=True)


def load_state(folder: Path, fingerprint: str) -> tuple[State, int, list[dict[str, float]]] | None:
    """Return (state, iterations done, history) of a run with this fingerprint, or None where there is none."""
    try:
        with np.load(folder / _NAME, allow_pickle=False) as kept:
            note = json.loads(str(kept["note"]))
            if note["fingerprint"] != fingerprint:
                return None
            arrays = {field.name: kept[field.name] for field in fields(State)}
    except (FileNotFoundError, zipfile.BadZipFile, KeyError):
        return None
    arrays["shift_sd_px"] = float(arrays["shift_sd_px"])
    return State(**arrays), int(note["done"]), list(note["history"])
