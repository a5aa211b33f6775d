"""Parameters of the initial_volume stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import BranchOf, Cost, Declaration, Reference
from cryopipe.config.declaration.runs import Stage, check_choice


@Declaration(
    counts=None,
    batched=False,
    makes={"initial_map": "initial.mrc", "initial_history": "history.tsv", "initial_seeds": "seeds.json"},
    branch_of="initial_volumes",
    label="initial_relion_sgd",
    threads=32,
    cost=Cost(
        names={
            "orientations": "72 * 8 ** step.healpix_order / symmetry_order",
            # mean over a run; the first iterations take the full range in coarse steps
            "shifts": "10",
            "radius": "min(box_px * pixel_A / step.final_resolution_A, box_px / 2 - 1)",
            "pixels": "1.57 * radius ** 2",
            "iterations": "step.initial_iterations + step.inbetween_iterations + step.final_iterations",
            "batch": "min(0.5 * (step.initial_batch + step.final_batch), 0.8 * particles)",
            "spectra": "8e-6 * particles * pixels",
            "tile": "min(1074, 4e-6 * batch * shifts * orientations)",
        },
        # at the end the map is made symmetric at full size
        memory_MB="440 + min(spectra, max(budget_MB - 805, 0)) + min(805, 9 * spectra) + 22e-6 * box_px ** 3 + "
        "24e-6 * orientations * pixels + tile",
        cpu_seconds="4 + step.seeds * iterations * (0.05 + 8 * batch * shifts * orientations * 0.6 * pixels / 8e10)",
        parallel=0.9,
        disk_MB="4e-6 * box_px ** 3 + 0.0006 * particles + step.seeds * 8e-6 * (3 * radius) ** 3",
    ),
    references=(
        Reference(
            "Punjani et al. 2017, cryoSPARC: algorithms for rapid unsupervised structure determination",
            "10.1038/nmeth.4169",
        ),
        Reference(
            "Zivanov et al. 2018, New tools for automated high-resolution cryo-EM in RELION-3",
            "10.7554/eLife.42166",
        ),
    ),
)
class InitialRelionSgd(Params):
    """Step ``initial_relion_sgd``: an initial map by stochastic gradient descent without a reference, as in RELION 3.1."""

    symmetry: str | None = parameter("Point group imposed on the map.", derived="dataset.symmetry")
    particle_diameter_A: float | None = parameter(
        "Outer diameter of the particle, for the masks.", unit="Å", derived="dataset.particle_diameter_A"
    )
    seeds: int = parameter(
        "Number of independent runs, one after the other. They end as soon as two find the same map. After this number, they "
        "also end if the likelihood of held-out particles is clearly best for one run.",
        default=8,
        ge=1,
        le=50,
    )
    max_seeds: int = parameter(
        "Largest number of runs, if no two find the same map and none is clearly best.", default=16, ge=1, le=100
    )
    initial_iterations: int = parameter(
        "Mini-batches at the initial resolution and batch size.", default=4, ge=1, le=1000
    )
    inbetween_iterations: int = parameter(
        "Mini-batches during which resolution and batch size grow linearly.", default=18, ge=1, le=5000
    )
    final_iterations: int = parameter(
        "Mini-batches at the final resolution and batch size. On EMPIAR-10146, the correlation of two maps with the right map "
        "was 0.56 and 0.85 after 8 mini-batches, and 0.92 and 0.95 after 20.",
        default=20,
        ge=1,
        le=1000,
    )
    initial_resolution_A: float | None = parameter(
        "Resolution of the first phase. It is a fifth of the diameter of a solid particle. For a hollow shell it is 0.6 times "
        "the thickness of the wall, because views of a shell differ only in finer features (ferritin: 15 Å).",
        unit="Å",
        derived="clip(min(dataset.particle_diameter_A / 5, "
        "0.3 * (dataset.particle_diameter_A - given(dataset.cavity_diameter_A, 0))), 10, 80)",
        ge=5,
        le=100,
    )
    final_resolution_A: float | None = parameter(
        "Resolution of the last phase: the finest that the finest orientation grid resolves at the border of the particle.",
        unit="Å",
        derived="clip(0.64 * dataset.particle_diameter_A / 2 ** clip(ceil(dataset.symmetry_order / 2 + 1), 2, 3), 8, 80)",
        ge=4,
        le=80,
    )
    initial_batch: int = parameter("Particles of a mini-batch in the first phase.", default=400, ge=8, le=10000)
    final_batch: int = parameter("Particles of a mini-batch in the last phase.", default=800, ge=8, le=100000)
    momentum: float = parameter(
        "Momentum: share of the previous step that is kept (RELION: 0.9 for 300 mini-batches; fewer need less).",
        default=0.5,
        ge=0,
        lt=1,
    )
    step_size: float = parameter(
        "Step size of the gradient (RELION: 0.5 for 300 mini-batches).", default=1.0, gt=0, le=1
    )
    healpix_order: int | None = parameter(
        "Order of the finest orientation grid (60°/2^order). An iteration takes the coarsest grid whose step moves the "
        "border of the particle by at most 0.85 times the resolution of the iteration. With point groups of order 3 and more, "
        "there are fewer orientations, so that a finer grid takes no more time.",
        derived="clip(ceil(dataset.symmetry_order / 2 + 1), 2, 3)",
        ge=1,
        le=4,
    )
    offset_range_A: float | None = parameter(
        "Largest distance from its centre in the table at which the particle is searched. The range of an iteration follows "
        "from the shifts that the previous iteration found. Its step follows from the resolution.",
        unit="Å",
        derived="0.096 * dataset.particle_diameter_A",
        ge=0,
        le=200,
    )
    initial_effective_poses: float = parameter(
        "Share of all poses over which a particle is spread at the start (annealing; 0 switches it off).",
        default=0.0,
        ge=0,
        le=0.5,
    )
    regularisation: float = parameter(
        "Added to the weight of each Fourier voxel, in units of the mean weight of its shell.", default=0.1, gt=0, le=10
    )
    positive_share: float = parameter(
        "Negative density is removed after each iteration in this first share of all (RELION: in the first phase).",
        default=0.0,
        ge=0,
        le=1,
    )
    mask_diameter_factor: float = parameter(
        "Diameter of the soft mask of the map, in particle diameters.", default=1.2, ge=1, le=3
    )
    image_mask_diameter_factor: float = parameter(
        "Diameter of the soft mask of the images, in particle diameters. The CTF spreads detail beyond the edge of the particle.",
        default=2.0,
        ge=1,
        le=4,
    )
    held_out: int = parameter(
        "Particles that are held out of all mini-batches to judge the runs (at most a fifth of all).",
        default=300,
        ge=10,
        le=5000,
    )


#: Label of a method that makes an initial map: the name of its step.
InitialVolume = Annotated[str, BranchOf("initial_volumes")]


class InitialVolumeStage(Stage):
    """Stage initial_volume: an initial map from the particles alone."""

    initial_volumes: list[InitialVolume] = parameter(
        "Methods that run, each on all selected particles.", default=["initial_relion_sgd"]
    )
    initial_map_from: InitialVolume | None = parameter(
        "Method whose map the next steps use; null: the first of initial_volumes.", default=None
    )
    initial_relion_sgd: InitialRelionSgd = InitialRelionSgd()

    @property
    def fan_ins(self) -> dict[str, tuple[list[str], str]]:
        """The methods that run, and the one whose map the next steps use."""
        return {"initial_volumes": (self.initial_volumes, self.initial_map_from or self.initial_volumes[0])}

    @model_validator(mode="after")
    def _choices(self) -> InitialVolumeStage:
        check_choice("initial_volumes", self.initial_volumes, "initial_map_from", self.initial_map_from)
        return self
