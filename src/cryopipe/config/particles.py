"""Parameters of the particles stage."""

from __future__ import annotations

from typing import Literal

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import Cost, Declaration, Reference
from cryopipe.config.declaration.runs import Stage


@Declaration(
    counts="particles",
    batched=True,
    makes={"particles": "particles.star"},
    threads=4,
    cost=Cost(
        names={
            "Mpx": "1e-6 * micrograph_px",
            "stack": "4e-6 * box_px ** 2 * particles / images",
        },
        memory_MB="220 + 25 * Mpx + 4 * stack",
        cpu_seconds="1.1 + images * (0.03 + 0.08 * Mpx) + 0.05e-6 * box_px ** 2 * particles",
        parallel=0.3,
        disk_MB="images * stack * (1 - 0.5 * step.half_precision)",
    ),
    references=(
        Reference(
            "de la Rosa-Trevín et al. 2013, Xmipp 3.0: an improved software suite for image processing",
            "10.1016/j.jsb.2013.09.015",
        ),
    ),
)
class ExtractParticles(Params):
    """Step ``extract_particles``: particle images cut from the micrographs."""

    particle_diameter_A: float | None = parameter(
        "Outer diameter of the particle.", unit="Å", derived="dataset.particle_diameter_A", ge=30, le=2000
    )
    downsample: float | None = parameter(
        "Fourier cropping of the micrograph before extraction: pixel size of the images over that of the micrograph.",
        derived="max(1, 0.7 / dataset.pixel_size_A)",
        ge=1,
        le=32,
    )
    box_A: float | None = parameter(
        "Smallest side of the images: the particle, plus on both sides the distance to which the CTF spreads detail of 3 Å "
        "at 1 µm defocus. It is rounded up to an even number of pixels that suits FFTs.",
        unit="Å",
        derived="max(1.5 * dataset.particle_diameter_A, dataset.particle_diameter_A + 2 * wavelength * 10000 / 3)",
        gt=0,
    )
    box_px: int | None = parameter(
        "Side of the images in their own pixels; it overrides box_A.", unit="px", default=None, ge=16
    )
    remove_dust: bool = parameter("Replace outlying pixels of the micrograph.", default=True)
    dust_threshold: float = parameter(
        "Pixels that differ from the mean by more than this are dust.", unit="sd", default=5.0, ge=3
    )
    dust_fill: Literal["random", "median"] = parameter(
        "What replaces dust: noise about the local mean, or the median of the neighbours.", default="random"
    )
    invert_contrast: bool = parameter(
        "Invert the contrast: protein is dark in the micrograph and bright in the images.", default=True
    )
    phase_flip: bool = parameter(
        "Flip the phases of the CTF on the whole micrograph. Off by default: later steps model the signed CTF, which loses "
        "nothing.",
        default=False,
    )
    normalise: Literal["ramp", "background", "image", "none"] = parameter(
        "ramp: subtract a plane fitted to the background, then set the background to mean 0 and sd 1; background: the same "
        "without the plane; image: set all pixels to mean 0 and sd 1.",
        default="ramp",
    )
    background_diameter_A: float | None = parameter(
        "Pixels outside this circle are background.", unit="Å", derived="1.25 * dataset.particle_diameter_A", gt=0
    )
    half_precision: bool = parameter(
        "Store float16, which needs half the disk space; RELION 3 cannot read it.", default=False
    )


class ParticlesStage(Stage):
    """Stage particles: normalised particle images."""

    extract_particles: ExtractParticles = ExtractParticles()
