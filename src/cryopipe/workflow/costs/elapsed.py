"""How long a run takes: the length of a schedule of its jobs on a given number of cores."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence

from cryopipe.config.declaration.costs import JobCost
from cryopipe.steps import step_of

#: Step (or run of a step), and the number of the job among its jobs.
Job = tuple[str, int]


def elapsed_s(jobs: Mapping[str, Sequence[JobCost]], cores: int) -> float:
    """Return how long the jobs take. Each starts as soon as the jobs that it waits for have ended and cores are free.

    A job waits for its batch of the step before. If one of the two steps has a single job, it waits for all batches. All
    branches of a fan-in wait for the step before the fan-in, and the step after it waits for all branches.

    Parameters
    ----------
    jobs : mapping
        ``{step or step/run: its jobs}``, in the order of the data flow.
    cores : int
        Cores of the machine.
    """
    waits_for = _waits_for(jobs)
    followers: defaultdict[Job, list[Job]] = defaultdict(list)
    for job, before in waits_for.items():
        for other in before:
            followers[other].append(job)
    missing = {job: len(before) for job, before in waits_for.items()}
    order = {job: place for place, job in enumerate(waits_for)}
    ready = dict.fromkeys(waits_for, 0.0)
    queue = [(0.0, order[job], job) for job, count in missing.items() if not count]
    free, last = [0.0] * cores, 0.0
    while queue:
        start, _, job = heapq.heappop(queue)
        end = _end(jobs[job[0]][job[1]].seconds, min(step_of(job[0]).threads, cores), free, start)
        last = max(last, end)
        for other in followers[job]:
            ready[other] = max(ready[other], end)
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(queue, (ready[other], order[other], other))
    return last


def _waits_for(jobs: Mapping[str, Sequence[JobCost]]) -> dict[Job, list[Job]]:
    """Return ``{job: jobs that have to be done before}``, in the order of the data flow."""
    found: dict[Job, list[Job]] = {}
    before: list[str] = []
    beside: list[str] = []
    fan_in = ""
    for name, needs in jobs.items():
        step = step_of(name)
        if not step.branch_of or step.branch_of != fan_in:
            before, beside, fan_in = beside, [], step.branch_of
        beside.append(name)
        for i in range(len(needs)):
            same = [len(jobs[other]) == len(needs) for other in before]
            found[name, i] = [
                (other, k)
                for other, alike in zip(before, same, strict=True)
                for k in ([i] if alike else range(len(jobs[other])))
            ]
    return found


def _end(seconds: float, threads: int, free: list[float], ready: float) -> float:
    """Use the cores that are free first and return when the job ends. ``free`` is a heap of the times when cores are free."""
    taken = [heapq.heappop(free) for _ in range(threads)]
    end = max(ready, *taken) + seconds
    for _ in taken:
        heapq.heappush(free, end)
    return end
