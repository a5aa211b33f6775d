"""Messages of Snakemake about itself. Its own log file (``.snakemake/log``) has them all, but the terminal does not show them."""

from __future__ import annotations

import re

_CHATTER = re.compile(
    "|".join(
        (
            "Assuming unrestricted shared filesystem usage",
            "Building DAG of jobs",
            "Using shell:",
            "Provided (cores|resources|remote nodes)",
            "Rules claiming more threads",
            "Select jobs to execute",
            r"Execute \d+ jobs",
            r"Processed \d+ potential jobs",
            "Removing (temporary )?output",
            "Changing to shadow directory",
            "Job rate limit reached",
            "Elapsed time:",
            r"Complete log\(s\):",
            "Shutting down, this might take some time",
            "This was a dry-run",
            r"Reasons:\n",
            "Creating specified working directory",
            "Some jobs were triggered by provenance information",
            "Rules with provenance triggered jobs",
            r"Trying to restart job \d+",
            # `cryopipe.workflow.terminal` writes this itself, with the reason
            "Exiting because a job execution failed",
            r"(WorkflowError:\s*)?At least one job did not complete successfully",
            # the executor of SLURM
            "SLURM run ID:",
            r"Job \S+ has been submitted with SLURM jobid",
            "Cleaning up SLURM log files",
            "'sacct' unavailable",
        )
    )
)
_STEP_FAILED = re.compile(r"CalledProcessError in file .*run_step\.py", re.DOTALL)
INTERRUPTED = "Terminating processes on user request"
NOTHING_TO_DO = "Nothing to be done"


def is_chatter(said: str) -> bool:
    """Return whether a message has nothing that a person must know."""
    return not said.strip() or bool(_CHATTER.match(said)) or bool(_STEP_FAILED.search(said))
