"""Parameters of the classes2d stage."""

from __future__ import annotations

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import Cost, Declaration, Reference
from cryopipe.config.declaration.runs import Stage


@Declaration(
    counts=None,
    batched=False,
    makes={"class_averages": "classes.mrcs"},
    gpu=True,
    threads=32,
    cost=Cost(
        names={
            "box": "min(1.25 * step.mask_diameter_factor * step.particle_diameter_A / pixel_A, box_px)",
            "pixels": "1.57 * min(box * pixel_A / step.max_resolution_A, box / 2) ** 2",
            "classes": "given(step.classes, clip(particles / 40, 8, 50))",
            "angles": "3.14 * step.particle_diameter_A / step.max_resolution_A",
            "spectra": "8e-6 * particles * pixels",
            # six blocks of half of the particles, of at most 134 MB each
            "blocks": "min(805, 4.5 * spectra)",
            "sums": "24e-6 * classes * 1.6 * angles * pixels",
            "tile": "min(1074, 8e-6 * particles * 21 * classes * 1.6 * angles)",
        },
        memory_MB="350 + min(spectra, max(budget_MB - 805, 0)) + blocks + sums + tile",
        # 8 operations per particle, shift, class, angle and Fourier pixel; on average 40 % of the pixels of the last iteration
        cpu_seconds="2.5 + 0.1 * step.iterations + step.iterations * 8 * particles * 21 * classes * angles * 0.4 * pixels / 8e10",
        parallel=0.9,
        gpu_memory_MB="1000 + sums + 58e-6 * 64 * 21 * classes * 1.6 * angles",
        disk_MB="4e-6 * classes * box_px ** 2 + 0.0006 * particles",
    ),
    references=(
        Reference(
            "Scheres et al. 2005, Maximum-likelihood multi-reference refinement",
            "10.1016/j.jmb.2005.02.031",
        ),
        Reference(
            "Punjani et al. 2017, cryoSPARC: algorithms for rapid unsupervised structure determination",
            "10.1038/nmeth.4169",
        ),
    ),
)
class Classify2d(Params):
    """Step ``classify_2d``: class averages by expectation maximisation."""

    particle_diameter_A: float | None = parameter(
        "Outer diameter of the particle, for mask, box and angular steps.",
        unit="Å",
        derived="dataset.particle_diameter_A",
        ge=30,
        le=2000,
    )
    classes: int | None = parameter(
        "Number of classes; null: one class per 40 particles, at least 8 (4 below 80 particles) and at most 50.",
        default=None,
        ge=1,
        le=500,
    )
    max_resolution_A: float = parameter(
        "Finest resolution that the classification uses.", unit="Å", default=8.0, ge=4, le=40
    )
    start_resolution_A: float = parameter("Resolution of the first iteration.", unit="Å", default=30.0, ge=8, le=100)
    iterations: int = parameter("Iterations before the final pass.", default=24, ge=2, le=200)
    uncertainty: float = parameter(
        "Length of the annealing, in units of 30 % of the iterations. With larger values particles take more iterations to "
        "settle in one class.",
        default=2.0,
        gt=0,
        le=3.3,
    )
    initial_spread: float = parameter(
        "Share of all (class, angle, shift) states over which a particle is spread in the first iteration.",
        default=0.05,
        gt=0,
        lt=1,
    )
    tau_fudge: float = parameter(
        "Regularisation (RELION's T): with larger values class averages have more fine detail.",
        default=2.0,
        gt=0,
        le=10,
    )
    offset_range_A: float | None = parameter(
        "Range of the first search for the particle's centre.",
        unit="Å",
        derived="0.12 * dataset.particle_diameter_A",
        ge=0,
    )
    mask_diameter_factor: float = parameter(
        "Diameter of the soft mask, in particle diameters.", default=1.2, ge=1, le=3
    )
    recentre: bool = parameter(
        "Centre the averages after each iteration, so that the mean offset of their particles from the picks is zero.",
        default=True,
    )


@Declaration(
    counts="particles",
    batched=False,
    makes={
        "selected_particles": "particles.star",
        "deselected_particles": "rejected.star",
        "class_features": "class_features.star",
    },
    threads=2,
    cost=Cost(
        names={
            "box": "min(1.5 * dataset.particle_diameter_A / pixel_A, box_px)",
            "pixels": "1.57 * min(box * pixel_A / 12, box / 2) ** 2",
            "spectra": "8e-6 * particles * pixels",
            # images that are read at the same time
            "images": "min(5e-6 * particles * box_px ** 2, 100)",
        },
        memory_MB="275 + images + min(spectra, max(budget_MB - 805, 0)) + min(805, 4.5 * spectra)",
        cpu_seconds="1.2 + 1e-3 * particles",
        disk_MB="0.0006 * particles",
    ),
    references=(),
)
class SelectClasses2d(Params):
    """Step ``select_classes_2d``: which classes and particles are kept."""

    particle_diameter_A: float | None = parameter(
        "Outer diameter of the particle.", unit="Å", derived="dataset.particle_diameter_A", ge=30, le=2000
    )
    remove_ferritin: bool = parameter(
        "For ferritin: reject classes and single particles with a dense (iron-loaded) core.", default=False
    )
    core_threshold: float = parameter(
        "A class is iron-loaded if the density of its centre over that of its ring is above this.",
        default=0.9,
        gt=0,
        le=5,
    )
    particle_core_threshold: float = parameter(
        "A particle is iron-loaded if the density of its core over that of its shell is above this.",
        default=1.5,
        gt=0,
        le=10,
    )
    core_significance: float = parameter(
        "The density of the core must also exceed this many of its standard errors.", unit="sd", default=3.0, ge=0
    )
    core_diameter_fraction: float = parameter(
        "Diameter of the core, in particle diameters.", default=0.45, gt=0, le=0.6
    )
    cavity_diameter_fraction: float = parameter(
        "Diameter of the cavity, in particle diameters.", default=0.62, gt=0.1, lt=1
    )
    min_class_fraction: float = parameter(
        "Classes with fewer particles than this share of the mean class size are junk.", default=0.15, ge=0, lt=1
    )
    max_resolution_A: float = parameter(
        "Classes of usual size with a resolution worse than this and than max_resolution_factor times the median are junk.",
        unit="Å",
        default=25.0,
        gt=0,
    )
    max_resolution_factor: float = parameter("See max_resolution_A.", default=1.8, ge=1)
    min_signal: float = parameter(
        "Smallest contrast of a class: inside minus outside, over the standard deviation outside.", default=2.0, ge=0
    )
    max_edge_score: float = parameter(
        "A class is junk if more than this share of its positive power is outside the particle.",
        default=0.35,
        gt=0,
        le=1,
    )
    max_eca_fraction: float = parameter(
        "A class is junk if its particles are spread over more than this share of all classes.",
        default=0.3,
        gt=0,
        le=1,
    )


class Classes2dStage(Stage):
    """Stage classes2d: class averages and the particles worth keeping."""

    classify_2d: Classify2d = Classify2d()
    select_classes_2d: SelectClasses2d = SelectClasses2d()
