"""The whole configuration: one section a stage, one block a step, in the order of the data flow."""

from __future__ import annotations

from pydantic import Field, model_validator

from cryopipe.config.base import Params
from cryopipe.config.classes2d import Classify2d, SelectClasses2d
from cryopipe.config.ctf import (
    ConsensusCtf,
    ConsensusCtfEnvelope,
    EstimateCtfCtffind,
    EstimateCtfGctf,
    EstimateCtfXmipp,
)
from cryopipe.config.dataset import Dataset, Run
from cryopipe.config.initial_volume import InitialRelionSgd
from cryopipe.config.movies import (
    AlignMovies,
    EstimateGain,
    FetchMovies,
    ImportMicrographs,
    ImportMovies,
    ScreenMotion,
)
from cryopipe.config.particles import ExtractParticles
from cryopipe.config.picking import PickLog
from cryopipe.config.refinement import RefineHomogeneous
from cryopipe.config.report import Report
from cryopipe.config.simulation import SimulateMovies
from cryopipe.config.validation import Postprocess, ValidateModel, ValidateTruth


class SimulationStage(Params):
    """Stage simulation: movies whose truth is known, in place of a download."""

    simulate_movies: SimulateMovies = SimulateMovies()


class MoviesStage(Params):
    """Stage movies: from raw movies to aligned, screened micrographs."""

    fetch_movies: FetchMovies = FetchMovies()
    import_movies: ImportMovies = ImportMovies()
    import_micrographs: ImportMicrographs = ImportMicrographs()
    estimate_gain: EstimateGain = EstimateGain()
    align_movies: AlignMovies = AlignMovies()
    screen_motion: ScreenMotion = ScreenMotion()


class CtfStage(Params):
    """Stage ctf: contrast transfer functions and the micrographs whose CTF can be trusted."""

    estimate_ctf_ctffind: EstimateCtfCtffind = EstimateCtfCtffind()
    estimate_ctf_gctf: EstimateCtfGctf = EstimateCtfGctf()
    estimate_ctf_xmipp: EstimateCtfXmipp = EstimateCtfXmipp()
    consensus_ctf: ConsensusCtf = ConsensusCtf()
    consensus_ctf_envelope: ConsensusCtfEnvelope = ConsensusCtfEnvelope()

    @model_validator(mode="after")
    def _one_pass_each(self) -> CtfStage:
        both = [name for name in self.consensus_ctf.estimators if name in self.consensus_ctf_envelope.estimators]
        if both:
            raise ValueError(
                f"{', '.join(both)} stands in consensus_ctf.estimators and in consensus_ctf_envelope.estimators: "
                "leave it out of one of them"
            )
        return self


class PickingStage(Params):
    """Stage picking: particle coordinates."""

    pick_log: PickLog = PickLog()


class ParticlesStage(Params):
    """Stage particles: normalised particle images."""

    extract_particles: ExtractParticles = ExtractParticles()


class Classes2dStage(Params):
    """Stage classes2d: class averages and the particles worth keeping."""

    classify_2d: Classify2d = Classify2d()
    select_classes_2d: SelectClasses2d = SelectClasses2d()


class InitialVolumeStage(Params):
    """Stage initial_volume: a map from nothing."""

    initial_relion_sgd: InitialRelionSgd = InitialRelionSgd()


class RefinementStage(Params):
    """Stage refinement: the gold-standard map."""

    refine_homogeneous: RefineHomogeneous = RefineHomogeneous()


class ValidationStage(Params):
    """Stage validation: how good the map is, against itself, the truth and a model."""

    postprocess: Postprocess = Postprocess()
    validate_truth: ValidateTruth = ValidateTruth()
    validate_model: ValidateModel = ValidateModel()


class ReportStage(Params):
    """Stage report: one self-contained HTML and the same numbers in JSON."""

    report: Report = Report()


class Config(Params):
    """A run of cryopipe. Exactly one of ``dataset.movies``, ``dataset.micrographs`` and ``simulation`` gives the data."""

    run: Run = Run()
    dataset: Dataset = Dataset()
    simulation: SimulationStage | None = Field(
        default=None, description="Simulate the movies; null where dataset names real ones."
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
                f"exactly one of {', '.join(sources)} must be given, but {' and '.join(given) or 'none'} is"
            )
        return self


def step_params(config: Config) -> dict[str, tuple[str, Params]]:
    """Return ``{step: (stage, params)}`` of every step, in the order of the data flow."""
    steps: dict[str, tuple[str, Params]] = {}
    for stage in type(config).model_fields:
        section = getattr(config, stage)
        if section is None or stage in ("run", "dataset"):
            continue
        for step in type(section).model_fields:
            steps[step] = (stage, getattr(section, step))
    return steps
