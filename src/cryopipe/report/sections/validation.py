"""How good the map is: by its half maps, by the truth, and by an atomic model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryopipe.report.drawing import figures
from cryopipe.report.drawing.pictures import array_source
from cryopipe.report.drawing.surface import render_surface
from cryopipe.report.parts.maps import Curves, contour, flat, read_curves
from cryopipe.report.reads import Reads
from cryopipe.report.run_files import RunFiles, volume_of
from cryopipe.report.section import HeadlinePicture, Part, Section

HALVES = {
    "rlnFourierShellCorrelationUnmaskedMaps": "unmasked",
    "rlnFourierShellCorrelationMaskedMaps": "masked",
    "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": "phase-randomised, masked",
    "rlnFourierShellCorrelationCorrected": "corrected",
}
#: ``{port: {column: label}}``
REFERENCES = {
    "truth_fsc": {
        "crpFscRefinedMasked": "refined map against the truth",
        "crpFscTruePosesMasked": "map from true poses against the truth",
    },
    "model_fsc": {"rlnFourierShellCorrelation": "map against the model's density"},
}
HALF_MAPS = Reads("half_map_summary")
HALF_MAP_FSC = Reads("half_map_fsc")
SHARPENED = Reads("sharpened_map")
MASKED = Reads("masked_map")
TRUTH = Reads("truth_summary")
MODEL = Reads("model_summary")


def build(run: RunFiles) -> Part:
    """Return resolutions, curves and pictures of the map, and how it compares with the truth and with a model."""
    halves = run.json(HALF_MAPS.name)
    numbers = {
        "map": {"fsc0143_A": halves["resolution_A"][halves["headline_curve"]]} | halves,
        "truth": run.json(TRUTH.name).get("truth", {}),
        "model": run.json(MODEL.name).get("model", {}),
    }
    sharpened, pixel_size_A = volume_of(run.path(SHARPENED.name))
    level = contour(sharpened, pixel_size_A, run.params.particle_diameter_A or 0.0)
    page = {
        "sharpened": figures.slices(sharpened, pixel_size_A, "sharpened map"),
        "map_numbers": flat(numbers["map"]),
        "judge_numbers": flat(numbers["truth"], "truth.") + flat(numbers["model"], "model."),
    }
    return Part(
        numbers=numbers | {"surface_level": level},
        page={"validation": page},
        warnings=warnings(numbers["map"]),
        headline=[[surface(run, level)], curves(run)],
    )


def surface(run: RunFiles, level: float) -> HeadlinePicture:
    """Return the picture of the masked, sharpened map's surface at ``level``."""
    masked, _ = volume_of(run.path(MASKED.name))
    picture = render_surface(masked, threshold=level, size=run.params.surface_size)
    note = f"Surface of the sharpened map at level {level:.3g}, coloured by radius."
    return HeadlinePicture(array_source(picture), "Surface of the sharpened map", note)


def curves(run: RunFiles) -> list[HeadlinePicture]:
    """Return the plots of the FSC between the half maps and, if there is one, against the reference."""
    plot = figures.fsc_plot(read_curves(run.path(HALF_MAP_FSC.name), HALVES), threshold=0.143)
    note = "FSC between the half maps; the resolution is where the corrected curve first falls below 0.143."
    found = [HeadlinePicture(plot, "FSC between half maps", note)]
    reference: Curves = {}
    for name, labels in REFERENCES.items():
        if name in run:
            reference |= read_curves(run.path(name), labels)
    if reference:
        note = "FSC against the reference; the resolution is where the curve first falls below 0.5."
        found.append(HeadlinePicture(figures.fsc_plot(reference, threshold=0.5), "FSC against the reference", note))
    return found


def warnings(numbers: Mapping[str, Any]) -> list[str]:
    """Return what a user should check in the numbers of the map."""
    reached = [name for name, value in numbers.get("at_nyquist", {}).items() if value]
    if not reached:
        return []
    return [
        f"The FSC ({', '.join(reached)}) never falls to its threshold: with smaller pixels the resolution may be better."
    ]


SECTION = Section(
    name="validation",
    anchors={"validation": "Validation"},
    reads=(
        HALF_MAPS,
        SHARPENED,
        MASKED,
        HALF_MAP_FSC,
        TRUTH,
        MODEL,
        *(Reads(port) for port in REFERENCES),
    ),
    needs=(HALF_MAPS.name,),
    build=build,
)
