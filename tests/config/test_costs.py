"""Formulas of costs: every step has them, they can be evaluated, and they grow with what they must grow with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cryopipe.config.declaration.costs import (
    LEAST_MINUTES,
    SNAKEMAKE_MB,
    JobCost,
    Prediction,
    Sizes,
    asked_for,
    job_cost,
)
from cryopipe.config.declaration.declare import Cost
from cryopipe.config.derive import facts, resolve
from cryopipe.config.load import load_config
from cryopipe.errors import ConfigError
from cryopipe.steps import step_of, steps

ROOT = Path(__file__).parents[2]
CONFIG = load_config(ROOT / "config" / "test" / "tiny.yaml")
PARAMS = resolve(CONFIG)
#: about EMPIAR-10248: 30 movies of a K2 camera
SIZES = Sizes(
    images=30, frames=50, frame_px=14_000_000, frame_bytes=1, movie_MB=150, micrograph_px=14_000_000,
    micrograph_pixel_A=0.5, particles=4000, box_px=256, pixel_A=0.7, symmetry_order=24, budget_MB=16000,
)  # fmt: skip


def needs(name: str, sizes: Sizes, threads: int = 1) -> JobCost:
    cost = step_of(name).cost
    assert cost is not None
    return job_cost(cost, sizes, threads=threads, step=PARAMS[name], dataset=facts(CONFIG), run=CONFIG.run)


@pytest.mark.parametrize("name", PARAMS)
def test_every_step_says_what_it_costs(name: str) -> None:
    found = needs(name, SIZES)
    assert 150 < found.memory_MB < 20_000
    assert 0.5 < found.cpu_seconds < 36_000
    assert found.seconds >= found.cpu_seconds
    assert found.disk_MB >= 0
    assert (found.gpu_memory_MB > 0) == step_of(name).gpu


@pytest.mark.parametrize("name", PARAMS)
def test_more_data_never_cost_less(name: str) -> None:
    few = needs(name, SIZES)
    for more in (
        {"images": 60, "particles": 8000},
        {"frames": 100},
        {"frame_px": 28_000_000, "micrograph_px": 28_000_000},
        {"box_px": 320},
    ):
        many = needs(name, replace(SIZES, **more))  # type: ignore[arg-type]
        for value in ("memory_MB", "cpu_seconds", "gpu_memory_MB", "disk_MB"):
            assert getattr(many, value) >= getattr(few, value), (more, value)


@pytest.mark.parametrize("name", ["classify_2d", "initial_relion_sgd", "refine_homogeneous"])
def test_memory_of_particles_stops_at_the_budget(name: str) -> None:
    budget = replace(SIZES, budget_MB=500)
    few, many = (needs(name, replace(budget, particles=n)).memory_MB for n in (1_000_000, 4_000_000))
    assert many == few
    assert needs(name, replace(SIZES, particles=1_000_000)).memory_MB > few


def test_threads_divide_the_time_of_what_runs_in_parallel_alone() -> None:
    cost = Cost(memory_MB="1", cpu_seconds="100", parallel=0.8, wait_seconds="3")
    found = job_cost(cost, SIZES, threads=4, step=None, dataset=None, run=None)
    assert (found.cpu_seconds, found.seconds) == (100, pytest.approx(3 + 20 + 20))


def test_names_are_formulas_over_those_before() -> None:
    cost = Cost(names={"a": "2 * images", "b": "a + threads"}, memory_MB="b", cpu_seconds="given(step.x, b)")

    class Step:
        x = None

    assert job_cost(cost, SIZES, threads=3, step=Step(), dataset=None, run=None).memory_MB == 63
    assert job_cost(cost, SIZES, threads=3, step=Step(), dataset=None, run=None).cpu_seconds == 63


def test_a_formula_that_cannot_be_computed_names_itself() -> None:
    with pytest.raises(ConfigError, match="1 / nothing"):
        job_cost(Cost(memory_MB="1 / nothing", cpu_seconds="1"), SIZES, threads=1, step=None, dataset=None, run=None)
    with pytest.raises(ConfigError, match="1 / 0"):
        job_cost(Cost(memory_MB="1 / 0", cpu_seconds="1"), SIZES, threads=1, step=None, dataset=None, run=None)


def test_rules_ask_for_more_than_is_predicted_and_for_more_memory_and_time_on_a_retry() -> None:
    job = JobCost(memory_MB=1000, cpu_seconds=7200, seconds=3600, gpu_memory_MB=2000, disk_MB=10)
    assert asked_for(job) == {"mem_mb": 1500 + SNAKEMAKE_MB, "runtime": 240, "disk_mb": 15, "gpu_memory_mb": 3000}
    assert asked_for(job, attempt=2) == {
        "mem_mb": 2 * (1500 + SNAKEMAKE_MB),
        "runtime": 480,
        "disk_mb": 15,
        "gpu_memory_mb": 3000,
    }
    assert asked_for(replace(job, seconds=1))["runtime"] == LEAST_MINUTES


def test_jobs_of_a_step_share_memory_one_after_the_other_and_add_up_time_and_disk() -> None:
    found = Prediction.of_jobs([JobCost(100, 10, 5, 1, 7), JobCost(300, 20, 8, 2, 1)])
    assert found == Prediction(jobs=2, memory_MB=300, cpu_seconds=30, seconds=13, gpu_memory_MB=2, disk_MB=8)


def test_every_declared_step_is_covered() -> None:
    assert {name.split("/")[0] for name in PARAMS} == set(steps())
