"""Whatever a kept result was made from is changed, thing by thing: it is made again. Nothing is changed: it is kept.

The cases are made from the list of steps, the fields of their parameters, the columns of their tables and the files that
they open, so that a step that is new is held to the rule without being named here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from cryopipe.config.declaration.base import Params
from cryopipe.config.movies import FetchMovies, ImportMicrographs
from cryopipe.io.star_blocks import read_blocks, write_blocks
from cryopipe.movies import fetch_movies, import_micrographs
from cryopipe.steps import steps
from cryopipe.workflow.step import params_model
from tests.archive_server import serve
from tests.workflow.conftest import ROOT
from tests.workflow.kept_results import (
    CHECKPOINT,
    REFUSED,
    Job,
    import_of,
    job_of,
    keeps_results,
    made_again,
    unchanged,
)

pytestmark = [pytest.mark.workflow, pytest.mark.timeout(1200)]


def all_steps() -> dict[str, tuple[str, str]]:
    """Return ``{step: (module, folder of results)}`` of those that keep results."""
    every = {step.name: (step.module, f"{step.stage}/{step.name}") for step in steps().values()}
    return {name: place for name, place in every.items() if keeps_results(place[0])}


#: Parameters that change no result, by step: which items there are (each has its own facts), and how a file is asked for.
NO_RESULT = {
    "import_movies": {"paths"},
    "import_micrographs": {"paths"},
    "fetch_movies": {
        "paths", "sizes", "checksums", "base_url", "listing", "connections", "attempts", "wait_s", "timeout_s",
    },
}  # fmt: skip
#: Columns of an input that a step takes, where it does not take all of them. A step that is not named here takes them all.
TAKES: dict[tuple[str, str], set[str]] = {
    # the motion of a movie depends on neither spherical aberration nor amplitude contrast
    ("align_movies", "movies"): {
        "rlnMicrographOriginalPixelSize", "rlnVoltage", "rlnMicrographMovieName", "rlnEERGrouping", "rlnEERUpsampling",
        "rlnMicrographDoseRate", "rlnMicrographPreExposure", "rlnImageSizeX", "rlnImageSizeY",
    },
    ("estimate_ctf_xmipp", "previous"): {"rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"},
    ("extract_particles", "coordinates"): {
        "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "rlnMicrographName", "rlnClassNumber", "rlnAnglePsi",
    },
    # the listing of simulated movies says that they are there; what is read are the movies
    ("import_movies", "listing"): set(),
}  # fmt: skip


#: Parameters that only mean something beside others, with these.
_CHAIN = {"model": str(ROOT / "config" / "test" / "apoferritin.pdb.gz"), "expand": "O", "iron_fraction": 0.1}
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("simulate_movies", "operators"): _CHAIN,
    ("simulate_movies", "expand"): _CHAIN,
}


@pytest.fixture(scope="module")
def jobs(tiny_run: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Job]]:
    """Return a job of each step that keeps results, in a copy of the tiny run that is the working directory."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    shutil.copytree(tiny_run[0], folder, copy_function=shutil.copy2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("no_proxy", "127.0.0.1")
        found = {step: job_of(step, import_of(module), place) for step, (module, place) in all_steps().items()}
        found |= {"fetch_movies": fetched(folder), "import_micrographs": imported(folder)}
        ready = {}
        for step, job in found.items():
            assert job is not None, f"{step} keeps results, and no run of the tests shows what they depend on: add one"
            told = made_again(job)
            ready[step] = replace(job, stamp=(told - {CHECKPOINT}).pop()) if CHECKPOINT in told else job
        yield ready


def fetched(folder: Path) -> Job:
    """Download the movies of the tiny run from a server of our own."""
    movies = sorted((folder / "simulation/simulate_movies/movies").glob("*.tif"))
    archive = folder / "archive" / "10248" / "data"
    archive.mkdir(parents=True)
    for movie in movies:
        shutil.copy2(movie, archive / movie.name)
    names = [f"empiar:10248/data/{movie.name}" for movie in movies]
    outputs = {"fetched": Path("fetched/fetched.star"), "rejected": Path("fetched/rejected.tsv")}
    with serve(folder / "archive") as server:
        sizes = {name: movie.stat().st_size for name, movie in zip(names, movies, strict=True)}
        params = FetchMovies(paths=names, sizes=sizes, base_url=server.url)
        return done(
            Job("fetch_movies", fetch_movies, {}, outputs, params.model_dump(mode="json"), Path("fetched/work"))
        )


