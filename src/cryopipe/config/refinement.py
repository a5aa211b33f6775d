"""Parameters of the refinement stage."""

from __future__ import annotations

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import Cost, Declaration, Reference
from cryopipe.config.declaration.runs import Stage


@Declaration(
    counts=None,
    batched=False,
    makes={
        "half_map_1": "run_half1_class001_unfil.mrc",
        "half_map_2": "run_half2_class001_unfil.mrc",
        "refined_map": "run_class001.mrc",
        "refined_particles": "particles.star",
        "refinement_history": "history.tsv",
    },
    gpu=True,
    threads=32,
    cost=Cost(
        names={
            # voxels of a cube of padding 2 in 10⁶
            "cube": "4e-6 * box_px ** 3",
            "spectra": "8e-6 * particles * 0.39 * box_px ** 2",
            "orientations": "72 * 8 ** step.healpix_order / symmetry_order",
            # the resolution that the grid can search, and its shifts in thirds of it
            "coarse_A": "0.79 * dataset.particle_diameter_A / 2 ** step.healpix_order",
            "shifts": "1 + 3.14 * (3 * step.offset_range_A / coarse_A) ** 2",
            "coarse": "1.57 * min(box_px * pixel_A / coarse_A, box_px / 2) ** 2",
            "search": "4 * shifts * orientations * coarse / 8e10",
            "tile": "min(1074, 4e-6 * particles / 2 * shifts * orientations)",
        },
        # 24 bytes per voxel while both halves are reconstructed to the resolution reached, 17 while one is at full size;
        # 150 MB of the 450 are for kernels that are compiled for the first time
        memory_MB="450 + 20 * cube + min(spectra, max(budget_MB - 805, 0)) + max(min(805, 4.5 * spectra), tile)",
        # every particle is searched in the first iterations and, three times as widely, in the review
        cpu_seconds="5 + 0.25 * cube + "
        "particles * (min(step.global_iterations + 3, step.max_iterations) * search "
        "+ 0.08e-6 * step.max_iterations * box_px ** 2)",
        parallel=0.9,
        gpu_memory_MB="1000 + 20 * cube + 2 * 134",
        disk_MB="20e-6 * box_px ** 3 + 0.001 * particles",
    ),
    references=(
        Reference(
            "Scheres 2012, RELION: a Bayesian approach to cryo-EM structure determination",
            "10.1016/j.jsb.2012.09.006",
        ),
    ),
)
class RefineHomogeneous(Params):
    """Step ``refine_homogeneous``: gold-standard refinement of one structure."""

    symmetry: str | None = parameter("Point group imposed on the map.", derived="dataset.symmetry")
    particle_diameter_A: float | None = parameter(
        "Outer diameter of the particle, for masks and search ranges.", unit="Å", derived="dataset.particle_diameter_A"
    )
    initial_lowpass_A: float | None = parameter(
        "Low-pass filter of the initial map; its finer details are not used. It is a sixth of the diameter of a solid particle. "
        "For a hollow shell it is half of the thickness of the wall, because views of a shell differ only in finer features.",
        unit="Å",
        derived="clip(min(dataset.particle_diameter_A / 6, "
        "0.24 * (dataset.particle_diameter_A - given(dataset.cavity_diameter_A, 0))), 10, 80)",
        ge=5,
        le=100,
    )
    join_resolution_A: float = parameter(
        "Only shells coarser than this (and than the initial low-pass) are averaged between the two half sets.",
        unit="Å",
        default=20.0,
        ge=10,
        le=100,
    )
    max_iterations: int = parameter("Largest number of iterations.", default=14, ge=1, le=50)
    global_iterations: int = parameter(
        "Number of first iterations in which every particle is searched over all orientations. It is searched so once more when "
        "the poses no longer change.",
        default=2,
        ge=1,
    )
    healpix_order: int = parameter("Order of the global orientation grid (60°/2^order).", default=3, ge=1, le=4)
    offset_range_A: float | None = parameter(
        "Largest distance from its centre in the table (rlnOriginX/YAngst) at which the particle is searched. Without these "
        "columns, the centre is that of the image.",
        unit="Å",
        derived="0.096 * dataset.particle_diameter_A",
        ge=0,
        le=200,
    )
    candidates: int = parameter(
        "Best poses of the global search, per particle, that are refined continuously.", default=4, ge=1, le=32
    )
    mask_start_resolution_A: float | None = parameter(
        "The dynamic mask is used once the map is better than this; before, the mask is a sphere. The value is an eighth of the "
        "diameter of a solid particle, half of the thickness of the wall of a hollow one, and at least 12 Å.",
        unit="Å",
        derived="max(12, min(dataset.particle_diameter_A / 8, "
        "0.24 * (dataset.particle_diameter_A - given(dataset.cavity_diameter_A, 0))))",
        ge=3,
        le=300,
    )
    mask_threshold: float = parameter(
        "Dynamic mask: density threshold as a share of the map's 99.9th percentile.", default=0.2, gt=0, lt=1
    )
    mask_near_A: float = parameter(
        "Dynamic mask: distance from the thresholded density up to which it is one.", unit="Å", default=6.0, ge=0, le=50
    )
    mask_far_A: float = parameter(
        "Dynamic mask: distance from the thresholded density beyond which it is zero.",
        unit="Å",
        default=14.0,
        gt=0,
        le=100,
    )
    refine_scale: bool = parameter("Refine the grey scale of every particle.", default=True)
    scale_prior: float | None = parameter(
        "Standard deviation of the grey scales of particles about one. null: each half set estimates it from its data, also for "
        "the means of micrographs. It is zero where the data do not determine it.",
        default=None,
        gt=0,
        le=1,
    )
    refine_defocus: bool = parameter("Refine the defocus of every particle once the map is good enough.", default=True)
    defocus_start_resolution_A: float = parameter(
        "Defocus is refined once the map is better than this.", unit="Å", default=10.0, gt=1, le=20
    )
    defocus_range_A: float = parameter(
        "Largest change of the defocus, up or down.", unit="Å", default=2000.0, gt=0, le=10000
    )
    defocus_prior_A: float | None = parameter(
        "Standard deviation of the defoci of particles about those of the table. null: each half set estimates it from its data, "
        "for the means of micrographs and for the particles about them. It is zero where the data do not determine it.",
        unit="Å",
        default=None,
        gt=0,
        le=10000,
    )
    refine_astigmatism: bool = parameter(
        "When the defocus is refined, refine the astigmatism of every micrograph, too, from all of its particles in a half "
        "set together.",
        default=True,
    )
    astigmatism_prior_A: float | None = parameter(
        "Standard deviation of the components of the true astigmatism (half of U - V) about those of the micrograph's CTF. null: "
        "each half set estimates it from its data. It is zero where the data do not determine it.",
        unit="Å",
        default=None,
        gt=0,
        le=10000,
    )


class RefinementStage(Stage):
    """Stage refinement: the gold-standard map."""

    refine_homogeneous: RefineHomogeneous = RefineHomogeneous()
