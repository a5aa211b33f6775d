"""Parameters of the ctf stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import field_validator, model_validator

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import BranchOf, Cost, Declaration, Reference
from cryopipe.config.declaration.runs import RunParams, Stage

#: Programs that estimate a CTF: step ``estimate_ctf_<name>``.
Estimator = Annotated[str, BranchOf("estimators")]


def _check_defoci(min_defocus_A: float, max_defocus_A: float) -> None:
    if max_defocus_A <= min_defocus_A:
        raise ValueError(f"max_defocus_A ({max_defocus_A}) must exceed min_defocus_A ({min_defocus_A})")


def _check_even(name: str, side_px: int) -> None:
    if side_px % 2:
        raise ValueError(f"{name} must be even, but it is {side_px}")


@Declaration(
    branch_of="estimators",
    label="ctffind",
    counts="micrographs",
    batched=True,
    makes={"ctf_estimates": "micrographs.star"},
    threads=4,
    cost=Cost(
        names={"Mpx": "1e-6 * micrograph_px", "spectrum": "(step.box / 512) ** 2"},
        memory_MB="315 + 36 * Mpx + 20 * spectrum",
        cpu_seconds="1.7 + images * (0.95 * spectrum + 0.012 * Mpx) * (1 + 1.5 * step.find_tilt + 0.3 * step.find_phase_shift)",
        parallel=0.5,
        disk_MB="1.4 * images * spectrum",
    ),
    references=(
        Reference(
            "Rohou & Grigorieff 2015, CTFFIND4: fast and accurate defocus estimation",
            "10.1016/j.jsb.2015.08.008",
        ),
    ),
)
class EstimateCtfCtffind(Params):
    """Step ``estimate_ctf_ctffind``: defocus and astigmatism by correlation of the amplitude spectrum with |CTF|."""

    box: int = parameter(
        "Side of the amplitude spectrum that is fitted; an even number.", unit="px", default=512, ge=128, le=2048
    )
    fit_pixel_size_A: float = parameter(
        "Spectra of images with smaller pixels are cropped to this pixel size, so that the box resolves more rings.",
        unit="Å",
        default=1.4,
        ge=0.5,
        le=3,
    )
    min_resolution_A: float = parameter("Coarsest resolution of the fit.", unit="Å", default=30.0, ge=10, le=100)
    max_resolution_A: float | None = parameter(
        "Finest resolution of the fit; null: 5 Å, and then a second fit from the second maximum of |CTF| to where the first one "
        "follows the rings, if that is finer.",
        unit="Å",
        default=None,
        ge=2,
        le=15,
    )
    min_defocus_A: float = parameter("Smallest defocus searched.", unit="Å", default=3000.0, ge=500)
    max_defocus_A: float = parameter("Largest defocus searched.", unit="Å", default=50000.0, le=200000)
    defocus_step_A: float = parameter("Step of the search.", unit="Å", default=100.0, ge=20, le=1000)
    max_astigmatism_A: float = parameter(
        "Largest difference of the two defoci in the search; the refinement has no limit.",
        unit="Å",
        default=3000.0,
        ge=0,
    )
    astigmatism_tolerance_A: float | None = parameter(
        "Expected astigmatism; larger values are penalised. null: no penalty.", unit="Å", default=None, gt=0
    )
    candidates: int = parameter("Number of peaks of the search that are refined.", default=5, ge=1, le=50)
    find_phase_shift: bool = parameter("Fit the phase shift of a phase plate, too.", default=False)
    find_tilt: bool = parameter(
        "Fit the tilt of the specimen from tiles of three quarters of the box; the defocus is then that of the centre.",
        default=False,
    )

    @model_validator(mode="after")
    def _ranges(self) -> EstimateCtfCtffind:
        _check_defoci(self.min_defocus_A, self.max_defocus_A)
        if (self.max_resolution_A or 0.0) >= self.min_resolution_A:
            raise ValueError(
                f"max_resolution_A ({self.max_resolution_A}) must be a smaller number than min_resolution_A "
                f"({self.min_resolution_A})"
            )
        _check_even("box", self.box)
        return self


@Declaration(
    branch_of="estimators",
    label="gctf",
    counts="micrographs",
    batched=True,
    makes={"ctf_estimates": "micrographs.star"},
    threads=4,
    cost=Cost(
        names={"Mpx": "1e-6 * micrograph_px", "spectrum": "(min(step.box, 0.66 * sqrt(micrograph_px)) / 512) ** 2"},
        memory_MB="310 + 14 * Mpx + 75 * spectrum",
        cpu_seconds="1.7 + images * (0.4 * spectrum + 0.01 * Mpx) * (1 + 0.3 * step.find_phase_shift)",
        parallel=0.5,
        disk_MB="1.25 * images * spectrum",
    ),
    references=(
        Reference("Zhang 2016, Gctf: real-time CTF determination and correction", "10.1016/j.jsb.2015.11.003"),
    ),
)
class EstimateCtfGctf(Params):
    """Step ``estimate_ctf_gctf``: defocus, astigmatism and self-consistency from logarithmic amplitudes of windows."""

    box: int = parameter(
        "Side of the windows whose amplitudes are averaged; an even number. It is at most two thirds of the micrograph's "
        "shorter side, so that at least two by two windows fit.",
        unit="px",
        default=512,
        ge=128,
        le=2048,
    )
    fit_pixel_size_A: float = parameter(
        "Micrographs with smaller pixels are resampled to this pixel size, so that the windows resolve more rings.",
        unit="Å",
        default=1.4,
        ge=0.5,
        le=3,
    )
    convolution_px: int = parameter(
        "Width of the box-car average that estimates the background.", unit="px", default=43, ge=5, le=401
    )
    min_resolution_A: float = parameter("Coarsest resolution of the fit.", unit="Å", default=30.0, ge=10, le=50)
    max_resolution_A: float | None = parameter(
        "Finest resolution of the fit; null: 4 Å, and then a second fit from the second maximum of |CTF| to where the first one "
        "follows the rings, if that is finer.",
        unit="Å",
        default=None,
        ge=2,
        le=10,
    )
    min_defocus_A: float = parameter("Smallest defocus searched.", unit="Å", default=3000.0, ge=500)
    max_defocus_A: float = parameter("Largest defocus searched.", unit="Å", default=50000.0, le=200000)
    defocus_step_A: float = parameter("Step of the search.", unit="Å", default=100.0, ge=20, le=1000)
    astigmatism_A: float = parameter(
        "Astigmatism of the starting points; the fit has no limit.", unit="Å", default=1000.0
    )
    b_factor_A2: float = parameter("Frequencies are weighted by exp(-B k²/4).", unit="Å²", default=150.0, ge=0)
    find_phase_shift: bool = parameter("Fit the phase shift of a phase plate, too.", default=False)

    @model_validator(mode="after")
    def _ranges(self) -> EstimateCtfGctf:
        _check_defoci(self.min_defocus_A, self.max_defocus_A)
        _check_even("box", self.box)
        return self


@Declaration(
    branch_of="estimators",
    label="xmipp",
    counts="micrographs",
    batched=True,
    makes={"ctf_estimates": "micrographs.star"},
    threads=4,
    cost=Cost(
        names={"Mpx": "1e-6 * micrograph_px", "spectrum": "(min(step.window, 0.66 * sqrt(micrograph_px)) / 512) ** 2"},
        memory_MB="285 + 18 * Mpx + 40 * spectrum",
        cpu_seconds="1.5 + images * (0.3 + 0.75 * spectrum + 0.03 * Mpx) * (1 + 0.3 * step.find_phase_shift)",
        parallel=0.5,
        disk_MB="1.6 * images * spectrum",
    ),
    references=(
        Reference(
            "Sorzano et al. 2007, Fast, robust, and accurate determination of transmission electron microscopy contrast "
            "transfer function",
            "10.1016/j.jsb.2007.08.013",
        ),
        Reference(
            "Vargas et al. 2013, FASTDEF: fast defocus and astigmatism estimation for high-throughput transmission "
            "electron microscopy",
            "10.1016/j.jsb.2012.12.006",
        ),
    ),
)
class EstimateCtfXmipp(Params):
    """Step ``estimate_ctf_xmipp``: the whole power spectrum, rings with envelope and background, and quality criteria."""

    window: int = parameter(
        "Side of the windows whose power is averaged; an even number. It is at most two thirds of the micrograph's shorter "
        "side, so that at least two by two windows fit.",
        unit="px",
        default=512,
        ge=128,
        le=2048,
    )
    overlap: float = parameter("Share of a window's side that the next one overlaps.", default=0.7, ge=0, le=0.9)
    border_windows: int = parameter(
        "Rows and columns of windows that are left out at each side (films have dark edges, cameras do not).",
        default=0,
        ge=0,
        le=8,
    )
    taper_fraction: float = parameter(
        "Share of a window's side over which each edge falls to 0.", default=0.025, ge=0.002, le=0.5
    )
    downsample: bool = parameter(
        "Fit at 1.75 Å, then 2.75 Å, then the pixel size of the micrograph, until the quality criteria pass; false: only at "
        "the pixel size of the micrograph.",
        default=True,
    )
    min_frequency: float = parameter(
        "Coarse end of the fit, cycles per pixel of the downsampled micrograph.", default=0.05, ge=0.01, le=0.2
    )
    max_frequency: float = parameter(
        "Fine end of the fit, cycles per pixel of the downsampled micrograph. The finest rings determine the defocus best, and "
        "noise beyond them has little weight in this fit.",
        default=0.45,
        ge=0.1,
        le=0.48,
    )
    use_previous: bool = parameter("Start from the previous CTF of a micrograph, if there is one.", default=True)
    previous_from: Estimator | None = parameter(
        "Estimator whose CTF is the previous one. It runs even if no consensus compares it. null: none, so that this "
        "estimator is independent of all others.",
        default=None,
    )
    previous_change: float = parameter(
        "Largest change of the previous defocus, as a share of U.", default=0.1, gt=0, le=0.5
    )
    fix_previous: bool = parameter("Keep the previous defocus; fit only envelope and background.", default=False)
    min_defocus_A: float = parameter(
        "Smallest defocus searched if there is no previous one.", unit="Å", default=2000.0, ge=500
    )
    max_defocus_A: float = parameter("Largest defocus searched.", unit="Å", default=50000.0, le=200000)
    defocus_step_A: float = parameter("Step of the search.", unit="Å", default=100.0, ge=20, le=500)
    max_astigmatism_A: float = parameter(
        "Largest difference of the two defoci in the search; the fit has no limit.", unit="Å", default=3000.0, ge=0
    )
    find_phase_shift: bool = parameter("Fit the phase shift of a phase plate, too.", default=False)

    def asks_for(self) -> list[str]:
        """Return the step of the estimator whose CTFs are the previous ones."""
        return [f"estimate_ctf_{self.previous_from}"] if self.use_previous and self.previous_from else []

    @model_validator(mode="after")
    def _ranges(self) -> EstimateCtfXmipp:
        _check_defoci(self.min_defocus_A, self.max_defocus_A)
        _check_even("window", self.window)
        if self.fix_previous and not self.use_previous:
            raise ValueError("fix_previous keeps the previous CTF, so use_previous must be true")
        if self.max_frequency < 2 * self.min_frequency:
            raise ValueError(
                f"max_frequency ({self.max_frequency}) must be at least twice min_frequency ({self.min_frequency})"
            )
        return self


@Declaration(
    counts="micrographs",
    batched=True,
    makes={"micrographs_with_ctf": "micrographs.star"},
    joins="estimators",
    cost=Cost(memory_MB="218", cpu_seconds="1 + 0.01 * images", disk_MB="0.005 * images"),
    references=(Reference("Marabini et al. 2015, CTF challenge: result summary", "10.1016/j.jsb.2015.04.003"),),
)
class ConsensusCtf(RunParams):
    """Step ``consensus_ctf``: micrographs whose CTF can be trusted, and the defocus that independent estimators agree on."""

    estimators: list[Estimator] = parameter(
        "Estimators that run and are compared, also with the run that this one starts from, if there is one. The decision "
        "does not depend on their order. The row of the first one that agrees goes on.",
        default=["ctffind", "gctf"],
    )
    min_agreeing: int | None = parameter(
        "How many estimates of a micrograph must agree with one another; null: more than half of the branches (both, if "
        "there are two).",
        default=None,
        ge=1,
    )
    agreement: Literal["crossing", "area", "legacy_linear"] = parameter(
        "How two estimates are compared. crossing: first frequency at which the phases differ by 90°; area: radius of a "
        "disc with the area of the frequencies where they differ by less; legacy_linear: linear in that area, as in xmipp.",
        default="crossing",
    )
    max_agreement_A: float | None = parameter(
        "Two estimates agree if they do so up to this resolution or a finer one; null: 5 Å (crossing, area) or 15 Å "
        "(legacy_linear).",
        unit="Å",
        default=None,
        gt=0,
    )
    defocus_from: Literal["weighted", "mean", "first", "consensus_ctf"] | Estimator = parameter(
        "Which defocus goes on. weighted: the average, as tensors, of those that agree, with the weights that give the smallest "
        "error (from the errors that estimators state, and their differences in this batch); mean: their average with equal "
        "weights; first: that of the first branch that agrees; consensus_ctf: that of the run that this one starts from; "
        "otherwise that of the named estimator, if it agrees.",
        default="weighted",
    )
    envelope_from: Estimator | None = parameter(
        "Estimator whose envelope and quality criteria go on; null: none.", default=None
    )
    include_secondary: bool = parameter(
        "Take columns that the first agreeing branch lacks from the other agreeing branches.", default=False
    )
    min_defocus_A: float = parameter("Smallest defocus accepted (both axes).", unit="Å", default=4000.0, ge=0)
    max_defocus_A: float = parameter("Largest defocus accepted (both axes).", unit="Å", default=40000.0, gt=0)
    max_astigmatism_A: float | None = parameter(
        "Largest difference of the two defoci; null: no limit. The limit of xmipp in 2020, 1000 Å, also rejects good "
        "micrographs with a large defocus.",
        unit="Å",
        default=None,
        gt=0,
    )
    max_relative_astigmatism: float | None = parameter(
        "Largest difference of the two defoci as a share of their mean; null: no limit.", default=0.1, gt=0, le=2
    )
    max_resolution_A: float | None = parameter(
        "At least one of the agreeing estimates must fit the rings up to this resolution; null: no limit.",
        unit="Å",
        default=8.0,
        gt=0,
    )
    min_first_zero_A: float | None = parameter(
        "The first zero must not be at a finer resolution than this (crpCtfFirstZero); null: no limit, here and below.",
        unit="Å",
        default=5.0,
        gt=0,
    )
    min_first_zero_ratio: float | None = parameter(
        "Smallest ratio of the first zeros over the azimuths (crpCtfFirstZeroRatio).", default=0.9, gt=0
    )
    max_first_zero_ratio: float | None = parameter(
        "Largest ratio of the first zeros over the azimuths (crpCtfFirstZeroRatio).", default=1.1, gt=0
    )
    max_envelope_resolution_A: float | None = parameter(
        "Coarsest resolution at which the envelope falls to a tenth (crpCtfEnvelopeResolution).",
        unit="Å",
        default=20.0,
        gt=0,
    )
    min_corr13: float | None = parameter(
        "Smallest correlation of data and model between the first and the third zero (crpCtfCorr13). Recalibrated: "
        "spectra of noise reach 0.09, usable micrographs have 0.21-0.48 (the limits of xmipp in 2020 are 0.27 and 0.05).",
        default=0.12,
        ge=-1,
        le=1,
    )
    min_margin: float | None = parameter(
        "Smallest contrast between first extremum and first zero, in standard deviations over the azimuths "
        "(crpCtfMargin). Spectra of noise reach 0.5, usable micrographs have 1.7-5.9.",
        default=1.0,
    )
    max_first_min_first_zero_ratio: float | None = parameter(
        "Largest ratio of the scatter along the first extremum to that along the first zero "
        "(crpCtfFirstMinFirstZeroRatio).",
        default=10.0,
        gt=0,
    )
    max_astigmatic_validity_A: float | None = parameter(
        "Coarsest resolution at which a CTF without astigmatism would become wrong (crpCtfAstigmaticValidity).",
        unit="Å",
        default=9.0,
        gt=0,
    )
    min_psd_corr90: float | None = parameter(
        "Smallest correlation of the enhanced spectrum with itself rotated by 90° (crpCtfPsdCorr90). Off by default, "
        "because noise (at most 0.07) and usable micrographs (0.07-0.26) overlap.",
        default=None,
        ge=-1,
        le=1,
    )
    max_iceness: float | None = parameter(
        "Largest ratio of the power at 4.0-3.6 Å to that at 4.4-4.0 Å (crpCtfIceness). Recalibrated: 0.95-1.01 without "
        "ice; the limit 1.03 of xmipp (1.00 in its consensus) is within the noise of a small micrograph.",
        default=1.05,
        gt=0,
    )

    @property
    def branches(self) -> list[str]:
        """Names of the tables that are compared, in the order in which the step receives them."""
        return [*self.estimators, *(["consensus_ctf"] if self.start_from else [])]

    @property
    def prefix(self) -> str:
        """Prefix of the names of the columns that the run adds."""
        return f"crpCtf{self.run.title().replace('_', '') if self.start_from else ''}Consensus"

    def asks_for(self) -> list[str]:
        """Return the steps of the estimators that are compared."""
        return [f"estimate_ctf_{name}" for name in self.estimators]

    @property
    def needed(self) -> int:
        """How many estimates must agree."""
        count = len(self.branches)
        return min(self.min_agreeing or max(count // 2 + 1, min(count, 2)), count)

    @model_validator(mode="after")
    def _choices(self) -> ConsensusCtf:
        if len(set(self.estimators)) < len(self.estimators) or not self.estimators:
            raise ValueError(f"estimators must name at least one estimator, each once, but it is {self.estimators}")
        for name, value in (("defocus_from", self.defocus_from), ("envelope_from", self.envelope_from)):
            if value not in (None, "weighted", "mean", "first", *self.branches):
                raise ValueError(f"{name} is {value}, but the branches are {', '.join(self.branches)}")
        _check_defoci(self.min_defocus_A, self.max_defocus_A)
        return self


#: The two default runs: three independent estimators agree on the defocus, then the envelope of one of them is added.
CONSENSUS_RUNS = [
    ConsensusCtf(run="defocus", estimators=["ctffind", "gctf", "xmipp"]),
    ConsensusCtf(
        run="envelope",
        start_from="previous",
        estimators=["xmipp"],
        defocus_from="consensus_ctf",
        envelope_from="xmipp",
        include_secondary=True,
    ),
]


class CtfStage(Stage):
    """Stage ctf: contrast transfer functions and the micrographs whose CTF can be trusted."""

    estimate_ctf_ctffind: EstimateCtfCtffind = EstimateCtfCtffind()
    estimate_ctf_gctf: EstimateCtfGctf = EstimateCtfGctf()
    estimate_ctf_xmipp: EstimateCtfXmipp = EstimateCtfXmipp()
    consensus_ctf: list[ConsensusCtf] = CONSENSUS_RUNS

    @field_validator("consensus_ctf", mode="after")
    @classmethod
    def _one_run_each(cls, runs: list[ConsensusCtf]) -> list[ConsensusCtf]:
        if not runs:
            raise ValueError("at least one run must be given, because it accepts the micrographs that go on")
        return runs
