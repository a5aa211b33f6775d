"""The sections of the report, in the order of the page: one module and one template each."""

from __future__ import annotations

from cryopipe.report.section import Section
from cryopipe.report.sections import (
    classes2d,
    costs,
    ctf,
    initial_volume,
    lost,
    methods,
    movies,
    picking,
    refinement,
    validation,
)

SECTIONS: tuple[Section, ...] = tuple(
    module.SECTION
    for module in (
        lost,
        movies,
        ctf,
        picking,
        classes2d,
        initial_volume,
        refinement,
        validation,
        costs,
        methods,
    )
)
