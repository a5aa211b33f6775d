"""The whole configuration: one section per stage and one block per step, in the order of the data flow."""

from __future__ import annotations

from functools import cache

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from cryopipe.config.classes2d import Classes2dStage
from cryopipe.config.ctf import CtfStage
from cryopipe.config.dataset import Dataset, Run
from cryopipe.config.declaration.base import Params, model_in
from cryopipe.config.declaration.declare import DECLARATIONS
from cryopipe.config.initial_volume import InitialVolumeStage
from cryopipe.config.movies import MoviesStage
from cryopipe.config.particles import ParticlesStage
from cryopipe.config.picking import PickingStage
from cryopipe.config.refinement import RefinementStage
from cryopipe.config.report import ReportStage
from cryopipe.config.simulation import SimulationStage
from cryopipe.config.validation import ValidationStage


class Config(Params):
    """A run of cryopipe. Exactly one of ``dataset.movies``, ``dataset.micrographs`` and ``simulation`` gives the data."""

    run: Run = Run()
    dataset: Dataset = Dataset()
    simulation: SimulationStage | None = Field(
        default=None, description="Simulate the movies; null if the dataset has real ones."
    )
    movies: MoviesStage = MoviesStage()
    ctf: CtfStage = CtfStage()
    picking: PickingStage = PickingStage()
    particles: ParticlesStage = ParticlesStage()
    classes2d: Classes2dStage = Classes2dStage()
    initial_volume: InitialVolumeStage = InitialVolumeStage()
    refinement: RefinementStage = RefinementStage()
    validation: ValidationStage = ValidationStage()
    report: ReportStage = ReportStage()

    @model_validator(mode="after")
    def _one_source(self) -> Config:
        sources = {
            "dataset.movies": self.dataset.movies,
            "dataset.micrographs": self.dataset.micrographs,
            "simulation": self.simulation,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of {', '.join(sources)} must be given, but {' and '.join(given) or 'none'} is given"
            )
        return self


@cache
def sections() -> dict[str, dict[str, type[Params]]]:
    """Return ``{stage: {step: parameter class}}`` of all steps, in the order of the data flow."""
    found = {stage: _steps_in(info) for stage, info in Config.model_fields.items()}
    return {stage: steps for stage, steps in found.items() if steps}


def _steps_in(section: FieldInfo) -> dict[str, type[Params]]:
    model = model_in(section.annotation)
    blocks = {name: model_in(info.annotation) for name, info in model.model_fields.items()} if model else {}
    return {name: block for name, block in blocks.items() if block in DECLARATIONS}


def step_params(config: Config) -> dict[str, tuple[str, Params]]:
    """Return ``{step: (stage, params)}`` of all steps whose section is given, in the order of the data flow.

    A step that may be done several times has one entry for each run, ``<step>/<run>``.
    """
    found: dict[str, tuple[str, Params]] = {}
    for stage, steps in sections().items():
        section = getattr(config, stage)
        for step in steps if section is not None else ():
            block = getattr(section, step)
            runs = {f"{step}/{run.run}": run for run in block} if isinstance(block, list) else {step: block}
            found |= {name: (stage, params) for name, params in runs.items()}
    return found
