"""The plan of a run: what the rules need to know of the configuration, as plain builtins.

They are builtins because Snakemake silently leaves dataclasses, pydantic models and NumPy numbers in ``params`` out of its
change detection. The Snakefile makes one plan. Rules ask it and have no logic of their own.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from cryopipe.config.dataset import group_of
from cryopipe.config.declaration.base import per_batch
from cryopipe.config.declaration.runs import Stage
from cryopipe.config.derive import facts, resolve
from cryopipe.config.load import load_config, parse_config
from cryopipe.config.model import Config
from cryopipe.errors import ConfigError
from cryopipe.io.public_archive.archive import ArchiveFile, address, is_remote
from cryopipe.steps import step_of, steps
from cryopipe.workflow.archive import archived_files
from cryopipe.workflow.code import code_digest
from cryopipe.workflow.devices import gpu_count
from cryopipe.workflow.manifest import MANIFEST, batches, extended, read_manifest, write_manifest
from cryopipe.workflow.ports import Ports

#: Set by the process that builds the DAG, so that its jobs, on this machine or another, have the same digest of the code.
CODE_VARIABLE = "CRYOPIPE_CODE_DIGESTS"


class Plan:
    """Everything that the rules need from a configuration.

    Parameters
    ----------
    config : Config
        Validated configuration.
    root : Path
        Folder of the Snakefile; relative paths of the configuration start here.
    results : Path, optional
        Folder of the run's results, which is the working directory of all jobs. It is ``root/results/<run.name>`` unless
        Snakemake was given another ``--directory``.
    extend : bool
        True in the process that builds the DAG. Only this process adds new files to the manifest. The manifest is written
        when the jobs start (`keep_manifest`), so that a dry run does not change it.
    keep_listing : bool
        Whether that process keeps the listing of an archive in the folder of the run.
    """

    def __init__(
        self, config: Config, *, root: Path, results: Path | None = None, extend: bool = True, keep_listing: bool = True
    ) -> None:
        self.config = config
        self.root = root.resolve()
        self.facts = facts(config)
        self._params = {step: params.model_dump(mode="json") for step, params in resolve(config).items()}
        self.results = results or self.root / "results" / config.run.name
        self._extend = extend
        self._keep_listing = keep_listing
        self.gain = self._existing("dataset.gain", config.dataset.gain)
        self.model = self._existing("dataset.model", config.dataset.model)
        given = config.simulation.simulate_movies.model_file if config.simulation else None
        self.simulated_model = self._existing("simulation.simulate_movies.model", given)

    @classmethod
    def of(
        cls,
        tree: Mapping[str, Any],
        *,
        root: str | Path,
        default: str,
        results: str | Path | None = None,
        extend: bool = True,
        keep_listing: bool = True,
    ) -> Plan:
        """Return the plan of a run from Snakemake's configuration.

        Parameters
        ----------
        tree : mapping
            Snakemake's ``config`` dictionary. It is empty without a ``--configfile``.
        root : path
            Folder of the Snakefile.
        default : str
            Configuration that is used if ``tree`` is empty; relative to ``root``.
        results : path, optional
            Folder of the run's results.
        extend, keep_listing : bool
            As of the class.
        """
        root = Path(root)
        config = parse_config(tree) if tree else load_config(root / default)
        folder = Path(results).resolve() if results else None
        return cls(config, root=root, results=folder, extend=extend, keep_listing=keep_listing)

    @property
    def steps(self) -> list[str]:
        """All steps of the configuration in the order of the data flow, including those that this run does not do."""
        return list(self._params)

    @property
    def source(self) -> str:
        """Where the data come from: ``simulation``, ``movies`` or ``micrographs``."""
        if self.config.simulation is not None:
            return "simulation"
        return "movies" if self.config.dataset.movies is not None else "micrographs"

    @property
    def is_remote(self) -> bool:
        """Whether the movies are downloaded."""
        return self.source == "movies" and is_remote(str(self.config.dataset.movies))

    @property
    def has_truth(self) -> bool:
        """Whether the data are simulated, so that the result can be compared with the truth."""
        return self.source == "simulation"

    @cached_property
    def batches(self) -> dict[str, list[str]]:
        """``{"batch_0001": [files]}`` from the append-only manifest of this run."""
        known = read_manifest(self.results / MANIFEST)
        files = extended(known, self.files()) if self._extend or not known else known
        self._check_groups(files)
        return batches(files, self.config.run.batch_size)

    def keep_manifest(self) -> None:
        """Write the manifest, so that the places of its files do not change when others are added later.

        A process that runs a single job of the run writes nothing.
        """
        if not self._extend:
            return
        write_manifest(self.results / MANIFEST, [file for batch in self.batches.values() for file in batch])

    def _check_groups(self, files: list[str]) -> None:
        groups = self.config.dataset.optics_groups
        used = {group_of(file, groups).name for file in files} if groups else set()
        unused = [group.name for group in groups if group.name not in used]
        if unused:
            raise ConfigError(
                f"dataset.optics_groups: no file belongs to {', '.join(unused)}. Correct its files or leave it out."
            )

    @cached_property
    def archived(self) -> dict[str, ArchiveFile]:
        """``{name in the manifest: file}`` of the archived files to download."""
        params = self.config.movies.fetch_movies
        return archived_files(
            str(self.config.dataset.movies),
            base_url=params.base_url,
            listing=self.root / params.listing if params.listing else None,
            results=self.results,
            keep=self._extend and self._keep_listing,
        )

    def files(self) -> list[str]:
        """Return the movies or micrographs that the configuration names now. The manifest may have others from before.

        Raises
        ------
        ConfigError
            No file matches.
        """
        if self.config.simulation is not None:
            return self.config.simulation.simulate_movies.movie_paths("simulation/simulate_movies")
        if self.is_remote:
            return list(self.archived)
        kind = self.source
        pattern = str(getattr(self.config.dataset, kind))
        found = sorted(glob.glob(str(self.root / pattern), recursive=True))
        if not found:
            raise ConfigError(
                f"dataset.{kind}: no file matches {self.root / pattern}. Paths are relative to the folder of the Snakefile."
            )
        return found

    @cached_property
    def ports(self) -> Ports:
        """Steps of this run, and the files that they hand over."""
        sections = [getattr(self.config, stage) for stage in type(self.config).model_fields]
        fan_ins = {
            name: fan for section in sections if isinstance(section, Stage) for name, fan in section.fan_ins.items()
        }
        holds = {
            "always": True,
            "simulation": self.source == "simulation",
            "movies": self.source != "micrographs",
            "archive": self.is_remote,
            "micrographs": self.source == "micrographs",
            "truth": self.has_truth,
            "model": self.model is not None,
        }
        return Ports(resolve(self.config), fan_ins, holds, lambda: list(self.batches))

    def params(self, step: str, *, batch: str = "") -> dict[str, Any]:
        """Return the complete parameters of ``step``; the steps at the start also get the files of their batch."""
        params = self._params[step]
        model = step_of(step).params
        if step == "fetch_movies":
            return params | self._wanted(self.batches[batch] if batch else [])
        names_files = "paths" in per_batch(model) and batch and not self.is_remote
        return params | ({"paths": self.batches[batch]} if names_files else {})

    def input_files(self, wildcards: Any) -> list[str]:
        """Return the movies or micrographs of a batch that exist. They are inputs of the import, which quarantines the others.

        Simulated and archived movies are made by other steps of the run, so they are listed even before they exist.
        """
        return [file for file, (size, _) in self.file_states(wildcards).items() if size >= 0]

    def file_states(self, wildcards: Any) -> dict[str, list[int]]:
        """Return ``{file: [size, time of change in ns]}`` of a batch, with size -1 for a missing file.

        A copy may have the time of its original, which is older than the results. Snakemake compares times with those of
        the outputs, so it would not notice the copy.
        """
        if self.source == "simulation" or self.is_remote:
            return {}
        return {file: _state(file) for file in self.batches[wildcards.batch]}

    def _wanted(self, names: list[str]) -> dict[str, Any]:
        """Return what ``fetch_movies`` must know about its files besides its configuration."""
        folder = self.config.movies.fetch_movies.folder
        known = [(name, self.archived[name]) for name in names if name in self.archived]
        return {
            "paths": names,
            "sizes": {name: file.size for name, file in known if file.size is not None},
            "checksums": {name: file.checksum for name, file in known if file.checksum is not None},
            "folder": str(self.root / folder) if folder else None,
        }

    def run(self, step: str) -> dict[str, Any]:
        """Return what a job of ``step`` needs besides its parameters. A change of it re-runs the job."""
        return {"seed": self.config.run.seed, "work_dir": f"{step_of(step).stage}/{step}/work"}

    def code(self, step: str) -> str:
        """Return the digest of the code behind ``step``. It is computed once per run and passed on to its jobs."""
        known: dict[str, str] = json.loads(os.environ.get(CODE_VARIABLE, "{}"))
        if step not in known:
            known[step] = code_digest(steps()[step].module)
            os.environ[CODE_VARIABLE] = json.dumps(known)
        return known[step]

    def gpus(self, step: str) -> int:
        """Return how many GPUs ``step`` asks the scheduler for: with ``auto`` one if this machine has any."""
        if not steps()[step].gpu or self.config.run.device == "cpu":
            return 0
        return 1 if self.config.run.device == "gpu" or gpu_count() else 0

    def decision(self, name: str) -> str | None:
        """Return the path of a user's decision file for this run (``config/decisions/<run.name>/<name>``), or None."""
        path = self.root / "config" / "decisions" / self.config.run.name / name
        return str(path) if path.is_file() else None

    def _existing(self, key: str, path: str | None) -> str | None:
        if path is None:
            return None
        if is_remote(path):
            url = address(self.config.movies.fetch_movies.base_url, path)
            raise ConfigError(f"{key}: only movies are downloaded. Download {url} and give the path of the file.")
        full = self.root / path
        if not full.is_file():
            raise ConfigError(
                f"{key}: the file {full} does not exist. Paths are relative to the folder of the Snakefile."
            )
        return str(full)


def _state(file: str) -> list[int]:
    try:
        found = os.stat(file)
    except OSError:
        return [-1, 0]
    return [found.st_size, found.st_mtime_ns]
