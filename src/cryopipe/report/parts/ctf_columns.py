"""Columns of the CTF tables: what is known of them by name, and what other numbers of a table are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cryopipe.report.drawing.tables import Column

#: What goes on to the next stage.
RESULT = (
    Column("rlnDefocusU", "U", "Å", 0, says="Larger defocus."),
    Column("rlnDefocusV", "V", "Å", 0, says="Smaller defocus."),
    Column("rlnDefocusAngle", "angle", "°", 1, says="Direction of the larger defocus, from x towards y."),
    Column("rlnCtfAstigmatism", "astigmatism", "Å", 0, "high", "U - V."),
    Column("rlnPhaseShift", "phase shift", "°", 1, says="Of a phase plate."),
    Column("rlnCtfMaxResolution", "fit resolution", "Å", 2, "high", "Resolution to which the rings are fitted."),
    Column("rlnCtfFigureOfMerit", "figure of merit", "", 3, "low", "Correlation of spectrum and model."),
    Column("crpCtfConsensusCrossing", "agreement", "Å", 2, "high", "Where the phases of the estimates part by 90°; worst pair."),
    Column("crpCtfAgreementCrossing", "agreement", "Å", 2, "high", "Where the phases of the estimates part by 90°."),
    Column("crpCtfConsensusDefocusDifference", "defocus difference", "Å", 0, "high", "Largest of |ΔU| and |ΔV|."),
    Column("crpCtfDefocusSpread", "defocus spread", "Å", 0, "high", "Scatter of the estimates."),
    Column("crpCtfConsensusDefocusUSd", "sd U", "Å", 0, says="Scatter of U among the estimates that agree."),
    Column("crpCtfConsensusDefocusVSd", "sd V", "Å", 0, says="Scatter of V among the estimates that agree."),
    Column("crpCtfDefocusMean", "mean defocus", "Å", 0, says="Mean of the estimates."),
    Column("crpCtfDefocusSd", "sd defocus", "Å", 0, says="Scatter of the mean defocus among the estimates."),
    Column("crpCtfEnvelopeConsensusCrossing", "agreement, 2nd pass", "Å", 2, "high", "With the estimator of the envelope."),
)  # fmt: skip
#: What estimators say of the quality of a spectrum and of its fit.
QUALITY = (
    Column("crpCtfFirstZero", "first zero", "Å", 1, "low", "Resolution of the first zero."),
    Column("crpCtfFirstZeroRatio", "zero ratio", "", 3, says="Ratio of the first zeros over the azimuths; 1: round."),
    Column("crpCtfEnvelopeResolution", "envelope", "Å", 1, "high", "Where the envelope falls to a tenth."),
    Column("crpCtfDamping", "damping", "", 3, says="Of the envelope at the end of the fit."),
    Column("crpCtfCorr13", "corr. 1-3", "", 3, "low", "Correlation of data and model between zeros 1 and 3."),
    Column("crpCtfFittingScore", "fitting score", "", 3, says="Mean distance of data and model."),
    Column("crpCtfMargin", "margin", "", 2, "low", "Contrast between first extremum and first zero."),
    Column("crpCtfFirstMinFirstZeroRatio", "min/zero scatter", "", 2, "high", "At the first extremum to at the first zero."),
    Column("crpCtfAstigmaticValidity", "round until", "Å", 2, "high", "From here on a round CTF would be wrong."),
    Column("crpCtfPsdCorr90", "corr. 90°", "", 3, "low", "Correlation of the spectrum with itself turned by 90°."),
    Column("crpCtfPsdRadialIntegral", "radial integral", "", 3, says="Of the enhanced spectrum."),
    Column("crpCtfPsdVariance", "PSD variance", "", 3, says="Of the enhanced spectrum."),
    Column("crpCtfPsdPca1", "PCA 1", "", 3, says="Variance on the first principal component of the windows."),
    Column("crpCtfPsdPcaRunsTest", "PCA runs", "", 2, says="Runs test of that component."),
    Column("crpCtfHistogramNormality", "normality", "", 3, says="Of the grey values."),
    Column("crpCtfIceness", "iceness", "", 3, "high", "Power at 4.0-3.6 Å to that at 4.4-4.0 Å."),
    Column("crpIciness", "ice ring", "", 3, "high", "(Amplitude at 3.9-3.5 Å to that at 30-6 Å)²."),
    Column("crpCtfEnvelopeBFactor", "B factor", "Å²", 0, "high", "Of the envelope."),
    Column("crpCtfAliasingResolution", "aliasing", "Å", 2, "high", "From here on rings are closer than the box resolves."),
    Column("rlnCtfValidationScore", "validation", "", 2, "low", "Self-consistency of the rings, 0 to 1 (gctf)."),
    Column("crpCtfTilt", "tilt", "°", 1, "high", "Of the specimen (ctffind)."),
    Column("crpCtfTiltAxis", "tilt axis", "°", 0, says="Direction of the axis, from x towards y."),
)  # fmt: skip
_OF_EACH = {
    "DefocusU": ("U", "Å", 0, ""),
    "DefocusV": ("V", "Å", 0, ""),
    "DefocusAngle": ("angle", "°", 1, ""),
    "MaxResolution": ("fit resolution", "Å", 2, "high"),
    "FigureOfMerit": ("figure of merit", "", 3, "low"),
}
#: ``{what the consensus calls it: column of an estimator's table}``.
SOURCES = {
    "DefocusU": "rlnDefocusU",
    "DefocusV": "rlnDefocusV",
    "DefocusAngle": "rlnDefocusAngle",
    "MaxResolution": "rlnCtfMaxResolution",
    "FigureOfMerit": "rlnCtfFigureOfMerit",
}
_PAIR = "crpCtfAgreement"
#: Numbers of a fit that nobody ranks micrographs by; they stand in the STAR tables.
_LEFT_OUT = re.compile(r"Consensus|Downsampling|Estimates|Agreement(?=Crossing)")


def each_estimator(names: Mapping[str, Any]) -> list[Column]:
    """Return the columns of what each estimator said."""
    return [
        Column(f"crpCtf{name.title()}{what}", f"{name} {label}", unit, decimals, worst)  # type: ignore[arg-type]
        for name in names
        for what, (label, unit, decimals, worst) in _OF_EACH.items()
    ]


def other_columns(frame: pd.DataFrame) -> list[Column]:
    """Return columns for the CTF numbers of ``frame`` that this page does not know by name: none is kept from it."""
    known = {c.key for c in (*RESULT, *QUALITY)}
    found = []
    for key in map(str, frame.columns):
        own = any(key.endswith(what) for what in (*SOURCES, "Image"))
        if not key.startswith("crpCtf") or key in known or own or _LEFT_OUT.search(key):
            continue
        if pd.to_numeric(frame[key], errors="coerce").notna().any():
            words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key.removeprefix("crpCtf")).lower()
            if key.startswith(_PAIR):
                found.append(Column(key, words, "Å", 2, "high", "Where their phases part by 90°."))
            else:
                found.append(Column(key, words, "", 3, says=f"Column {key}."))
    return found


def is_pair(column: Column) -> bool:
    """Return whether a column states the agreement of two estimators."""
    return column.key.startswith(_PAIR)
