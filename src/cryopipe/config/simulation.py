"""Parameters of the simulation stage."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import Cost, Declaration
from cryopipe.config.declaration.runs import Stage

#: Values of the presets; every value can be overridden one by one.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "movies": 6, "width_px": 512, "height_px": 480, "frames": 8, "pixel_size_A": 2.0,
        "dose_per_frame_e_A2": 5.0, "particles_per_movie": 42, "defocus_range_A": (10000.0, 16000.0),
    },
    "demo": {
        "movies": 12, "width_px": 1024, "height_px": 1024, "frames": 16, "pixel_size_A": 1.0,
        "dose_per_frame_e_A2": 2.5, "particles_per_movie": 46, "defocus_range_A": (8000.0, 18000.0),
    },
    "tutorial": {
        "movies": 30, "width_px": 3710, "height_px": 3838, "frames": 50, "pixel_size_A": 0.495,
        "dose_per_frame_e_A2": 1.0, "particles_per_movie": 150, "defocus_range_A": (6000.0, 18000.0),
    },
}  # fmt: skip

#: Largest error of the products of an operator's rows. Coordinates of 100 Å are then right to 0.1 Å, and three decimals suffice.
_ORTHOGONAL = 1e-3


def _is_rotation(rows: list[list[float]]) -> bool:
    (a, b, c), (d, e, f), (g, h, i) = rows
    products = [sum(x * y for x, y in zip(p, q, strict=True)) - float(p is q) for p in rows for q in rows]
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    return determinant > 0 and max(map(abs, products)) <= _ORTHOGONAL


@Declaration(
    counts=None,
    batched=False,
    makes={
        "simulated_movies": "movies.star",
        "simulated_gain": "gain.mrc",
        "truth_particles": "truth_particles.star",
        "truth_movies": "truth_movies.star",
        "truth_map": "truth_map.mrc",
    },
    when="simulation",
    threads=32,
    cost=Cost(
        names={
            "Mpx": "1e-6 * frame_px",
            # the field is wider than the frame
            "field": "1e-6 * (sqrt(frame_px) + 350) ** 2",
            "at_once": "clip(2500 / (75 * Mpx), 1, threads)",
            "map_Mpx": "1e-6 * (1.5 * dataset.particle_diameter_A / max(dataset.pixel_size_A, 0.7)) ** 3",
        },
        memory_MB="310 + 65 * field * at_once + 16 * map_Mpx",
        cpu_seconds="4 + images * (0.4 + 0.165 * frames * Mpx)",
        parallel=0.9,
        disk_MB="images * movie_MB + 4 * Mpx + 4 * map_Mpx",
    ),
    references=(),
)
class SimulateMovies(Params):
    """Step ``simulate_movies``: movies of apoferritin (or any model) in ice whose truth is known."""

    preset: Literal["tiny", "demo", "tutorial"] = parameter(
        "Preset for values that are null: tiny (tests), demo (minutes), tutorial (sizes of EMPIAR-10248).",
        default="demo",
    )
    movies: int | None = parameter("Number of movies.", derived="preset", ge=1, le=10000)
    width_px: int | None = parameter("Width of a frame.", unit="px", derived="preset", ge=128, le=16384)
    height_px: int | None = parameter("Height of a frame.", unit="px", derived="preset", ge=128, le=16384)
    frames: int | None = parameter("Frames of a movie.", derived="preset", ge=2, le=1000)
    pixel_size_A: float | None = parameter("Pixel size.", unit="Å", derived="preset", ge=0.3, le=5)
    dose_per_frame_e_A2: float | None = parameter("Exposure of a frame.", unit="e/Å²", derived="preset", gt=0, le=50)
    particles_per_movie: int | None = parameter(
        "Particles to place in a movie; fewer are placed if they would overlap.", derived="preset", ge=1, le=5000
    )
    defocus_range_A: tuple[float, float] | None = parameter(
        "Range of the mean defocus of the movies.", unit="Å", derived="preset"
    )
    voltage_kV: float = parameter("Acceleration voltage.", unit="kV", default=300.0, ge=60, le=1000)
    cs_mm: float = parameter("Spherical aberration.", unit="mm", default=2.7, ge=0, le=10)
    amplitude_contrast: float = parameter("Fraction of amplitude contrast.", default=0.1, ge=0, lt=1)
    model: str | None = parameter(
        "PDB or mmCIF file, or a PDB id to download; null: the embedded apoferritin.", default=None
    )
    assembly: str | None = parameter(
        "Biological assembly of the model that is generated, if the model file defines it; null: the coordinates as they are.",
        default="1",
    )
    operators: list[list[float]] = parameter(
        "Copies of the model that make the particle. Each has 12 numbers: the three rows of a rotation, each followed by its "
        "shift in Å, as in BIOMT records. Empty: one copy, not moved.",
        default=[],
    )
    expand: str = parameter(
        "Point group that makes the whole particle from these copies. Its operators act about the origin of the model file.",
        default="C1",
    )
    symmetry: str = parameter("Point group of the particle.", default="O")
    particle_diameter_A: float = parameter(
        "Particle diameter that the pipeline uses.", unit="Å", default=125.0, ge=30, le=2000
    )
    spacing: float = parameter("Smallest distance of two particles, in diameters.", default=1.04, ge=0.8, le=5)
    iron_fraction: float | None = parameter(
        "Share of particles whose cavity has an iron core; null: 0.1 for the embedded apoferritin, none for a model.",
        default=None,
        ge=0,
        le=1,
    )
    astigmatism_A: float = parameter("Typical difference of the two defoci.", unit="Å", default=200.0, ge=0, le=5000)
    ice_thickness_A: float = parameter(
        "Mean thickness of the ice; particles lie at all heights in it.", unit="Å", default=350.0, gt=0, le=3000
    )
    b_factor_A2: float = parameter(
        "Envelope of microscope, camera and specimen, exp(-B k²/4), in addition to the B factors of the model.",
        unit="Å²",
        default=40.0,
        ge=0,
    )
    ice_noise: float = parameter(
        "Power of the structure of the ice, relative to amorphous ice of this thickness; it makes the Thon rings.",
        default=1.0,
        ge=0,
    )
    drift_A: float = parameter("Typical travel of the specimen in a movie.", unit="Å", default=6.0, ge=0, le=10)
    local_motion_A: float = parameter(
        "Typical local motion in the corners of the field over a movie.", unit="Å", default=1.5, ge=0, le=20
    )
    special_movies: bool = parameter(
        "With 4 movies or more, one drifts far and one has a bad CTF. With 8 or more, one has a carbon edge. A third has "
        "ice contaminants.",
        default=True,
    )
    detective_quantum_efficiency: float = parameter(
        "DQE of the camera at low frequency; it falls to half at Nyquist.", default=0.6, gt=0, le=1
    )
    gain_sigma: float = parameter("Standard deviation of the gain over the pixels.", default=0.03, ge=0, le=0.3)
    movie_format: Literal["tif", "mrcs"] = parameter(
        "TIFF with LZW compression (8 bit), or MRC stacks (16 bit).", default="tif"
    )

    @model_validator(mode="after")
    def _ordered(self) -> SimulateMovies:
        low, high = self.value("defocus_range_A")
        if not 0 < low <= high:
            raise ValueError(
                f"defocus_range_A must be two positive values, the smaller first, but it is ({low:g}, {high:g})"
            )
        return self

    @model_validator(mode="after")
    def _particle(self) -> SimulateMovies:
        if self.model is None and (self.operators or self.expand != "C1"):
            raise ValueError("operators and expand make copies of a model, but model is null: give its file")
        for number, operator in enumerate(self.operators, start=1):
            if len(operator) != 12:
                raise ValueError(f"operator {number} has {len(operator)} numbers, not 12: a 3 x 3 rotation and a shift")
            if not _is_rotation([operator[0:3], operator[4:7], operator[8:11]]):
                raise ValueError(
                    f"operator {number} is not a rotation (orthogonal to {_ORTHOGONAL:g}, determinant 1): {operator}. "
                    "Give the rows of a rotation, each followed by its shift"
                )
        return self

    @property
    def model_file(self) -> str | None:
        """The file that ``model`` names. None for the embedded model or a PDB id of four characters."""
        return None if self.model is None or (len(self.model) == 4 and self.model.isalnum()) else self.model

    @property
    def iron_share(self) -> float:
        """``iron_fraction``, or its default for this particle."""
        return (0.1 if self.model is None else 0.0) if self.iron_fraction is None else self.iron_fraction

    def value(self, name: str) -> Any:
        """Return the given value, or that of the preset if it is null."""
        given = getattr(self, name)
        return PRESETS[self.preset][name] if given is None else given

    def facts(self) -> dict[str, Any]:
        """Return the facts of the simulated dataset, by their names in section ``dataset``."""
        return {
            "pixel_size_A": self.value("pixel_size_A"),
            "voltage_kV": self.voltage_kV,
            "cs_mm": self.cs_mm,
            "amplitude_contrast": self.amplitude_contrast,
            "dose_per_frame_e_A2": self.value("dose_per_frame_e_A2"),
            "particle_diameter_A": self.particle_diameter_A,
            "symmetry": self.symmetry,
        }

    def movie_paths(self, folder: str) -> list[str]:
        """Return the movie files in ``folder``, in order."""
        return [f"{folder}/movies/mov_{i + 1:04d}.{self.movie_format}" for i in range(self.value("movies"))]


class SimulationStage(Stage):
    """Stage simulation: movies whose truth is known, in place of a download."""

    simulate_movies: SimulateMovies = SimulateMovies()
