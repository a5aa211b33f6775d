"""How long a run takes, from what its jobs take: the length of the schedule that a few cores can keep."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from cryopipe.config.costs import JobCost
from cryopipe.steps import step_of


def elapsed_s(jobs: Mapping[str, Sequence[JobCost]], cores: int) -> float:
    """Return how long the jobs take on some cores, each started as soon as what it waits for is done and cores are free.

    A job waits for its batch of the step before, or for all batches where either has one job only; the branches of a
    fan-in wait for what is before the fan-in, and what follows it for all of them.

    Parameters
    ----------
    jobs : mapping
        ``{step or step/run: its jobs}``, in the order of the data flow.
    cores : int
        Cores of the machine.
    """
    free = [0.0] * cores
    before: list[list[float]] = []
    beside: list[list[float]] = []
    fan_in = ""
    for name, needs in jobs.items():
        step = step_of(name)
        if not step.branch_of or step.branch_of != fan_in:
            before, beside, fan_in = beside, [], step.branch_of
        threads = min(step.threads, cores)
        beside.append([_end(job.seconds, threads, free, _ready(before, i, len(needs))) for i, job in enumerate(needs)])
    return max((end for ends in beside for end in ends), default=0.0)


def _ready(before: Sequence[Sequence[float]], number: int, count: int) -> float:
    return max((ends[number] if len(ends) == count else max(ends) for ends in before), default=0.0)


def _end(seconds: float, threads: int, free: list[float], ready: float) -> float:
    """Take the cores that are free first and return when the job ends; ``free`` is a heap of when each core is."""
    taken = [heapq.heappop(free) for _ in range(threads)]
    end = max(ready, *taken) + seconds
    for _ in taken:
        heapq.heappush(free, end)
    return end
