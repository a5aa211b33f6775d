"""Run one step as a Snakemake job, with log, threads, device, provenance and plain messages of failures."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from threadpoolctl import threadpool_limits

from cryopipe.config.dataset import Run
from cryopipe.config.declaration.base import Params
from cryopipe.context import Context
from cryopipe.errors import CryopipeError
from cryopipe.io.atomic import atomic_write
from cryopipe.workflow.devices import gpu_lease, resolve_device
from cryopipe.workflow.failures import failures_within_share
from cryopipe.workflow.manifest import MANIFEST, read_manifest
from cryopipe.workflow.memory import particle_memory_bytes
from cryopipe.workflow.provenance import write_provenance
from cryopipe.workflow.terminal.job_log import FORMAT, TERMINAL_VARIABLE
from cryopipe.workflow.terminal.outcome import LastWord, outcome


def run_step(snakemake: Any, module: ModuleType) -> None:
    """Run ``module.main`` with what the injected ``snakemake`` object states. On failure the process ends with status 1.

    The log file of the job is written here, not by redirection, so that it always has the traceback. If
    Snakemake's logger is `cryopipe.workflow.terminal`, it reads the log and shows the progress of the job. Otherwise the job
    also writes to standard error.
    """
    log_path = Path(snakemake.log[0])
    wildcards = {name: str(value) for name, value in snakemake.wildcards.items()}
    name = "/".join([module.__name__.rsplit(".", 1)[-1], *([wildcards["run"]] if "run" in wildcards else [])])
    log = _logger(name, wildcards.get("batch", ""), log_path)
    own = dict(snakemake.params.run)
    job = Job(
        name=name,
        seed=int(own["seed"]),
        settings=Run.model_validate(snakemake.config["run"]),
        work_dir=Path(own["work_dir"]) / wildcards.get("batch", "all"),
        threads=int(snakemake.threads),
        granted_gpus=int(snakemake.resources.get("gpu", 0)),
        code=str(snakemake.params.code),
        log=log,
    )
    try:
        execute(module, job, _files(snakemake.input), _files(snakemake.output), dict(snakemake.params.step))
    except KeyboardInterrupt:
        log.info("stopped by a signal; what is done is kept")
        sys.exit(130)
    except BaseException as error:
        log.info("%s", traceback.format_exc())
        log.error("%s", error if isinstance(error, CryopipeError) else defect(error))
        log.info("log: %s", log_path)
        sys.exit(1)
    finally:
        logging.captureWarnings(False)


@dataclass(frozen=True)
class Job:
    """Everything that a job of a step gets besides files and parameters.

    Attributes
    ----------
    name : str
        ``<step>``, or ``<step>/<run>`` for a step that is done several times. Each run has its own random numbers.
    seed : int
        Seed of the run.
    settings : Run
        Device, memory and allowed share of failures. They are not parameters, because no result depends on them.
    work_dir : Path
        Folder of the job's checkpoints.
    threads, granted_gpus : int
        What the scheduler granted.
    code : str
        Digest of the step's code.
    log : logging.Logger
        Writes to the log file of the job and to the terminal.
    """

    name: str
    seed: int
    settings: Run
    work_dir: Path
    threads: int
    granted_gpus: int
    code: str
    log: logging.Logger


def execute(
    module: ModuleType, job: Job, inputs: Mapping[str, Any], outputs: Mapping[str, Path], params: Mapping[str, Any]
) -> None:
    """Run ``module.main`` and write the provenance of its outputs.

    Parameters
    ----------
    module : module
        Module of the step.
    job : Job
        Name, seed, device, folder and log.
    inputs, outputs : mapping
        ``{name: file or list of files}``, as the rule names them.
    params : mapping
        Values of the step's parameter class.

    Raises
    ------
    CryopipeError
        The step failed, or ended without writing an output.
    """
    # child processes of libraries format numbers by locale; a decimal comma has corrupted other programs' tables
    os.environ["LC_ALL"] = "C"
    device = resolve_device(job.settings.device, step=job.name, granted_gpus=job.granted_gpus)
    context = Context(
        step=job.name,
        work_dir=job.work_dir,
        seed=job.seed,
        threads=job.threads,
        device=device,
        max_failed_fraction=job.settings.max_failed_fraction,
        # not a parameter, since a movie that is added later must not re-run the other batches
        items_in_run=len(read_manifest(Path(MANIFEST))),
        code=job.code,
        memory_bytes=particle_memory_bytes(job.settings.memory_GB),
        log=job.log,
    )
    _open_work_dir(job.work_dir, job.code)
    start = time.perf_counter()
    with gpu_lease(device, max(job.granted_gpus, 1)) as gpus, threadpool_limits(job.threads):
        context = replace(context, gpus=gpus)
        _set_numba_threads(job.threads)
        module.main(dict(inputs), dict(outputs), params_model(module).model_validate(dict(params)), context)
    missing = [str(path) for path in outputs.values() if not Path(path).exists()]
    if missing:
        raise CryopipeError(
            f"{job.name} ended without writing {', '.join(missing)}. This is a defect of the step; please report it."
        )
    seconds = time.perf_counter() - start
    _write_down(inputs, outputs, params, context, job.code, seconds)
    made = outcome(job.name, outputs, job.log)
    job.log.info("%s: done in %.1f s on the %s%s", job.name, seconds, device, f": {made}" if made else "")


def _write_down(
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Path],
    params: Mapping[str, Any],
    context: Context,
    code: str,
    seconds: float,
) -> None:
    # movies are known by size and time (rule import_movies): reading all of them again would take longer than the step
    read = {key: value for key, value in inputs.items() if key != "files"}
    with failures_within_share(outputs, params, context, code):
        write_provenance(inputs=read, outputs=outputs, params=params, context=context, code=code, seconds=seconds)


def _open_work_dir(work_dir: Path, code: str) -> None:
    """Make the folder of checkpoints. Files of another version of the code are removed: this one cannot go on from them."""
    marker = work_dir / "code.txt"
    if work_dir.exists() and (not marker.exists() or marker.read_text() != code):
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    atomic_write(marker, code)


def params_model(module: ModuleType) -> type[Params]:
    """Return the parameter model of a step: the annotation of ``params`` in its ``main``."""
    model: type[Params] = get_type_hints(module.main)["params"]
    return model


def _files(named: Any) -> dict[str, Any]:
    """Turn Snakemake's named list into ``{name: Path | [Path, ...]}``. An input that this run does not have is left out."""
    return {
        name: Path(value) if isinstance(value, str) else [Path(part) for part in value]
        for name, value in named.items()
        if isinstance(value, str) or len(value)
    }


def defect(error: BaseException) -> str:
    """Return the message for an error that no step raises on purpose."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    what = f"unexpected {type(error).__name__}: {error}{notes}."
    return f"{what} Unless disk, memory or rights explain it: please report it with the log."


def _logger(step: str, batch: str, path: Path) -> logging.Logger:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger(f"cryopipe.{step}.{batch}")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter(FORMAT))
    log.handlers = [to_file, LastWord()]
    if TERMINAL_VARIABLE not in os.environ:
        to_terminal = logging.StreamHandler(sys.stderr)
        to_terminal.setFormatter(logging.Formatter(f"  [{' '.join(filter(None, (step, batch)))}] %(message)s"))
        to_terminal.addFilter(lambda record: not record.getMessage().startswith("Traceback"))
        to_terminal.setLevel(logging.INFO)
        log.addHandler(to_terminal)
    # what libraries warn of belongs to the job, too
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = [
        handler for handler in log.handlers if not isinstance(handler, LastWord)
    ]
    return log


def _set_numba_threads(threads: int) -> None:
    import numba

    from cryopipe.workflow.costs.compiler import watch_compiler

    watch_compiler()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
