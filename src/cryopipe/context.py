"""What a step knows of its run besides inputs and parameters: seed, threads, device, log, a folder that survives kills."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Context:
    """Run-time facts handed to ``main(inputs, outputs, params, context)`` of every step.

    Attributes
    ----------
    step : str
        Name of the step (= rule = script = module).
    work_dir : Path
        Folder of this job that Snakemake does not know, hence does not delete: per-item results and checkpoints live here.
    seed : int
        The seed of the configuration. Never use it directly: ask :meth:`rng` with an item's name.
    threads : int
        Number of CPU threads this job may use.
    device : {"cpu", "gpu"}
        Already resolved; ``auto`` never reaches a step.
    gpus : tuple of int
        CUDA devices of this job, the first of them CuPy's current one; empty on the CPU.
    max_failed_fraction : float
        Share of the run's items that may be quarantined before the run stops.
    items_in_run : int
        Movies or micrographs of the whole run, of which the job's may be one batch of many; 0 where nobody knows.
    code : str
        Digest of the code behind the step; part of the fingerprint of what the step keeps.
    memory_bytes : int, optional
        Memory for the particles of the job (`cryopipe.iteration.particle_store`); None: as much as they take. No result
        depends on it.
    log : logging.Logger
        Goes to the job's log file and, from level WARNING on, to the terminal.
    """

    step: str
    work_dir: Path
    seed: int = 0
    threads: int = 1
    device: Device = "cpu"
    gpus: tuple[int, ...] = ()
    max_failed_fraction: float = 0.2
    items_in_run: int = 0
    code: str = ""
    memory_bytes: int | None = None
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("cryopipe"))
    _drawn: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def has_drawn(self) -> bool:
        """Whether the job has asked for random numbers, so that its results depend on the seed."""
        return bool(self._drawn)

    def item_seed(self, item: str) -> int:
        """Return a 63-bit seed that depends on (config seed, step, item) alone: never on order, worker or thread."""
        self._drawn.add(item)
        digest = hashlib.sha256(f"{self.seed}\0{self.step}\0{item}".encode()).digest()
        return int.from_bytes(digest[:8], "little") >> 1

    def rng(self, item: str) -> np.random.Generator:
        """Return a random generator seeded by :meth:`item_seed`."""
        return np.random.default_rng(self.item_seed(item))

    def progress(self, done: int, total: int, what: str) -> None:
        """Say on the job's log (and, through the step logger, on the terminal) how far the job is."""
        self.log.info("%s: %d of %d %s", self.step, done, total, what)
