"""Columns of the CTF tables: those with a label of their own, and labels for all others."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from cryopipe.io.own_columns import own_column
from cryopipe.report.drawing.tables import Column, Worst

#: Columns of the result that goes on to the next stage.
RESULT = (
    Column("rlnDefocusU", "U", "Å", 0, meaning="Larger defocus."),
    Column("rlnDefocusV", "V", "Å", 0, meaning="Smaller defocus."),
    Column("rlnDefocusAngle", "angle", "°", 1, meaning="Direction of the larger defocus, from x towards y."),
    Column.own("crpCtfDefocusMeanError", "± defocus", 1, "high"),
    Column("rlnCtfAstigmatism", "astigmatism", "Å", 0, "high", "U - V."),
    Column.own("crpCtfAstigmatismError", "± astigmatism", 1),
    Column("rlnPhaseShift", "phase shift", "°", 1, meaning="Phase shift of a phase plate."),
    Column("rlnCtfMaxResolution", "fit resolution", "Å", 2, "high", "Resolution up to which the model fits the rings."),
    Column("rlnCtfFigureOfMerit", "figure of merit", "", 3, "low", "Correlation of spectrum and model."),
    Column.own("crpCtfConsensusCrossing", "agreement", 2, "high"),
    Column.own("crpCtfConsensusDefocusDifference", "defocus difference", 0, "high"),
    Column.own("crpCtfConsensusDefocusUSd", "sd U", 0),
    Column.own("crpCtfConsensusDefocusVSd", "sd V", 0),
    Column.own("crpCtfEnvelopeConsensusCrossing", "agreement, 2nd pass", 2, "high"),
)
#: Columns about the quality of a spectrum and of its fit.
QUALITY = (
    Column.own("crpCtfFirstZero", "first zero", 1, "low"),
    Column.own("crpCtfFirstZeroRatio", "zero ratio", 3),
    Column.own("crpCtfEnvelopeResolution", "envelope", 1, "high"),
    Column.own("crpCtfDamping", "damping", 3),
    Column.own("crpCtfCorr13", "corr. 1-3", 3, "low"),
    Column.own("crpCtfFittingScore", "fitting score", 3),
    Column.own("crpCtfMargin", "margin", 2, "low"),
    Column.own("crpCtfFirstMinFirstZeroRatio", "min/zero scatter", 2, "high"),
    Column.own("crpCtfAstigmaticValidity", "round until", 2, "high"),
    Column.own("crpCtfPsdCorr90", "corr. 90°", 3, "low"),
    Column.own("crpCtfPsdRadialIntegral", "radial integral", 3),
    Column.own("crpCtfPsdVariance", "PSD variance", 3),
    Column.own("crpCtfPsdPca1", "PCA 1", 3),
    Column.own("crpCtfPsdPcaRunsTest", "PCA runs", 2),
    Column.own("crpCtfHistogramNormality", "normality", 3),
    Column.own("crpCtfIceness", "iceness", 3, "high"),
    Column.own("crpIciness", "ice ring", 3, "high"),
    Column.own("crpCtfEnvelopeBFactor", "B factor", 0, "high"),
    Column.own("crpCtfAliasingResolution", "aliasing", 2, "high"),
    Column("rlnCtfValidationScore", "validation", "", 2, "low", "Self-consistency of the rings, from 0 to 1."),
    Column.own("crpCtfTilt", "tilt", 1, "high"),
    Column.own("crpCtfTiltAxis", "tilt axis", 0),
)
_OF_EACH: dict[str, tuple[str, int, Worst]] = {
    "DefocusU": ("U", 0, ""),
    "DefocusV": ("V", 0, ""),
    "DefocusAngle": ("angle", 1, ""),
    "DefocusMeanError": ("± defocus", 1, ""),
    "Weight": ("weight", 2, ""),
    "MaxResolution": ("fit resolution", 2, "high"),
    "FigureOfMerit": ("figure of merit", 3, "low"),
}
#: ``{name in the consensus: column in the table of an estimator}``.
SOURCES = {
    "DefocusU": "rlnDefocusU",
    "DefocusV": "rlnDefocusV",
    "DefocusAngle": "rlnDefocusAngle",
    "DefocusMeanError": "crpCtfDefocusMeanError",
    "AstigmatismError": "crpCtfAstigmatismError",
    "MaxResolution": "rlnCtfMaxResolution",
    "FigureOfMerit": "rlnCtfFigureOfMerit",
}
_PAIR = "crpCtfAgreement"
#: Numbers of a fit that are not used to rank micrographs. They are in the STAR tables only.
_LEFT_OUT = re.compile(r"Consensus|Downsampling|Estimates")


def each_estimator(names: Iterable[str]) -> list[Column]:
    """Return the columns with the results of each estimator."""
    return [
        Column.own(f"crpCtf{name.title()}{what}", f"{name} {label}", decimals, worst)
        for name in names
        for what, (label, decimals, worst) in _OF_EACH.items()
    ]


def other_columns(frame: pd.DataFrame) -> list[Column]:
    """Return columns for those CTF numbers of ``frame`` that have no label here, so that the page shows them, too."""
    known = {c.key for c in (*RESULT, *QUALITY)}
    found = []
    for key in map(str, frame.columns):
        of_one = any(key.endswith(what) for what in (*SOURCES, "Image", "Weight", "UError", "VError", "AngleError"))
        if not key.startswith("crpCtf") or key in known or of_one or _LEFT_OUT.search(key):
            continue
        if pd.to_numeric(frame[key], errors="coerce").notna().any():
            words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key.removeprefix("crpCtf")).lower()
            if own_column(key) is None:
                found.append(Column(key, words, "", 3, meaning=f"Column {key}."))
            else:
                found.append(Column.own(key, words, *((2, "high") if key.startswith(_PAIR) else (3, ""))))
    return found


def is_pair(column: Column) -> bool:
    """Return whether a column states the agreement of two estimators."""
    return column.key.startswith(_PAIR)
