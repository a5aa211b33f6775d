"""What a step will need, predicted by the formulas of its declaration: memory, time, GPU memory and disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cryopipe.config.declaration.declare import Cost
from cryopipe.config.declaration.formula import evaluate

#: Name of the prediction file in the folder of a run: ``{step or step/run: values of Prediction}``. It is not an input of any
#: rule, since a better formula does not change any result.
COSTS = "costs.json"
#: Resources that rules ask for.
ASKED = ("mem_mb", "runtime", "disk_mb", "gpu_memory_mb")
#: Rules ask for this many times the prediction: a job ends if its memory runs out, and other machines are slower.
MEMORY_MARGIN, TIME_MARGIN, DISK_MARGIN = 1.5, 4.0, 1.5
#: Memory of Snakemake itself. On a node of a cluster it runs within the memory of the job (measured: 160 to 280 MB).
SNAKEMAKE_MB = 300
#: Shortest time in minutes that is asked for, because nodes and file systems take time to start.
LEAST_MINUTES = 10


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Counts and sizes of a job: the names that the formulas of costs may use.

    Attributes
    ----------
    images : int
        Movies or micrographs of the job: those of its batch, or of the whole run.
    frames : int
        Frames of a movie.
    frame_px : int
        Pixels of a frame.
    frame_bytes : int
        Bytes of a pixel of a decoded frame.
    movie_MB : float
        Size of the file of a movie.
    micrograph_px : int
        Pixels of a micrograph.
    micrograph_pixel_A : float
        Pixel size of a micrograph in Å.
    particles : int
        Particle images of the job, estimated before particles are picked.
    box_px : int
        Edge of the particle images.
    pixel_A : float
        Pixel size of the particle images in Å.
    symmetry_order : int
        Number of rotations of the point group.
    budget_MB : float
        Memory that the particles of a job may take.
    """

    images: int
    frames: int
    frame_px: int
    frame_bytes: int
    movie_MB: float
    micrograph_px: int
    micrograph_pixel_A: float
    particles: int
    box_px: int
    pixel_A: float
    symmetry_order: int
    budget_MB: float


@dataclass(frozen=True)
class JobCost:
    """What one job needs.

    Attributes
    ----------
    memory_MB, gpu_memory_MB, disk_MB : float
    cpu_seconds : float
        Time of one core of the reference machine.
    seconds : float
        Wall time.
    """

    memory_MB: float
    cpu_seconds: float
    seconds: float
    gpu_memory_MB: float
    disk_MB: float


@dataclass(frozen=True)
class Prediction:
    """What all jobs of a step need: their number, the memory of the largest one, and sums of the rest."""

    jobs: int
    memory_MB: float
    cpu_seconds: float
    seconds: float
    gpu_memory_MB: float
    disk_MB: float

    @classmethod
    def of_jobs(cls, jobs: Sequence[JobCost]) -> Prediction:
        """Put the jobs of a step together."""
        return cls(
            jobs=len(jobs),
            memory_MB=max(job.memory_MB for job in jobs),
            cpu_seconds=sum(job.cpu_seconds for job in jobs),
            seconds=sum(job.seconds for job in jobs),
            gpu_memory_MB=max(job.gpu_memory_MB for job in jobs),
            disk_MB=sum(job.disk_MB for job in jobs),
        )


def job_cost(cost: Cost, sizes: Sizes, *, threads: int, step: Any, dataset: Any, run: Any) -> JobCost:
    """Evaluate the formulas of a step for one of its jobs.

    Parameters
    ----------
    cost : Cost
        The formulas.
    sizes : Sizes
        Counts and sizes of the job.
    threads : int
        Threads that the job gets.
    step, dataset, run : object
        Parameters of the step, facts of the dataset, settings of the run.

    Raises
    ------
    ConfigError
        A formula cannot be evaluated.
    """
    names: dict[str, Any] = {**asdict(sizes), "threads": threads, "step": step, "dataset": dataset, "run": run}
    for name, formula in cost.names.items():
        names[name] = evaluate(formula, names)
    cpu_seconds = float(evaluate(cost.cpu_seconds, names))
    share = 1 - cost.parallel + cost.parallel / threads
    return JobCost(
        memory_MB=float(evaluate(cost.memory_MB, names)),
        cpu_seconds=cpu_seconds,
        seconds=float(evaluate(cost.wait_seconds, names)) + share * cpu_seconds,
        gpu_memory_MB=float(evaluate(cost.gpu_memory_MB, names)),
        disk_MB=float(evaluate(cost.disk_MB, names)),
    )


def asked_for(job: JobCost, attempt: int = 1) -> Mapping[str, int]:
    """Return what a rule asks the scheduler for: the prediction times a margin, and more on each retry.

    Parameters
    ----------
    job : JobCost
        The prediction.
    attempt : int
        1 for the first try.
    """
    return {
        "mem_mb": round(MEMORY_MARGIN * job.memory_MB + SNAKEMAKE_MB) * attempt,
        "runtime": max(LEAST_MINUTES, round(TIME_MARGIN * job.seconds / 60)) * attempt,
        "disk_mb": max(1, round(DISK_MARGIN * job.disk_MB)),
        "gpu_memory_mb": round(MEMORY_MARGIN * job.gpu_memory_MB),
    }