def imported(folder: Path) -> Job:
    """Import the micrographs that the tiny run aligned."""
    micrographs = sorted(Path("movies/align_movies/micrographs").glob("*[0-9].mrc"))
    facts: dict[str, Any] = {"pixel_size_A": 2.0, "voltage_kV": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
    params = ImportMicrographs(paths=list(map(str, micrographs)), dose_weighted_suffix="_DW", **facts)
    outputs = {"micrographs": Path("imported/micrographs.star"), "rejected": Path("imported/rejected.tsv")}
    return done(
        Job(
            "import_micrographs", import_micrographs, {}, outputs, params.model_dump(mode="json"), Path("imported/work")
        )
    )


def done(job: Job) -> Job:
    """Do a job in earnest."""
    from cryopipe.context import Context

    params = params_model(job.module).model_validate(job.params)
    job.module.main(dict(job.inputs), dict(job.outputs), params, Context(job.step, job.work_dir))
    return job


KEEPING = list(all_steps())


def test_the_list_of_steps_that_keep_results_is_not_empty() -> None:
    assert {"align_movies", "estimate_ctf_gctf", "extract_particles", "classify_2d", "refine_homogeneous"} <= set(
        KEEPING
    )


@pytest.mark.parametrize("step", KEEPING)
def test_nothing_is_made_again_when_nothing_changed(jobs: Mapping[str, Job], step: str) -> None:
    job = jobs[step]
    assert made_again(job) == set()
    for path in stars(job):  # written again, with the same content
        with unchanged([path]):
            write_blocks(path, read_blocks(path))
            assert made_again(job) == set(), path


@pytest.mark.parametrize("step", KEEPING)
def test_a_changed_parameter_makes_a_new_result(jobs: Mapping[str, Job], step: str) -> None:
    job = jobs[step]
    params = params_model(job.module).model_validate(job.params)
    for name in type(params).model_fields:
        if name in NO_RESULT.get(step, ()):
            continue
        beside = BESIDE.get((step, name), {})
        given = type(params).model_validate(job.params | beside)
        other = job.with_params(**beside | {name: other_value(given, name)})
        assert made_again(other), f"{step} keeps results of another {name}"


@pytest.mark.parametrize("step", KEEPING)
def test_a_changed_fact_of_an_input_table_makes_a_new_result(jobs: Mapping[str, Job], step: str) -> None:
    job = jobs[step]
    for name, path in named_stars(job):
        blocks = read_blocks(path)
        for block, table in blocks.items():
            for column in table.columns:
                if column == "crpItem" or column not in TAKES.get((step, name), {column}):
                    continue
                with unchanged([path]):
                    write_blocks(path, blocks | {block: table.assign(**{column: other_column(table[column])})})
                    assert made_again(job), f"{step} keeps results of another {column} of its {name}"


@pytest.mark.parametrize("step", KEEPING)
def test_a_changed_file_makes_a_new_result_and_a_missing_one_does_not_keep_the_old(
    jobs: Mapping[str, Job], step: str
) -> None:
    job = jobs[step]
    heard: set[Path] = set()
    items = made_again(job, files_read=heard)
    own = {path.parent for path in job.outputs.values()}
    files = {path for path in heard if path.suffix != ".star" and not own & set(path.parents)}
    if step not in {"simulate_movies", "fetch_movies"}:  # they make files of nothing, or of what is elsewhere
        assert files, f"{step} reads no file?"
    for path in files:
        for change in (edit, Path.unlink):
            with unchanged([path]):
                change(path)
                again = made_again(job)
                assert again & (items | {REFUSED, CHECKPOINT}), f"{step} keeps results of another {path}: {change}"


@pytest.mark.parametrize("step", KEEPING)
def test_other_code_makes_a_new_result_and_so_does_another_seed_where_it_matters(
    jobs: Mapping[str, Job], step: str
) -> None:
    job = jobs[step]
    assert made_again(replace(job, code="other"))
    seeds = [json.loads(path.read_text())["seed"] for path in job.work_dir.glob("items/*.json")]
    draws = job.stamp or any(seed is not None for seed in seeds)
    assert bool(made_again(replace(job, seed=job.seed + 1))) == bool(draws)


def stars(job: Job) -> list[Path]:
    return [path for _, path in named_stars(job)]


def named_stars(job: Job) -> list[tuple[str, Path]]:
    """Return (name of the input, path) of the tables that a job reads; of several of one name the first."""
    first = {name: path[0] if isinstance(path, list) else path for name, path in job.inputs.items() if path}
    return [(name, path) for name, path in first.items() if path.suffix == ".star"]


def edit(path: Path) -> None:
    """Change the last byte of a file, or add a line to a table."""
    if path.suffix == ".tsv":
        path.write_text(path.read_text() + "3\t2\tdead\n")
        return
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_column(column: pd.Series) -> pd.Series:
    """Return other values of the same type."""
    if not pd.api.types.is_numeric_dtype(column):
        return column + "x"
    changed = column * 0.97 if column.dtype == np.float64 else column + 1
    return changed.where(column != 0, 1).astype(column.dtype)


def other_value(params: Params, name: str) -> Any:
    """Return another value of a parameter that its model accepts."""
    value = getattr(params, name)
    guesses: list[Any] = []
    if isinstance(value, int | float) and not isinstance(value, bool):
        guesses += [value * 0.97, value * 1.03, value + 1, value - 1, value // 2]
    if isinstance(value, list | tuple):
        guesses += [value[:-1], [*value[:-1], *(part * 1.03 for part in value[-1:] if isinstance(part, float))]]
    guesses += literals(type(params).model_fields[name].annotation)
    guesses += [step.label for step in steps().values()]  # where it names a branch
    group = {"name": "one", "files": "*"}
    guesses += [[[1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]]]  # an operator
    guesses += [not value, None, 1, 2, 5, 10, 100, 1000, 0.5, "C2", "x.pdb", [512, 480], [group], ["x"], {"x": 1}]
    for guess in guesses:
        try:
            other = type(params).model_validate(params.model_dump(mode="json") | {name: guess})
        except (ValidationError, TypeError):
            continue
        if getattr(other, name) != value:
            return other.model_dump(mode="json")[name]
    raise AssertionError(f"no other value of {type(params).__name__}.{name} is known to this test: add a guess")


def literals(annotation: Any) -> list[Any]:
    """Return the values that a ``Literal`` inside an annotation allows."""
    arguments = get_args(annotation)
    plain = [argument for argument in arguments if isinstance(argument, str | int | float)]
    return plain + [value for argument in arguments for value in literals(argument)]
