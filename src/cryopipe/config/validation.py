"""Parameters of the validation stage."""

from __future__ import annotations

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import Cost, Declaration, Reference
from cryopipe.config.declaration.runs import Stage

#: Source of the FSC threshold 0.143 and of sharpening by a B factor.
_ROSENTHAL_HENDERSON = Reference(
    "Rosenthal & Henderson 2003, Optimal determination of particle orientation", "10.1016/j.jmb.2003.07.013"
)


@Declaration(
    counts=None,
    batched=False,
    makes={
        "sharpened_map": "postprocess.mrc",
        "masked_map": "postprocess_masked.mrc",
        "half_map_fsc": "postprocess.star",
        "half_map_summary": "postprocess.json",
    },
    threads=2,
    cost=Cost(
        memory_MB="230 + 42e-6 * box_px ** 3",
        cpu_seconds="1.5 + 0.35e-6 * box_px ** 3",
        parallel=0.3,
        disk_MB="12e-6 * box_px ** 3",
    ),
    references=(
        _ROSENTHAL_HENDERSON,
        Reference(
            "Chen et al. 2013, High-resolution noise substitution to measure overfitting",
            "10.1016/j.ultramic.2013.06.004",
        ),
    ),
)
class Postprocess(Params):
    """Step ``postprocess``: solvent mask, corrected FSC, sharpening."""

    mask_lowpass_A: float = parameter(
        "Low-pass filter of the map from which the solvent mask is made.", unit="Å", default=12.0, ge=3, le=100
    )
    mask_threshold: float = parameter(
        "Density threshold of the solvent mask, as a share of the filtered map's 99.9th percentile.",
        default=0.15,
        gt=0,
        lt=1,
    )
    mask_extend_A: float = parameter("Distance by which the binary mask grows.", unit="Å", default=4.0, ge=0, le=50)
    mask_edge_A: float = parameter("Width of the mask's soft edge.", unit="Å", default=8.0, gt=0, le=50)
    b_factor_A2: float | None = parameter(
        "B factor, applied as exp(-B/4d²); a negative one sharpens. null: from the Guinier plot.",
        unit="Å²",
        default=None,
    )
    guinier_start_A: float = parameter("Low-resolution end of the Guinier fit.", unit="Å", default=10.0, ge=3, le=30)
    lowpass_A: float | None = parameter(
        "Final low-pass filter; null: at the resolution of the corrected FSC.", unit="Å", default=None, gt=0
    )
    mtf: str | None = parameter(
        "STAR file of the detector's MTF (rlnResolutionInversePixel, rlnMtfValue); null: no MTF is divided out.",
        default=None,
    )
    mtf_pixel_size_A: float | None = parameter(
        "Pixel size of the detector's physical pixels, for the MTF.", unit="Å", derived="dataset.pixel_size_A"
    )


@Declaration(
    counts=None,
    batched=False,
    makes={"truth_summary": "truth.json", "truth_fsc": "truth_fsc.star"},
    when="truth",
    threads=4,
    cost=Cost(
        memory_MB="300 + 105e-6 * box_px ** 3",
        cpu_seconds="2 + 0.45e-6 * box_px ** 3 + 1e-7 * particles * box_px ** 2",
        parallel=0.5,
        disk_MB="4e-6 * box_px ** 3",
    ),
    references=(_ROSENTHAL_HENDERSON,),
)
class ValidateTruth(Params):
    """Step ``validate_truth``: the map, poses and picks against the truth of a simulation."""

    symmetry: str | None = parameter("Point group of the particle.", derived="dataset.symmetry")
    particle_diameter_A: float | None = parameter(
        "Outer diameter of the particle.", unit="Å", derived="dataset.particle_diameter_A"
    )
    match_radius_A: float | None = parameter(
        "A pick belongs to the nearest true particle within this distance.",
        unit="Å",
        derived="dataset.particle_diameter_A / 4",
        gt=0,
    )
    mask_threshold: float = parameter(
        "Mask from the true map: density threshold as a share of its 99.9th percentile at 12 Å.",
        default=0.1,
        gt=0,
        lt=1,
    )
    mask_extend_A: float = parameter("Distance by which the binary mask grows.", unit="Å", default=4.0, ge=0, le=50)
    mask_edge_A: float = parameter("Width of the mask's soft edge.", unit="Å", default=8.0, gt=0, le=50)
    kinds: tuple[str, ...] = parameter("Kinds of true particles that the pipeline should find.", default=("apo",))


@Declaration(
    counts=None,
    batched=False,
    makes={"model_summary": "model.json", "model_fsc": "model_fsc.star"},
    when="model",
    threads=4,
    cost=Cost(
        memory_MB="300 + 80e-6 * box_px ** 3",
        cpu_seconds="5 + 1e-6 * box_px ** 3",
        parallel=0.5,
        disk_MB="4e-6 * box_px ** 3",
    ),
    references=(_ROSENTHAL_HENDERSON,),
)
class ValidateModel(Params):
    """Step ``validate_model``: the map against the density of an atomic model."""

    symmetry: str | None = parameter("Point group of the particle.", derived="dataset.symmetry")
    particle_diameter_A: float | None = parameter(
        "Outer diameter of the particle.", unit="Å", derived="dataset.particle_diameter_A"
    )
    assembly: str | None = parameter(
        "Biological assembly to build, if the file has it; null: the coordinates as they are.", default="1"
    )
    b_factor_A2: float = parameter(
        "B factor that is added to those of all atoms.", unit="Å²", default=0.0, ge=0, le=1000
    )
    allow_hand: bool = parameter("Also try the mirror image of the map.", default=True)
    mask_extend_A: float = parameter(
        "Distance from the atoms at which the mask starts to fall.", unit="Å", default=4.0, ge=0, le=50
    )
    mask_edge_A: float = parameter("Width of the mask's soft edge.", unit="Å", default=8.0, gt=0, le=50)


class ValidationStage(Stage):
    """Stage validation: how good the map is, against itself, the truth and a model."""

    postprocess: Postprocess = Postprocess()
    validate_truth: ValidateTruth = ValidateTruth()
    validate_model: ValidateModel = ValidateModel()
