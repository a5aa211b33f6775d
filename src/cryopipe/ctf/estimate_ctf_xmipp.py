"""Step ``estimate_ctf_xmipp``: fit the whole power spectrum (rings, damping envelope, background), as Xmipp does.

This is a third opinion: it shares only the formula of the CTF with the other estimators. The model background + [K E CTF]²
is fitted to an averaged periodogram (`periodogram`) in one separable least-squares problem (`stages`, `fit`). The fit starts
from a previous CTF, or from the transform of the profile over k² (`initial_defocus`). The enhanced spectrum
(`enhanced_spectrum`) and the model give the quality criteria (`criteria`). The micrograph is downsampled to 1.75 Å, then to
2.75 Å, then not at all, until the criteria pass (`estimate`).

References
----------
Sorzano et al. 2007, J. Struct. Biol. 160:249, doi:10.1016/j.jsb.2007.08.013; Vargas et al. 2013, J. Struct. Biol.
181:136, doi:10.1016/j.jsb.2012.12.006. ``rlnCtfFigureOfMerit`` is the correlation of data and model in the band, both
minus the background. ``rlnCtfMaxResolution`` is the resolution up to which the fitted rings are 3 standard errors above the
noise, at best twice the pixel size of the downsampled micrograph. Known limits: There is one defocus per micrograph. The
parameters of the envelope are degenerate, so use its curve. If the fit starts from the CTF of another estimator, agreement
with that estimator proves little.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cryopipe.config.ctf import EstimateCtfXmipp
from cryopipe.context import Context
from cryopipe.ctf.micrograph import CTF_COLUMNS, CtfFiles, CtfMicrograph, ctf_columns, estimate_ctfs, write_picture
from cryopipe.ctf.sector_errors import defocus_error
from cryopipe.ctf.xmipp.envelope import envelope_b_factor_A2
from cryopipe.ctf.xmipp.estimate import CRITERIA, PreviousCtf, SpectrumEstimate, ctf_by_power_spectrum
from cryopipe.ctf.xmipp.files import diagnostic_pictures, model_parameters, radial_curves
from cryopipe.ctf.xmipp.fit import sector_influences
from cryopipe.errors import InputError
from cryopipe.io.star import StarTable, read_table
from cryopipe.io.star_blocks import write_blocks
from cryopipe.items import Row

_CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
#: The part of the two diagnostic pictures that shows the model.
_PICTURES = ("halfplane", "quadrant")
_COLUMNS = {
    **CTF_COLUMNS,
    **dict.fromkeys(CRITERIA, "float64"),
    "crpCtfEnvelopeBFactor": "float64",
    "crpCtfDownsampling": "float64",
    "crpCtfStartKind": "object",
    "crpCtfModelFile": "object",
}


def previous_ctfs(table: StarTable, previous: StarTable | None) -> dict[str, PreviousCtf]:
    """Return the CTF from which each item starts: that of table ``previous``, joined by item, or else of ``table`` itself.

    Raises
    ------
    InputError
        ``previous`` has no CTF columns, or names an item twice.
    """
    if previous is not None:
        missing = [name for name in (*_CTF, "crpItem") if name not in previous.rows]
        if missing and len(previous):
            raise InputError(f"the table of previous CTFs lacks {', '.join(missing)}. Estimate its CTFs first.")
        if len(previous) and previous.rows["crpItem"].duplicated().any():
            twice = previous.rows["crpItem"][previous.rows["crpItem"].duplicated()].iloc[0]
            raise InputError(
                f"micrograph {twice} occurs twice in the table of previous CTFs. Give each a name of its own."
            )
    source = table if previous is None else previous
    if any(name not in source.rows for name in _CTF):
        return {}
    return {
        str(row["crpItem"]): PreviousCtf(
            float(row["rlnDefocusU"]),
            float(row["rlnDefocusV"]),
            float(row["rlnDefocusAngle"]),
            float(row.get("rlnPhaseShift", 0.0)),
        )
        for row in source.rows.to_dict("records")
    }


def measure(micrograph: CtfMicrograph, params: EstimateCtfXmipp) -> Row:
    """Fit one micrograph, write its pictures and model file and return its new columns."""
    previous, microscope = micrograph.start, micrograph.microscope
    estimate = ctf_by_power_spectrum(micrograph.image, micrograph.pixel_size_A, microscope, params, previous)
    image = write_pictures(micrograph, estimate)
    model_file = micrograph.diagnostic("ctfmodel.star")
    d = estimate.fit.defocus
    pixel_size_A = estimate.periodogram.pixel_size_A
    write_blocks(
        model_file,
        {
            "ctf_model": model_parameters(pixel_size_A, d, microscope, estimate.envelope, estimate.background),
            "ctf_radial": radial_curves(estimate.cells, d, microscope, estimate.envelope, estimate.background),
        },
    )
    error = defocus_error(sector_influences(estimate.fit.solution, estimate.fit.cells), d)
    row = ctf_columns(d, image=image, merit=estimate.figure_of_merit, resolution_A=estimate.resolution_A, error=error)
    row["rlnPhaseShift"] %= 180.0
    if previous is not None and params.fix_previous:
        row |= _as_it_was(previous, keep_phase_shift=not params.find_phase_shift)
    band = (params.min_frequency / pixel_size_A, params.max_frequency / pixel_size_A)
    return row | {
        **{name: estimate.criteria[name] for name in CRITERIA},
        "crpCtfEnvelopeBFactor": envelope_b_factor_A2(estimate.envelope, d.mean_A, microscope, band),
        "crpCtfDownsampling": estimate.downsampling,
        "crpCtfStartKind": "search" if previous is None else "previous",
        "crpCtfModelFile": str(model_file),
    }


def _as_it_was(previous: PreviousCtf, *, keep_phase_shift: bool) -> Row:
    """Return the columns of a CTF that was kept, to the last digit, which the conversion to a tensor would change."""
    values = (previous.u_A, previous.v_A, previous.angle_deg)
    kept: Row = dict(zip(_CTF, values, strict=True)) | {"rlnCtfAstigmatism": previous.u_A - previous.v_A}
    return kept | ({"rlnPhaseShift": previous.phase_shift_deg} if keep_phase_shift else {})


def write_pictures(micrograph: CtfMicrograph, estimate: SpectrumEstimate) -> Path:
    """Write the half-plane and quadrant pictures as MRC and PNG. Return the path of the MRC file of the half plane."""
    defocus, pixel_size_A = estimate.fit.defocus, estimate.periodogram.pixel_size_A
    shown = diagnostic_pictures(estimate.enhanced, defocus, micrograph.microscope, estimate.resolution_A)
    for kind, picture in zip(_PICTURES, shown, strict=True):
        mrc = micrograph.diagnostic(f"ctfmodel_{kind}.mrc")
        write_picture(mrc, micrograph.picture(f"ctf_{kind}"), picture, pixel_size_A)
    return micrograph.diagnostic(f"ctfmodel_{_PICTURES[0]}.mrc")


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: EstimateCtfXmipp, context: Context) -> None:
    """Estimate the CTFs of a batch. Inputs are ``micrographs`` and, if there is one, ``previous``."""
    table = read_table(inputs["micrographs"], "micrographs")
    earlier = read_table(inputs["previous"], "micrographs") if "previous" in inputs else None
    starts = previous_ctfs(table, earlier) if params.use_previous else {}
    known = sum(str(item) in starts for item in table.rows["crpItem"]) if len(table) else 0
    context.log.info("%s: %d of %d have a previous CTF", context.step, known, len(table))
    pictures = [f"ctfmodel_{kind}.mrc" for kind in _PICTURES]
    files = CtfFiles(("ctfmodel.star", *pictures), tuple(f"ctf_{kind}" for kind in _PICTURES))
    estimate = partial(measure, params=params)
    estimate_ctfs(inputs, outputs, params, context, estimate=estimate, columns=_COLUMNS, files=files, starts=starts)
