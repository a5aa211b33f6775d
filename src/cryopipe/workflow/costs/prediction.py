"""What the steps of a run will need. Rules ask for it, ``cryopipe check`` prints it, and the report shows it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property

from cryopipe.config.declaration.costs import COSTS, JobCost, Prediction, Sizes, asked_for, job_cost
from cryopipe.config.derive import resolve
from cryopipe.errors import ConfigError
from cryopipe.io.atomic import atomic_write
from cryopipe.steps import step_of
from cryopipe.workflow.costs.sizes import MovieSize, batch_sizes, first_movie, run_sizes
from cryopipe.workflow.plan import Plan

#: What a rule asks for if its need cannot be predicted.
UNPREDICTED = {"mem_mb": 8000, "runtime": 960, "disk_mb": 50000, "gpu_memory_mb": 0}

_log = logging.getLogger("cryopipe.costs")


class Costs:
    """The predictions for a run.

    Parameters
    ----------
    plan : Plan
        The run. Nothing is read or counted before it is needed.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @cached_property
    def movie(self) -> MovieSize:
        """The run's first movie or micrograph."""
        return first_movie(self.plan)

    @cached_property
    def sizes(self) -> Sizes:
        """Counts and sizes of the whole run."""
        return run_sizes(self.plan, self.movie)

    def job(self, name: str, batch: str = "", *, threads: int) -> JobCost:
        """Return what one job needs.

        Parameters
        ----------
        name : str
            ``<step>``, or ``<step>/<run>``.
        batch : str
            Batch of the job. It is empty for a step that has one job.
        threads : int
            Threads that the job gets.

        Raises
        ------
        ConfigError
            The step has no formulas, or one cannot be evaluated.
        """
        cost = step_of(name).cost
        if cost is None:
            raise ConfigError(
                f"{name} declares no cost, so its need cannot be predicted. Add a Cost to its declaration "
                "(cryopipe.config.declaration.declare.Cost)."
            )
        sizes = batch_sizes(self.sizes, len(self.plan.batches[batch])) if batch else self.sizes
        return job_cost(
            cost, sizes, threads=threads, step=self._params[name], dataset=self.plan.facts, run=self.plan.config.run
        )

    def asked(self, name: str, batch: str = "", *, threads: int, attempt: int = 1) -> Mapping[str, int]:
        """Return what the rule asks for: ``{resource: amount}``, or `UNPREDICTED` if the need cannot be predicted.

        Parameters
        ----------
        name, batch, threads
            As for `job`.
        attempt : int
            1 for the first try.
        """
        try:
            return asked_for(self.job(name, batch, threads=threads), attempt)
        except ConfigError as error:  # a run on one machine needs no prediction
            _log.warning("%s asks for %s, because its need cannot be predicted: %s", name, UNPREDICTED, error)
            return UNPREDICTED

    def jobs(self, cores: int) -> dict[str, list[JobCost]]:
        """Return ``{step or step/run: its jobs}`` of this run on ``cores`` cores, in the order of the data flow."""
        found = {}
        for name in self.plan.ports.names:
            step = step_of(name)
            if step.cost is not None:
                batches = list(self.plan.batches) if step.batched else [""]
                found[name] = [self.job(name, batch, threads=min(step.threads, cores)) for batch in batches]
        return found

    def predict(self, cores: int) -> dict[str, Prediction]:
        """Return ``{step or step/run: what its jobs need together}`` on ``cores`` cores."""
        return {name: Prediction.of_jobs(jobs) for name, jobs in self.jobs(cores).items()}

    def write(self, cores: int) -> None:
        """Write the prediction into the folder of the run, where the report reads it. Steps without one are left out."""
        try:
            predicted = {name: asdict(found) for name, found in self.predict(cores).items()}
        except ConfigError as error:
            _log.warning("%s", error)
            predicted = {}
        atomic_write(self.plan.results / COSTS, json.dumps(predicted, indent=1) + "\n")

    @cached_property
    def _params(self) -> Mapping[str, object]:
        return resolve(self.plan.config)
