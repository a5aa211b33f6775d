"""Parameters of the ctf stage."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from cryopipe.config.base import Params, parameter


class EstimateCtfCtffind(Params):
    """Step ``estimate_ctf_ctffind``: defocus and astigmatism by correlation of the amplitude spectrum with |CTF|."""

    box: int = parameter(
        "Side of the amplitude spectrum that is fitted; even.", unit="px", default=512, ge=128, le=2048
    )
    fit_pixel_size_A: float = parameter(
        "Spectra of finer images are cropped to this pixel size, so that the box resolves more rings.",
        unit="Å",
        default=1.4,
        ge=0.5,
        le=3,
    )
    min_resolution_A: float = parameter("Coarsest resolution of the fit.", unit="Å", default=30.0, ge=10, le=100)
    max_resolution_A: float = parameter("Finest resolution of the fit.", unit="Å", default=5.0, ge=2, le=15)
    min_defocus_A: float = parameter("Smallest defocus searched.", unit="Å", default=3000.0, ge=500)
    max_defocus_A: float = parameter("Largest defocus searched.", unit="Å", default=50000.0, le=200000)
    defocus_step_A: float = parameter("Step of the search.", unit="Å", default=100.0, ge=20, le=1000)
    max_astigmatism_A: float = parameter(
        "Largest difference of the two defoci that the search tries; the refinement is free.",
        unit="Å",
        default=3000.0,
        ge=0,
    )
    astigmatism_tolerance_A: float | None = parameter(
        "Expected astigmatism: larger ones are penalised; null: free.", unit="Å", default=None, gt=0
    )
    candidates: int = parameter("Peaks of the search that are refined.", default=5, ge=1, le=50)
    find_phase_shift: bool = parameter("Fit the phase shift of a phase plate, too.", default=False)

    @model_validator(mode="after")
    def _ranges(self) -> EstimateCtfCtffind:
        if self.max_defocus_A <= self.min_defocus_A:
            raise ValueError(f"max_defocus_A ({self.max_defocus_A}) must exceed min_defocus_A ({self.min_defocus_A})")
        if self.max_resolution_A >= self.min_resolution_A:
            raise ValueError(
                f"max_resolution_A ({self.max_resolution_A}) must be a smaller number than min_resolution_A "
                f"({self.min_resolution_A})"
            )
        if self.box % 2:
            raise ValueError(f"box must be even, but it is {self.box}")
        return self


class EstimateCtfGctf(Params):
    """Step ``estimate_ctf_gctf``: defocus, astigmatism and self-consistency from logarithmic amplitudes of windows."""

    box: int = parameter(
        "Side of the windows whose amplitudes are averaged; even.", unit="px", default=512, ge=128, le=2048
    )
    fit_pixel_size_A: float = parameter(
        "Finer micrographs are resampled to this pixel size, so that the windows resolve more rings.",
        unit="Å",
        default=1.4,
        ge=0.5,
        le=3,
    )
    convolution_px: int = parameter(
        "Width of the box-car average that is taken for the background.", unit="px", default=43, ge=5, le=401
    )
    min_resolution_A: float = parameter("Coarsest resolution of the fit.", unit="Å", default=30.0, ge=10, le=50)
    max_resolution_A: float = parameter("Finest resolution of the fit.", unit="Å", default=4.0, ge=2, le=10)
    min_defocus_A: float = parameter("Smallest defocus searched.", unit="Å", default=3000.0, ge=500)
    max_defocus_A: float = parameter("Largest defocus searched.", unit="Å", default=50000.0, le=200000)
    defocus_step_A: float = parameter("Step of the search.", unit="Å", default=100.0, ge=20, le=1000)
    astigmatism_A: float = parameter("Astigmatism of the starting points; the fit is free.", unit="Å", default=1000.0)
    b_factor_A2: float = parameter("High frequencies weigh exp(-B k²/4).", unit="Å²", default=150.0, ge=0)

    @model_validator(mode="after")
    def _ranges(self) -> EstimateCtfGctf:
        if self.max_defocus_A <= self.min_defocus_A:
            raise ValueError(f"max_defocus_A ({self.max_defocus_A}) must exceed min_defocus_A ({self.min_defocus_A})")
        if self.box % 2:
            raise ValueError(f"box must be even, but it is {self.box}")
        return self


class ConsensusCtf(Params):
    """Step ``consensus_ctf``: micrographs whose CTF can be trusted."""

    estimators: list[Literal["ctffind", "gctf"]] = parameter(
        "Estimators that are run and have to agree; the rows of the first one go on.",
        default=["ctffind"],
    )
    min_defocus_A: float = parameter("Smallest defocus accepted (both axes).", unit="Å", default=4000.0, ge=0)
    max_defocus_A: float = parameter("Largest defocus accepted (both axes).", unit="Å", default=40000.0, gt=0)
    max_astigmatism_A: float = parameter("Largest difference of the two defoci.", unit="Å", default=1000.0, gt=0)
    max_resolution_A: float = parameter(
        "Thon rings must be fitted at least to this resolution.", unit="Å", default=8.0, gt=0
    )
    agreement: Literal["crossing", "area", "legacy_linear"] = parameter(
        "How two estimates are compared. crossing: first frequency where the phases differ by 90°; area: radius "
        "of the disc "
        "as large as the area where they differ by less; legacy_linear: that area, linearly, as xmipp does.",
        default="crossing",
    )
    max_agreement_A: float | None = parameter(
        "Any two estimates must agree at least to this resolution; null: 5 Å (crossing, area) or 15 Å (legacy_linear).",
        unit="Å",
        default=None,
        gt=0,
    )
    average_defocus: bool = parameter(
        "Write the average of the estimates (as tensors) in place of the first one.", default=False
    )

    @model_validator(mode="after")
    def _ranges(self) -> ConsensusCtf:
        if not self.estimators or len(set(self.estimators)) < len(self.estimators):
            raise ValueError(f"estimators must name at least one estimator, each once, but it is {self.estimators}")
        if self.max_defocus_A <= self.min_defocus_A:
            raise ValueError(f"max_defocus_A ({self.max_defocus_A}) must exceed min_defocus_A ({self.min_defocus_A})")
        return self
