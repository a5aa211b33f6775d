"""Step ``estimate_ctf_xmipp``: the whole power spectrum - rings, damping envelope, background - as Xmipp models it.

A third opinion, which shares with the other estimators the formula of the CTF alone: an averaged periodogram
(`periodogram`) is fitted as background + [K E CTF]² in one separable least-squares problem (`psd_stages`, `psd_fit`),
from a previous CTF or from the transform of the profile over k² (`fast_defocus`). The enhanced spectrum (`enhanced_psd`)
and the model give the quality criteria (`psd_criteria`). The micrograph is downsampled to 1.75 Å, 2.75 Å or not at all,
whichever passes the criteria first (`spectrum_estimate`).

References
----------
Sorzano et al. 2007, J. Struct. Biol. 160:249, doi:10.1016/j.jsb.2007.08.013; Vargas et al. 2013, J. Struct. Biol.
181:136, doi:10.1016/j.jsb.2012.12.006. ``rlnCtfFigureOfMerit`` is the correlation of data and model in the band, both
less the background; ``rlnCtfMaxResolution`` the resolution to which the fitted rings stand 3 standard errors above
noise, at best twice the pixel size of the downsampled micrograph. Known limits: one defocus per micrograph; the
envelope's parameters are degenerate, use its curve; started from another estimator's answer, agreement with that one
tells little.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.image import imsave
from threadpoolctl import threadpool_limits

from cryopipe.config.ctf import EstimateCtfXmipp
from cryopipe.context import Context
from cryopipe.ctf.defocus import Microscope
from cryopipe.ctf.xmipp.envelope import envelope_b_factor_A2
from cryopipe.ctf.xmipp.estimate import CRITERIA, PreviousCtf, SpectrumEstimate, estimate_ctf
from cryopipe.ctf.xmipp.files import diagnostic_pictures, model_parameters, radial_curves
from cryopipe.errors import InputError
from cryopipe.io.atomic import atomic_path
from cryopipe.io.mrc import read_image, write_image
from cryopipe.io.star import StarTable, read_table, write_rejections, write_table
from cryopipe.io.star_blocks import write_blocks
from cryopipe.items import Row, digest, process_items

_CTF = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
_COLUMNS = {
    "rlnCtfImage": "object",
    **dict.fromkeys((*_CTF, "rlnPhaseShift", "rlnCtfAstigmatism"), "float64"),
    **dict.fromkeys(("rlnCtfFigureOfMerit", "rlnCtfMaxResolution"), "float64"),
    **dict.fromkeys(CRITERIA, "float64"),
    "crpCtfEnvelopeBFactor": "float64",
    "crpCtfDownsampling": "float64",
    "crpCtfStartKind": "object",
    "crpCtfModelFile": "object",
}


def previous_ctfs(table: StarTable, previous: StarTable | None) -> dict[str, PreviousCtf]:
    """Return the CTF that each item starts from: of table ``previous``, joined by item, else of the table's own columns.

    Raises
    ------
    InputError
        ``previous`` has no CTF columns, or names an item twice.
    """
    if previous is not None:
        missing = [name for name in (*_CTF, "crpItem") if name not in previous.rows]
        if missing and len(previous):
            raise InputError(f"the table of previous CTFs has no {', '.join(missing)}. Estimate its CTFs first.")
        if len(previous) and previous.rows["crpItem"].duplicated().any():
            twice = previous.rows["crpItem"][previous.rows["crpItem"].duplicated()].iloc[0]
            raise InputError(f"micrograph {twice} stands twice in the table of previous CTFs. Names must be unique.")
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


def _process(
    item: str, record: Mapping[str, object], folder: Path, params: EstimateCtfXmipp, previous: PreviousCtf | None
) -> Row:
    """Fit one micrograph, write its pictures and model file and return its new columns."""
    path = Path(str(record["rlnMicrographName"]))
    image, header_A = read_image(path)
    pixel_size_A = float(str(record["rlnMicrographPixelSize"]))
    if header_A is not None and abs(header_A / pixel_size_A - 1.0) > 1e-3:
        raise InputError(
            f"{path}: the header says {header_A:g} Å per pixel, the table {pixel_size_A:g} Å. Correct "
            "dataset.pixel_size_A or the file."
        )
    names = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
    microscope = Microscope(*(float(str(record[name])) for name in names))
    estimate = estimate_ctf(image, pixel_size_A, microscope, params, previous)
    pictures = write_pictures(item, estimate, microscope, folder)
    model_file = folder / "diagnostics" / f"{item}_ctfmodel.star"
    d = estimate.fit.defocus
    write_blocks(
        model_file,
        {
            "ctf_model": model_parameters(
                estimate.periodogram.pixel_size_A, d, microscope, estimate.envelope, estimate.background
            ),
            "ctf_radial": radial_curves(estimate.cells, d, microscope, estimate.envelope, estimate.background),
        },
    )
    place = (d.u_A, d.v_A, d.angle_deg, float(np.degrees(d.phase_shift_rad)) % 180.0)
    if previous is not None and params.fix_previous:
        # to the last digit, which the tensor would not keep
        kept = (previous.u_A, previous.v_A, previous.angle_deg)
        place = (*kept, place[3] if params.find_phase_shift else previous.phase_shift_deg)
    band = tuple(f / estimate.periodogram.pixel_size_A for f in (params.min_frequency, params.max_frequency))
    values = (
        str(pictures[0]),
        *place,
        place[0] - place[1],
        estimate.figure_of_merit,
        estimate.resolution_A,
        *(estimate.criteria[name] for name in CRITERIA),
        envelope_b_factor_A2(estimate.envelope, d.mean_A, microscope, (band[0], band[1])),
        estimate.downsampling,
        "search" if previous is None else "previous",
        str(model_file),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def write_pictures(item: str, estimate: SpectrumEstimate, microscope: Microscope, folder: Path) -> tuple[Path, Path]:
    """Write the half-plane and quadrant pictures as MRC and PNG; return the paths of the MRC files."""
    shown = diagnostic_pictures(estimate.enhanced, estimate.fit.defocus, microscope, estimate.resolution_A)
    paths = []
    for kind, picture in zip(("halfplane", "quadrant"), shown, strict=True):
        paths.append(folder / "diagnostics" / f"{item}_ctfmodel_{kind}.mrc")
        write_image(paths[-1], picture, estimate.periodogram.pixel_size_A)
        with atomic_path(folder / "pictures" / f"{item}_ctf_{kind}.png") as temporary:
            imsave(temporary, picture, cmap="gray", vmin=0.0, vmax=1.0)
    return paths[0], paths[1]


def main(inputs: dict[str, Path], outputs: dict[str, Path], params: EstimateCtfXmipp, context: Context) -> None:
    """Estimate the CTFs of a batch; inputs ``micrographs`` and, if there is one, ``previous``.

    Micrographs are worked on side by side, one thread each.
    """
    table = read_table(inputs["micrographs"], "micrographs")
    earlier = read_table(inputs["previous"], "micrographs") if "previous" in inputs else None
    starts = previous_ctfs(table, earlier) if params.use_previous else {}
    folder = outputs["micrographs"].parent
    records = {str(r["crpItem"]): r for r in table.with_optics().to_dict("records")}
    context.log.info(
        "%s: %d of %d have a previous CTF", context.step, len(records.keys() & starts.keys()), len(records)
    )
    # One BLAS thread each: the products are small, and the result must not depend on the number of threads.
    with threadpool_limits(1, user_api="blas"):
        results = process_items(
            records,
            lambda item, record: _process(item, record, folder, params, starts.get(item)) | {"crpItem": item},
            context,
            fingerprint=digest(params.model_dump(), {i: vars(starts[i]) for i in records if i in starts}),
            files=lambda item, row: [Path(row["rlnCtfImage"]), Path(row["crpCtfModelFile"])],
            workers=context.threads,
        )
    kept = {row["crpItem"] for row in results.rows}
    old = table.rows[np.array([item in kept for item in records], dtype=bool)].reset_index(drop=True)
    new = pd.DataFrame(results.rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    rows = pd.concat([old.drop(columns=[c for c in _COLUMNS if c in old]), new], axis=1)
    write_table(outputs["micrographs"], table.with_rows(rows))
    write_rejections(outputs["rejected"], results.rejections)
