# The doors are in the order of the data flow: movies -> micrographs -> CTFs -> picks -> particles -> 2D classes
#   -> initial volume -> refined map -> validation -> report.
# Every path is  results/<run.name>/<stage>/<step>/[<run>/][<batch>_]<what>.<ext> ; rules name it from the stage on, because the working
#   directory of all jobs is results/<run.name> (a folder that RELION opens as a project).
# A rule is called like its step: module src/cryopipe/<stage>/<step>.py, block <stage>.<step> of the config. It says what it reads and
#   leaves; complete_rules gives it log, benchmark, threads, resources and params. ports["<name>"] is what another stage hands over.
import os

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from cryopipe.errors import CryopipeError
from cryopipe.workflow import Costs, Plan, claim, complete_rules, offer_gpus
from cryopipe.workflow.terminal.facts import announce

min_version("9.25")


try:
    plan = Plan.of(
        config,
        root=workflow.basedir,
        default="config/config.yaml",
        # a job on another node starts in the run's folder, but is not told of --directory
        results=workflow.overwrite_workdir or (None if workflow.is_main_process else os.getcwd()),
        extend=workflow.is_main_process,
    )
    BATCHES = list(plan.batches)
    ports = plan.ports
except CryopipeError as error:
    raise WorkflowError(str(error)) from None


# Device and allowed share of failures reach the jobs from here: they are no params, because no result depends on them.
config["run"] = plan.config.run.model_dump(mode="json")
complete_rules(workflow, plan)


# A run that was killed leaves its lock behind; the same command has to go on all the same.
if workflow.is_main_process:
    claim(plan.results)
    offer_gpus(workflow, plan)
    announce(plan)


workdir: str(plan.results)


report: "workflow/report/workflow.rst"


wildcard_constraints:
    batch=r"batch_\d{4}",
    run=r"[a-z][a-z0-9_]*",


include: "workflow/rules/simulation.smk"
include: "workflow/rules/movies.smk"
include: "workflow/rules/ctf.smk"
include: "workflow/rules/picking.smk"
include: "workflow/rules/particles.smk"
include: "workflow/rules/classes2d.smk"
include: "workflow/rules/initial_volume.smk"
include: "workflow/rules/refinement.smk"
include: "workflow/rules/validation.smk"
include: "workflow/rules/report.smk"


# Not in a dry run: it plans with the files that are new and keeps no list of them.
onstart:
    plan.keep_manifest()
    # what the steps will need, for the report
    Costs(plan).write(workflow.resource_settings.cores or workflow.resource_settings.max_threads or 32)


rule all:
    default_target: True
    input:
        "report/report/report.html",
        "report/report/report.json",
