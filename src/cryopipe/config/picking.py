"""Parameters of the picking stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import BranchOf, Cost, Declaration, Reference
from cryopipe.config.declaration.runs import Stage, check_choice

#: Cost of filtering micrographs at 20 Å, with any filter.
_COST_OF_FILTERS = Cost(
    names={"Mpx": "1e-6 * micrograph_px"},
    memory_MB="285 + 14 * Mpx",
    cpu_seconds="1.1 + images * (0.03 + 0.035 * Mpx)",
    parallel=0.3,
    disk_MB="0.0003 * particles",
)


class SizePicker(Params):
    """Parameters of pickers that know only the size of the particle."""

    particle_diameter_A: float | None = parameter(
        "Outer diameter of the particle.", unit="Å", derived="dataset.particle_diameter_A", ge=30, le=2000
    )
    max_resolution_A: float = parameter("Low-pass filter of the micrograph.", unit="Å", default=20.0, ge=5, le=100)
    highpass_A: float | None = parameter(
        "High-pass filter against ice-thickness and illumination gradients.",
        unit="Å",
        derived="2.5 * dataset.particle_diameter_A",
        gt=0,
    )
    outlier_zscore: float = parameter(
        "Pixels of the micrograph that differ from the mean by more than this are set to the mean.",
        unit="sd",
        default=8.0,
        gt=2,
    )
    max_merit_ratio: float = parameter(
        "Picks whose figure of merit is above this many times the median of the micrograph are left out as ice or carbon.",
        default=5.0,
        gt=1,
    )
    max_roughness: float = parameter(
        "Picks with this many times the median contrast of the picks are left out as carbon, ice or aggregates.",
        default=2.0,
        gt=1,
    )
    min_distance_fraction: float = parameter(
        "Smallest distance of two picks, in particle diameters.", default=0.8, gt=0, le=3
    )


@Declaration(
    counts="micrographs",
    batched=True,
    makes={"coordinates": "coordinates.star"},
    branch_of="pickers",
    label="pick_log",
    threads=4,
    cost=_COST_OF_FILTERS,
    references=(
        Reference(
            "Zivanov et al. 2018, New tools for automated high-resolution cryo-EM in RELION-3",
            "10.7554/eLife.42166",
        ),
    ),
)
class PickLog(SizePicker):
    """Step ``pick_log``: particles found as blobs of about their size, by Laplacians of Gaussians."""

    min_diameter_A: float | None = parameter(
        "Diameter of the narrowest filter. The best filter has 0.94 times the diameter of a ball, and 1.14 times that of a shell "
        "with a cavity of 0.65 diameters.",
        unit="Å",
        derived="0.9 * dataset.particle_diameter_A + 0.3 * given(dataset.cavity_diameter_A, 0)",
        gt=0,
    )
    max_diameter_A: float | None = parameter(
        "Diameter of the widest filter. The response of hollow particles is largest at up to 1.3 times their diameter.",
        unit="Å",
        derived="1.3 * dataset.particle_diameter_A",
        gt=0,
    )
    correct_ctf: bool = parameter(
        "Correct the rise of the CTF from zero frequency to its first peak before filtering.", default=False
    )
    adjust_threshold: float = parameter(
        "Added to the figure of merit that separates particles from the other maxima of a micrograph.",
        unit="sd",
        default=0.0,
        ge=-5,
        le=20,
    )
    certain_merit_ratio: float = parameter(
        "Maxima above this share of the typical particle's merit are particles, wherever the threshold is, because views of one "
        "particle differ.",
        default=0.45,
        gt=0,
        le=1,
    )
    noise_threshold: float = parameter(
        "A pick must exceed by this much what shot noise alone gives in this micrograph, even in an empty one.",
        unit="sd",
        default=3.0,
        ge=0,
    )
    min_merit_ratio: float = parameter(
        "Picks with a figure of merit below this share of the micrograph's median pick are noise.",
        default=0.4,
        ge=0,
        lt=1,
    )
    min_distance_fraction: float = parameter(
        "Smallest distance of two picks, in particle diameters. Elongated particles side by side are closer than one diameter.",
        default=0.7,
        gt=0,
        le=3,
    )


@Declaration(
    counts="micrographs",
    batched=True,
    makes={"coordinates": "coordinates.star"},
    branch_of="pickers",
    label="pick_shell",
    threads=4,
    cost=_COST_OF_FILTERS,
    references=(
        Reference(
            "Sigworth 2004, Classical detection theory and the cryo-EM particle selection problem",
            "10.1016/j.jsb.2003.10.025",
        ),
    ),
)
class PickShell(SizePicker):
    """Step ``pick_shell``: particles found by the matched filter of a ball, or a hollow ball, under the CTF."""

    cavity_diameter_A: float | None = parameter(
        "Diameter of the cavity; null for a solid particle. A wrong value does little harm, as the outer border decides.",
        unit="Å",
        derived="dataset.cavity_diameter_A",
        ge=0,
    )
    threshold: float = parameter(
        "Threshold of the figure of merit, in standard deviations (by MAD) of the response.",
        unit="sd",
        default=2.5,
        ge=1,
        le=50,
    )
    noise_threshold: float = parameter(
        "A pick must exceed by this much what shot noise alone gives in this micrograph, even in an empty one.",
        unit="sd",
        default=5.0,
        ge=0,
    )
    min_merit_ratio: float = parameter(
        "Picks with a figure of merit below this share of the micrograph's median pick are noise.",
        default=0.55,
        ge=0,
        lt=1,
    )

    @model_validator(mode="after")
    def _cavity_inside(self) -> PickShell:
        cavity_A, diameter_A = self.cavity_diameter_A, self.particle_diameter_A
        if cavity_A is not None and diameter_A is not None and cavity_A >= diameter_A:
            raise ValueError(
                f"cavity_diameter_A is {cavity_A:g} Å, but it must be smaller than the diameter of the particle, "
                f"{diameter_A:g} Å"
            )
        return self


#: Label of a picker: the name of its step.
Picker = Annotated[str, BranchOf("pickers")]


class PickingStage(Stage):
    """Stage picking: particle coordinates."""

    pickers: list[Picker] = parameter("Pickers that run, each over all micrographs.", default=["pick_log"])
    coordinates_from: Picker | None = parameter(
        "Picker whose coordinates go on; null: the first of pickers.", default=None
    )
    pick_log: PickLog = PickLog()
    pick_shell: PickShell = PickShell()

    @property
    def fan_ins(self) -> dict[str, tuple[list[str], str]]:
        """The pickers that run, and the one whose coordinates go on."""
        return {"pickers": (self.pickers, self.coordinates_from or self.pickers[0])}

    @model_validator(mode="after")
    def _choices(self) -> PickingStage:
        check_choice("pickers", self.pickers, "coordinates_from", self.coordinates_from)
        return self
