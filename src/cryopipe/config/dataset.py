"""The facts of a dataset and of a run, which the user must give. Everything else is derived or has a default."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import model_validator

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.errors import ConfigError

#: Facts that may differ from group to group. If a fact of a group is null, that of the dataset holds.
GROUP_FACTS = (
    "pixel_size_A",
    "voltage_kV",
    "cs_mm",
    "amplitude_contrast",
    "dose_per_frame_e_A2",
    "pre_exposure_e_A2",
)


class OpticsGroup(Params):
    """Movies of one acquisition, if there are several. A fact that is null is that of the whole dataset."""

    name: str = parameter("Name of the optics group.")
    files: str = parameter("Glob for the paths (or archive names) of its movies; ``*`` also matches ``/``.")
    pixel_size_A: float | None = parameter("Pixel size of the movies.", unit="Å", default=None, gt=0.1, lt=20)
    voltage_kV: float | None = parameter("Acceleration voltage.", unit="kV", default=None, ge=60, le=1000)
    cs_mm: float | None = parameter("Spherical aberration.", unit="mm", default=None, ge=0, le=10)
    amplitude_contrast: float | None = parameter("Fraction of amplitude contrast.", default=None, ge=0, lt=1)
    dose_per_frame_e_A2: float | None = parameter("Exposure of one frame.", unit="e/Å²", default=None, gt=0, le=50)
    pre_exposure_e_A2: float | None = parameter(
        "Exposure before the first frame.", unit="e/Å²", default=None, ge=0, le=100
    )


class Dataset(Params):
    """The eight facts (movies or micrographs, gain, pixel size, voltage, Cs, dose, diameter, symmetry), each given once.

    With a ``simulation`` section instead of ``movies`` or ``micrographs``, all facts come from the simulation.
    """

    movies: str | None = parameter(
        "Movie files (MRC, MRCS, TIFF, EER): a path or glob, relative to the folder of the Snakefile. Files of EMPIAR are "
        "downloaded: empiar:<number>/<path pattern>, for example empiar:10248/data/*.tif.",
        default=None,
    )
    micrographs: str | None = parameter(
        "Aligned micrographs, instead of movies: a path or glob. The run then starts at the CTF stage.", default=None
    )
    optics_groups: list[OpticsGroup] = parameter(
        "Groups of movies that differ in voltage, Cs, amplitude contrast or exposure. Each has a name, files (a glob) and "
        "the facts in which it differs (voltage_kV, cs_mm, amplitude_contrast, dose_per_frame_e_A2, pre_exposure_e_A2). "
        "The pixel size must be that of the dataset. Each movie must belong to exactly one group. Empty: one group of all.",
        default=[],
    )
    gain: str | None = parameter(
        "Gain reference file, in any orientation, to multiply or to divide by; null if there is none.", default=None
    )
    pixel_size_A: float | None = parameter(
        "Pixel size of the movies (or micrographs).", unit="Å", default=None, gt=0.1, lt=20
    )
    voltage_kV: float | None = parameter("Acceleration voltage.", unit="kV", default=None, ge=60, le=1000)
    cs_mm: float | None = parameter("Spherical aberration.", unit="mm", default=None, ge=0, le=10)
    amplitude_contrast: float = parameter("Fraction of amplitude contrast.", default=0.1, ge=0, lt=1)
    dose_per_frame_e_A2: float | None = parameter(
        "Exposure of one frame; null switches dose weighting off.", unit="e/Å²", default=None, gt=0, le=50
    )
    pre_exposure_e_A2: float = parameter("Exposure before the first frame.", unit="e/Å²", default=0.0, ge=0, le=100)
    particle_diameter_A: float | None = parameter(
        "Outer diameter of the particle.", unit="Å", default=None, ge=30, le=2000
    )
    cavity_diameter_A: float | None = parameter(
        "Diameter of the cavity of a hollow particle, such as ferritin; null if the particle is solid.",
        unit="Å",
        default=None,
        gt=0,
        le=2000,
    )
    symmetry: str | None = parameter("Point group in RELION's notation: C1, C4, D7, T, O, I1 ...", default=None)
    model: str | None = parameter(
        "Atomic model (PDB or mmCIF) with which the map is compared; null if there is none.", default=None
    )

    @property
    def symmetry_order(self) -> int:
        """Number of rotations of the point group; 1 for a name that no group has, which the steps refuse."""
        name = str(self.symmetry or "C1").strip().upper()
        polyhedral = {"T": 12, "O": 24, "I": 60}
        if name[:1] in polyhedral:
            return polyhedral[name[0]]
        fold = int(name[1:]) if name[1:].isdigit() else 1
        return 2 * fold if name.startswith("D") else fold

    @model_validator(mode="after")
    def _groups_that_can_be_processed_together(self) -> Dataset:
        groups = self.optics_groups
        names = [group.name for group in groups]
        if len(set(names)) < len(names):
            raise ValueError(f"optics_groups: a name occurs twice among {', '.join(names)}. Rename one of them")
        for group in groups:
            pixel_A, others_A = group.pixel_size_A, self.pixel_size_A
            if pixel_A is not None and others_A is not None and abs(pixel_A - others_A) > 1e-3 * others_A:
                raise ValueError(
                    f"optics group {group.name} has {pixel_A:g} Å/px, but the dataset has {others_A:g} Å/px. One run cannot "
                    "process different pixel sizes; make one run for each"
                )
            if group.dose_per_frame_e_A2 is not None and self.dose_per_frame_e_A2 is None:
                raise ValueError(
                    f"optics group {group.name} has dose_per_frame_e_A2 = {group.dose_per_frame_e_A2:g}, but the dataset has "
                    "none, which switches dose weighting off for all groups. Give that of the dataset, too"
                )
        return self


def group_of(name: str, groups: Sequence[OpticsGroup]) -> OpticsGroup:
    """Return the one group whose glob ``name`` matches, from its start or from any folder in it.

    Parameters
    ----------
    name : str
        Path of a movie, or its name in an archive.
    groups : sequence of OpticsGroup
        All groups of the dataset.

    Raises
    ------
    ConfigError
        No group matches, or more than one does.
    """
    found = [g for g in groups if fnmatchcase(name, g.files) or fnmatchcase(name, f"*/{g.files}")]
    if len(found) != 1:
        which = " and ".join(g.name for g in found) or "none"
        raise ConfigError(
            f"dataset.optics_groups: {name} must belong to exactly one group, but {which} of "
            f"{', '.join(g.name for g in groups)} matches it. Correct the globs (files) of the groups."
        )
    return found[0]


class Run(Params):
    """How the run is carried out. Apart from the seed nothing here changes a result."""

    name: str = parameter("Name of the run; its results are in results/<name>.", default="demo")
    seed: int = parameter("Seed of all random numbers of the run.", default=0, ge=0)
    batch_size: int = parameter(
        "Movies or micrographs per job (batch). New files are added to the end of the list.", default=50, ge=1
    )
    device: Literal["auto", "cpu", "gpu"] = parameter(
        "auto: a GPU if the job has one that works, otherwise the CPU; gpu: an error if there is none.",
        default="auto",
    )
    memory_GB: float | None = parameter(
        "Memory for the particles of one job; particles that do not fit are read from disk again. null: half of the memory "
        "that is free when the job starts.",
        unit="GB",
        default=None,
        gt=0,
    )
    max_failed_fraction: float = parameter(
        "Share of all movies or micrographs of the run that a step may quarantine; above it the run stops.",
        default=0.2,
        ge=0,
        le=1,
    )
    particles_per_micrograph: int | None = parameter(
        "Particles that a micrograph is expected to show, to predict memory and time; null: as many as half of its area "
        "holds.",
        default=None,
        ge=1,
        le=100000,
    )
