"""Parameters of the report stage."""

from __future__ import annotations

from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import Cost, Declaration
from cryopipe.config.declaration.runs import Stage


@Declaration(
    counts=None,
    batched=False,
    cost=Cost(
        memory_MB="320 + 30e-6 * box_px ** 3 + 10e-6 * micrograph_px",
        cpu_seconds="8 + 0.4e-6 * box_px ** 3 + min(images, step.max_pictures) * (0.1 + 0.02e-6 * micrograph_px)",
        disk_MB="1.2 + 0.15 * min(images, step.max_pictures)",
    ),
    references=(),
)
class Report(Params):
    """Step ``report``: one HTML file without a server or a download."""

    title: str | None = parameter("Title of the report.", derived="run.name")
    max_pictures: int = parameter(
        "Largest number of items with pictures in a section: the worst by each criterion and an even sample.",
        default=24,
        ge=0,
        le=500,
    )
    max_table_rows: int = parameter(
        "Largest number of rows in a table: the worst by each criterion and an even sample. report.json has all rows.",
        default=1000,
        ge=10,
        le=20000,
    )
    surface_size: int = parameter("Side of the rendered surface picture.", unit="px", default=500, ge=100, le=2000)
    particle_diameter_A: float | None = parameter("Particle diameter.", unit="Å", derived="dataset.particle_diameter_A")
    symmetry: str | None = parameter("Point group.", derived="dataset.symmetry")


class ReportStage(Stage):
    """Stage report: one self-contained HTML and the same numbers in JSON."""

    report: Report = Report()
