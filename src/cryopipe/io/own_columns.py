"""The columns that cryopipe adds to RELION's (``crp...``): type, unit, where each is written, and its meaning.

They are explained only here. `cryopipe.io.star_columns` takes their types from here. The glossary (``docs/columns.md``) and
the legends of the report take their words from here. A name may have one placeholder in angle brackets:
``crpCtf<Estimator>DefocusU`` is the column of each CTF estimator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

ColumnType = Literal["text", "int", "float"]


@dataclass(frozen=True)
class OwnColumn:
    """One of our own columns.

    Attributes
    ----------
    name : str
        Name in the STAR file, without the leading underscore. It may have a placeholder ``<...>``.
    type : {"text", "int", "float"}
        Type of its values.
    unit : str
        Å, px, °, e/Å² ... It is empty for pure numbers and text.
    table : str
        The step that writes the column first, and its table or file.
    meaning : str
        One sentence.
    """

    name: str
    type: ColumnType
    unit: str
    table: str
    meaning: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """Pattern for the whole name of such a column."""
        parts = re.split(r"<\w+>", self.name)
        return re.compile("[A-Z][A-Za-z0-9]*".join(map(re.escape, parts)) + r"\Z")


def _group(table: str, *rows: tuple[str, ColumnType, str, str]) -> tuple[OwnColumn, ...]:
    return tuple(OwnColumn(name, kind, unit, table, meaning) for name, kind, unit, meaning in rows)


def _consensus(prefix: str, words: str) -> tuple[OwnColumn, ...]:
    """Return the columns of a CTF consensus. ``words`` names its estimates."""
    return _group(
        "consensus_ctf, micrographs",
        (f"{prefix}Estimates", "int", "", f"Number of {words}."),
        (f"{prefix}Agreeing", "text", "", f"Names of the {words} that agree, joined by +."),
        (f"{prefix}OutVoted", "text", "", f"Names of the {words} that contradict the others, joined by +, or none."),
        (f"{prefix}Crossing", "float", "Å", f"Resolution at which phases of the {words} differ by 90°; worst pair."),
        (f"{prefix}Area", "float", "Å", f"Radius of the disc in which phases of the {words} differ by less; worst pair."),
        (f"{prefix}Legacy", "float", "Å", f"Agreement of the {words} as xmipp measures it; worst pair."),
        (f"{prefix}DefocusDifference", "float", "Å", f"Largest of |ΔU| and |ΔV| among the {words} that agree."),
        (f"{prefix}AngleDifference", "float", "°", f"Largest difference of the astigmatism angle among the {words} that agree."),
        (f"{prefix}PhaseShiftDifference", "float", "°", f"Largest difference of the phase shift among the {words} that agree."),
        (f"{prefix}DefocusU", "float", "Å", f"Larger defocus of the mean of the {words} that agree."),
        (f"{prefix}DefocusUSd", "float", "Å", f"Standard deviation of U among the {words} that agree."),
        (f"{prefix}DefocusV", "float", "Å", f"Smaller defocus of the mean of the {words} that agree."),
        (f"{prefix}DefocusVSd", "float", "Å", f"Standard deviation of V among the {words} that agree."),
        (f"{prefix}DefocusAngle", "float", "°", f"Direction of the larger defocus of the mean of the {words} that agree."),
        (f"{prefix}DefocusMean", "float", "Å", f"Mean of (U + V) / 2 over the {words} that agree."),
        (f"{prefix}DefocusMeanSd", "float", "Å", f"Standard deviation of (U + V) / 2 among the {words} that agree."),
        (f"{prefix}AstigmatismX", "float", "Å", f"Mean of (U - V) / 2 · cos 2θ over the {words} that agree."),
        (f"{prefix}AstigmatismXSd", "float", "Å", f"Standard deviation of (U - V) / 2 · cos 2θ among the {words} that agree."),
        (f"{prefix}AstigmatismY", "float", "Å", f"Mean of (U - V) / 2 · sin 2θ over the {words} that agree."),
        (f"{prefix}AstigmatismYSd", "float", "Å", f"Standard deviation of (U - V) / 2 · sin 2θ among the {words} that agree."),
    )  # fmt: skip


def _hill(name: str, words: str) -> tuple[OwnColumn, ...]:
    """Return the parameters of one Gaussian ring of the background."""
    return _group(
        "estimate_ctf_xmipp, model file",
        (f"{name}K", "float", "", f"Height of {words}, in units of the power."),
        (f"{name}CentreU", "float", "1/Å", f"Frequency of {words} along its axis U."),
        (f"{name}CentreV", "float", "1/Å", f"Frequency of {words} along its axis V."),
        (f"{name}SharpnessU", "float", "Å²", f"Sharpness σ of {words}, exp(-σ (u - c)²), along its axis U."),
        (f"{name}SharpnessV", "float", "Å²", f"Sharpness σ of {words}, exp(-σ (u - c)²), along its axis V."),
        (f"{name}Angle", "float", "°", f"Direction of the axis U of {words}, from x towards y."),
    )


_MOVIES = (
    *_group(
        "every table of movies, micrographs, coordinates and particles",
        ("crpItem", "text", "", "Name of the movie or micrograph, by which the rows of different tables are joined."),
    ),
    *_group(
        "fetch_movies, movies",
        ("crpSource", "text", "", "Name of the file in the archive from which it was downloaded."),
        ("crpChecksum", "text", "", "Checksum of the file in the archive's list; none if it has none."),
        ("crpBytes", "int", "byte", "Size of the movie file."),
    ),
    *_group(
        "import_movies, movies",
        ("crpFrames", "int", "", "Number of frames of the movie."),
        ("crpMeanCounts", "float", "", "Mean of the decoded frames, per pixel and frame."),
        ("crpHeaderPixelSize", "float", "Å", "Pixel size in the header of the file; 0 if it has none."),
        ("crpTotalExposure", "float", "e/Å²", "Exposure of the specimen at the end of the last frame."),
        ("crpFirst64KiBSha256", "text", "", "SHA-256 of the first 64 KiB of the file."),
    ),
    *_group(
        "align_movies, micrographs",
        ("crpMicrographNameDW", "text", "", "File of the dose-weighted sum of the frames."),
        ("crpAlignmentResidual", "float", "Å", "Root mean square deviation of frame pairs from the global track, per axis."),
        ("crpAlignmentAgreeing", "float", "", "Share of frame pairs whose shift fits the global track."),
        ("crpAlignmentEvidence", "float", "", "Log-likelihood that the frames share a specimen, over that of aligned noise."),
        ("crpFramesLost", "int", "", "Number of frames that share nothing with the others."),
        ("crpLocalPatches", "int", "", "Number of patches of the local motion; 0 if none was fitted."),
        ("crpLocalResidual", "float", "Å", "Root mean square deviation of the patches from the local field, per axis."),
        ("crpNoLocalMotion", "text", "", "Reason why the movie has no local motion; none if it has."),
    ),
    *_group(
        "align_movies, motion file",
        ("crpSplineAxis", "int", "", "Axis of the local shift: 0 is x, 1 is y."),
        ("crpSplineT", "int", "", "Index of the control point along the frames."),
        ("crpSplineY", "int", "", "Index of the control point along y."),
        ("crpSplineX", "int", "", "Index of the control point along x."),
        ("crpSplineCoefficient", "float", "px", "Coefficient of the cubic B-spline of the local shifts, in unbinned pixels."),
    ),
    *_group(
        "screen_motion, micrographs",
        ("crpMotionStepMax", "float", "Å", "Largest step between neighbouring frames along x or y."),
        ("crpMotionStepEuclidean", "float", "Å", "Largest Euclidean step between neighbouring frames."),
        ("crpMotionRange", "float", "Å", "Larger extent of the track along x and y."),
        ("crpMotionDiameter", "float", "Å", "Largest distance between the positions of two frames."),
        ("crpMotionPath", "float", "Å", "Length of the track over all frames."),
        ("crpMotionBlur", "float", "Å", "Size of detail that loses half of its power by motion inside the frames; 0: below 1 Å."),
        ("crpMotionFlag", "text", "", "no_motion (all shifts are zero), spike (one frame jumps out and back) or none."),
    ),
)  # fmt: skip
_CTF = (
    *_group(
        "estimate_ctf_<name> and consensus_ctf, micrographs",
        ("crpCtfDefocusUError", "float", "Å", "Standard deviation of the larger defocus."),
        ("crpCtfDefocusVError", "float", "Å", "Standard deviation of the smaller defocus."),
        ("crpCtfDefocusAngleError", "float", "°", "Standard deviation of the direction of the larger defocus."),
        ("crpCtfDefocusMeanError", "float", "Å", "Standard deviation of (U + V) / 2."),
        ("crpCtfAstigmatismError", "float", "Å", "Standard deviation of each component of the astigmatism, (U - V) / 2 long."),
    ),
    *_group(
        "estimate_ctf_ctffind, micrographs",
        ("crpCtfAliasingResolution", "float", "Å", "Beyond this resolution rings are too dense for the box."),
        ("crpIciness", "float", "", "Square of the mean amplitude at 3.9-3.5 Å over that at 30-6 Å: crystalline ice."),
        ("crpCtfTilt", "float", "°", "Tilt of the specimen."),
        ("crpCtfTiltAxis", "float", "°", "Direction of the tilt axis, from x towards y."),
    ),
    *_group(
        "estimate_ctf_xmipp, micrographs",
        ("crpCtfFirstZero", "float", "Å", "Resolution of the first zero of the CTF, mean over the azimuths."),
        ("crpCtfFirstZeroRatio", "float", "", "Ratio of the extremes of the first zero over azimuths; 1 without astigmatism."),
        ("crpCtfEnvelopeResolution", "float", "Å", "Finest resolution at which the envelope exceeds a tenth."),
        ("crpCtfDamping", "float", "", "Value of the envelope at the end of the fit."),
        ("crpCtfCorr13", "float", "", "Correlation of data and model between the first and the third zero."),
        ("crpCtfFittingScore", "float", "", "Mean squared difference of data and model, in units of the noise."),
        ("crpCtfMargin", "float", "", "First minimum minus first zero of the CTF, in standard deviations along the zero."),
        ("crpCtfFirstMinFirstZeroRatio", "float", "", "Scatter along the first minimum over that along the first zero."),
        ("crpCtfAstigmaticValidity", "float", "Å", "Beyond this resolution a CTF without astigmatism would be wrong."),
        ("crpCtfPsdCorr90", "float", "", "Correlation of the enhanced spectrum with itself rotated by 90°."),
        ("crpCtfPsdRadialIntegral", "float", "", "Sum of the moduli of the enhanced spectrum's rings over the largest."),
        ("crpCtfPsdVariance", "float", "", "Scatter of the spectra of the windows."),
        ("crpCtfPsdPca1", "float", "", "Variance of the windows' logarithmic spectra along their first principal component."),
        ("crpCtfPsdPcaRunsTest", "float", "", "Runs test of its sign (normal deviate); negative if neighbours are similar."),
        ("crpCtfIceness", "float", "", "Mean power at 4.0-3.6 Å over that at 4.4-4.0 Å: crystalline ice."),
        ("crpCtfHistogramNormality", "float", "", "Kullback-Leibler divergence of the grey values from a Gaussian."),
        ("crpCtfEnvelopeBFactor", "float", "Å²", "B factor that describes the envelope."),
        ("crpCtfDownsampling", "float", "", "Factor by which the micrograph was downsampled for the fit."),
        ("crpCtfStartKind", "text", "", "What the fit started from: a search or a previous CTF."),
        ("crpCtfModelFile", "text", "", "STAR file with all parameters of the fitted spectrum and its radial curves."),
    ),
    *_group(
        "estimate_ctf_xmipp, model file",
        ("crpCtfK", "float", "", "Square root of the power at frequency zero if the CTF is 1."),
        ("crpCtfChromaticAberration", "float", "mm", "Chromatic aberration, from the envelope."),
        ("crpCtfEnergySpread", "float", "eV", "Energy spread, from the envelope."),
        ("crpCtfLensInstability", "float", "ppm", "Instability of the lens current, from the envelope."),
        ("crpCtfConvergence", "float", "mrad", "Half angle of the illumination."),
        ("crpCtfLongitudinalDrift", "float", "Å", "Drift along the beam."),
        ("crpCtfTransversalDrift", "float", "Å", "Drift across the beam."),
        ("crpCtfEnvelopeR0", "float", "", "Constant of the empirical factor of the envelope; always 1."),
        ("crpCtfEnvelopeR1", "float", "Å", "Linear term of the empirical factor of the envelope."),
        ("crpCtfEnvelopeR2", "float", "Å²", "Quadratic term of the empirical factor of the envelope."),
        ("crpCtfBackgroundBase", "float", "", "Constant of the background, in units of the power."),
        ("crpCtfBackgroundSqrtK", "float", "", "Height of the background's term exp(-q √u), in units of the power."),
        ("crpCtfBackgroundSqrtU", "float", "Å^½", "Slope q of that term along its axis U."),
        ("crpCtfBackgroundSqrtV", "float", "Å^½", "Slope q of that term along its axis V."),
        ("crpCtfBackgroundSqrtAngle", "float", "°", "Direction of the axis U of that term, from x towards y."),
        ("crpCtfBackgroundR1", "float", "Å", "Linear term of the background's polynomial."),
        ("crpCtfBackgroundR2", "float", "Å²", "Quadratic term of the background's polynomial."),
        ("crpCtfBackgroundR3", "float", "Å³", "Cubic term of the background's polynomial."),
        ("crpFrequency", "float", "1/Å", "Spatial frequency of the ring."),
        ("crpPsdData", "float", "", "Power of the spectrum, mean over the ring."),
        ("crpPsdBackground", "float", "", "Power of the fitted background at that frequency."),
        ("crpPsdEnvelope", "float", "", "Amplitude of the fitted envelope at that frequency."),
        ("crpPsdModel", "float", "", "Power of the fitted model at that frequency."),
    ),
    *_hill("crpCtfBackgroundGaussian1", "the background's first Gaussian ring"),
    *_hill("crpCtfBackgroundGaussian2", "the background's second Gaussian ring, which is subtracted"),
    *_consensus("crpCtfConsensus", "estimates"),
    *_consensus("crpCtfEnvelopeConsensus", "estimates of the pass that fits the envelope"),
    *_group(
        "consensus_ctf, micrographs",
        ("crpCtfDefocusFrom", "text", "", "Estimators that gave the defocus of the row, joined by +."),
        ("crpCtfEnvelopeFrom", "text", "", "Estimator that gave the envelope of the row; none if it has none."),
        ("crpCtfAgreement<Pair>", "float", "Å", "Resolution at which the phases of the two estimators differ by 90°."),
        ("crpCtf<Estimator>DefocusU", "float", "Å", "Larger defocus from that estimator."),
        ("crpCtf<Estimator>DefocusV", "float", "Å", "Smaller defocus from that estimator."),
        ("crpCtf<Estimator>DefocusAngle", "float", "°", "Direction of the larger defocus from that estimator, from x towards y."),
        ("crpCtf<Estimator>DefocusMeanError", "float", "Å", "Standard deviation of (U + V) / 2 that this estimator states."),
        ("crpCtf<Estimator>AstigmatismError", "float", "Å", "Standard deviation of an astigmatism component that it states."),
        ("crpCtf<Estimator>Weight", "float", "", "Weight of that estimator in the mean defocus of the row."),
        ("crpCtf<Estimator>MaxResolution", "float", "Å", "Resolution up to which that estimator finds rings."),
        ("crpCtf<Estimator>FigureOfMerit", "float", "", "Correlation of spectrum and model of that estimator."),
        ("crpCtf<Estimator>Image", "text", "", "Picture of spectrum and model of that estimator."),
    ),
)  # fmt: skip
_PARTICLES = (
    *_group(
        "classify_2d, classes and posteriors",
        ("crpParticles", "int", "", "Number of particles: of the class, or of the simulated movie."),
        ("crpParticleRow", "int", "", "Row of the particle in the table of particles, from 1."),
        ("crpWeight", "float", "", "Probability that the particle belongs to the class."),
    ),
    *_group(
        "select_classes_2d, class features",
        ("crpCoreRatio", "float", "", "Density of the centre of the average over that of its shell."),
        ("crpSignal", "float", "", "Mean inside the particle minus that around it, in standard deviations."),
        ("crpEdgeScore", "float", "", "Share of the average's positive power outside the particle: neighbours and doublets."),
        ("crpCircularity", "float", "", "Power of the shell's angular harmonics over that of its mean; 0 for a ring."),
        ("crpECA", "float", "", "Mean effective number of classes per particle; 1 if all are certain."),
        ("crpKept", "int", "", "1 if the class is kept, 0 if it is rejected."),
        ("crpDecidedBy", "text", "", "Who decided about the class: the criterion, or the user."),
        ("crpKeptParticles", "int", "", "Number of particles of the class that are kept."),
    ),
    *_group(
        "select_classes_2d, particles",
        ("crpReason", "text", "", "Why the particle or class was rejected; none if it was kept."),
        ("crpCoreDensity", "float", "", "Density of the particle's core over that of its shell."),
        ("crpCoreDensityError", "float", "", "Standard error of the core density."),
    ),
    *_group(
        "refine_homogeneous, particles",
        ("crpScale", "float", "", "Contrast of the particle relative to the map."),
        ("crpDefocusError", "float", "Å", "Standard error of the particle's mean defocus."),
    ),
)  # fmt: skip
_MAPS = (
    *_group(
        "refine_homogeneous, FSC file",
        ("crpResolutionUnmasked", "float", "Å", "Resolution at which the FSC of the unmasked half maps falls below 0.143."),
        ("crpResolutionMasked", "float", "Å", "Resolution at which the FSC of the masked half maps falls below 0.143."),
    ),
    *_group(
        "validate_model, FSC file",
        ("crpFourierShellCorrelationUnmasked", "float", "", "FSC of the unmasked map and the density of the atomic model."),
    ),
    *_group(
        "validate_truth, FSC file",
        ("crpFsc<Map>Masked", "float", "", "FSC of that map and the true map, both masked."),
        ("crpFsc<Map>Unmasked", "float", "", "FSC of that map and the true map, without a mask."),
    ),
)  # fmt: skip
_TRUTH = (
    *_group(
        "simulate_movies, truth of the particles",
        ("crpHeight", "float", "Å", "Height above the middle of the specimen; the defocus is smaller by this."),
        ("crpKind", "text", "", "Kind of the simulated particle (apo, iron) or movie (ok, drift, bad_ctf, carbon)."),
    ),
    *_group(
        "simulate_movies, truth of the movies",
        ("crpContaminants", "int", "", "Number of ice contaminants in the movie."),
        ("crpGainOrientation", "text", "", "Orientation in which the gain reference was written."),
        ("crpLocalCourse", "float", "", "Factor of the local field in the frame."),
        ("crpPowerU", "int", "", "Power of the relative place along x in this term of the local field."),
        ("crpPowerV", "int", "", "Power of the relative place along y in this term of the local field."),
        ("crpCoefficientX", "float", "px", "Coefficient of this term of the local field along x, as a shift to apply."),
        ("crpCoefficientY", "float", "px", "Coefficient of this term of the local field along y, as a shift to apply."),
    ),
)  # fmt: skip

#: All own columns, in the order of the data flow.
OWN_COLUMNS: tuple[OwnColumn, ...] = (*_MOVIES, *_CTF, *_PARTICLES, *_MAPS, *_TRUTH)
_NAMED = {column.name: column for column in OWN_COLUMNS if "<" not in column.name}
_PATTERNED = tuple((column.pattern, column) for column in OWN_COLUMNS if "<" in column.name)


@cache
def own_column(name: str) -> OwnColumn | None:
    """Return the declaration of the column ``name`` (without the leading underscore), or None."""
    return _NAMED.get(name) or next((column for pattern, column in _PATTERNED if pattern.match(name)), None)


def column_page() -> str:
    """Return the glossary of the documentation in Markdown, with one table per table or file that has such columns."""
    lines = [
        "# Columns",
        "",
        "The tables of cryopipe use RELION's column names (`rln...`) with RELION's meanings and units. The columns below are",
        "cryopipe's own. Generated from `src/cryopipe/io/own_columns.py` (`python -m cryopipe.config.generate --fix`).",
        "",
        "A word in angle brackets means one column for each CTF estimator, pair of estimators, or map.",
    ]
    for table in dict.fromkeys(column.table for column in OWN_COLUMNS):
        lines += ["", f"## {table}", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
        for column in OWN_COLUMNS:
            if column.table == table:
                meaning = column.meaning.replace("|", "\\|")
                lines.append(f"| `{column.name}` | {column.type} | {column.unit} | {meaning} |")
    return "\n".join(lines) + "\n"
