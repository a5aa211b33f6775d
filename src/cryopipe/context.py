"""What a step knows about its run besides inputs and parameters: seed, threads, device, log, folder of checkpoints."""

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
    """Run-time facts that ``main(inputs, outputs, params, context)`` of every step receives.

    Attributes
    ----------
    step : str
        Name of the step (= rule = script = module).
    work_dir : Path
        Folder of this job for checkpoints and results of single items. Snakemake does not know it, so it does not delete it.
    seed : int
        The seed of the configuration. Never use it directly: call :meth:`rng` with the name of an item.
    threads : int
        Number of CPU threads this job may use.
    device : {"cpu", "gpu"}
        The device. ``auto`` is resolved before a step starts.
    gpus : tuple of int
        CUDA devices of this job. The first is CuPy's current device. Empty on the CPU.
    max_failed_fraction : float
        Share of the run's items that may be quarantined before the run stops.
    items_in_run : int
        Number of movies or micrographs of the whole run, not only of the batch of this job; 0 if it is not known.
    code : str
        Digest of the code behind the step. It is part of the fingerprint of everything that the step keeps.
    memory_bytes : int, optional
        Memory for the particles of the job (`cryopipe.iteration.particle_store`). None: as much as they take. No result
        depends on it.
    log : logging.Logger
        Writes to the log file of the job and, from level WARNING on, to the terminal.
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
        """Return a 63-bit seed that depends on (seed of the configuration, step, item) alone, not on order or threads."""
        self._drawn.add(item)
        digest = hashlib.sha256(f"{self.seed}\0{self.step}\0{item}".encode()).digest()
        return int.from_bytes(digest[:8], "little") >> 1

    def rng(self, item: str) -> np.random.Generator:
        """Return a random generator seeded by :meth:`item_seed`."""
        return np.random.default_rng(self.item_seed(item))

    def progress(self, done: int, total: int, what: str) -> None:
        """Write to the log of the job (and, through the step logger, to the terminal) how far the job is."""
        self.log.info("%s: %d of %d %s", self.step, done, total, what)
