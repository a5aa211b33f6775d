"""The facts of a dataset and of a run: all that a user must give; everything else is derived or has a default."""

from __future__ import annotations

from typing import Literal

from cryopipe.config.base import Params, parameter


class Dataset(Params):
    """The eight facts (movies or micrographs, gain, pixel size, voltage, Cs, dose, diameter, symmetry), each given once.

    With a ``simulation`` section instead of ``movies`` or ``micrographs`` all of them come from the simulation.
    """

    movies: str | None = parameter(
        "Movie files (MRC, MRCS, TIFF, EER): a path or glob, relative to the folder of the Snakefile.", default=None
    )
    micrographs: str | None = parameter(
        "Aligned micrographs, instead of movies: a path or glob. The run then starts at the CTF stage.", default=None
    )
    gain: str | None = parameter(
        "Gain reference file, any orientation, multiplying or dividing; null if there is none.", default=None
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
    symmetry: str | None = parameter("Point group in RELION's notation: C1, C4, D7, T, O, I1 ...", default=None)
    model: str | None = parameter(
        "Atomic model (PDB or mmCIF) whose density judges the map; null if there is none.", default=None
    )


class Run(Params):
    """How the run is carried out; nothing here changes a result."""

    name: str = parameter("Name of the run; its results lie in results/<name>.", default="demo")
    seed: int = parameter("Seed of every random number of the run.", default=0, ge=0)
    batch_size: int = parameter(
        "Movies or micrographs a job; batches are cut from an append-only manifest.", default=50, ge=1
    )
    device: Literal["auto", "cpu", "gpu"] = parameter(
        "auto: a GPU where the job was given one that works, else the CPU; gpu: an error where there is none.",
        default="auto",
    )
    max_failed_fraction: float = parameter(
        "Share of a batch that may be quarantined before the run stops.", default=0.2, ge=0, le=1
    )
