"""The column contracts of STAR tables: the type of each column, which is not guessed from its values.

A micrograph named ``001`` must stay text, and a coordinate ``406`` must become a float64. Both go wrong if types are guessed
from the values. Names and meanings follow RELION's ``metadata_label.h``. Columns that RELION does not know start with ``crp``
and are declared in `cryopipe.io.own_columns`. The type of a column without a contract follows from its spelling: whole
numbers in their shortest form become int64, other numbers float64, and anything else (also ``007``) stays text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cryopipe.errors import InputError
from cryopipe.io.own_columns import ColumnType, own_column

_TEXT = """
rlnMicrographName rlnMicrographMovieName rlnMicrographNameNoDW rlnMicrographMetadata rlnMicrographCoordinates
rlnMicrographGainName rlnMicrographDefectFile rlnCtfImage rlnCtfPowerSpectrum rlnImageName
rlnImageOriginalName rlnOpticsGroupName rlnMtfFileName rlnParticleName rlnOriginalParticleName rlnGroupName
rlnReferenceImage rlnReconstructImageName rlnUnfilteredMapHalf1 rlnUnfilteredMapHalf2 rlnMaskName rlnSymmetryGroup
rlnOddZernike rlnEvenZernike  rlnTomoName rlnHelicalTrackName
"""
_INT = """
rlnOpticsGroup rlnImageSize rlnImageSizeX rlnImageSizeY rlnImageSizeZ rlnImageDimensionality rlnOriginalImageSize
rlnCurrentImageSize rlnClassNumber rlnGroupNumber rlnGroupNrParticles rlnRandomSubset rlnNrOfSignificantSamples
rlnNrOfFrames rlnBeamTiltClass rlnMicrographStartFrame rlnMicrographEndFrame rlnMicrographFrameNumber
rlnMotionModelVersion rlnMotionModelCoeffsIdx rlnEERGrouping rlnEERUpsampling rlnCtfDataArePhaseFlipped
rlnCtfDataAreCtfPremultiplied rlnSpectralIndex rlnNrClasses rlnNrGroups rlnReferenceDimensionality
rlnNumberOfIterations rlnIsFlip rlnEnabled rlnMicrographId rlnImageId rlnHelicalTubeID
"""
_FLOAT = """
rlnCoordinateX rlnCoordinateY rlnCoordinateZ rlnOriginX rlnOriginY rlnOriginXAngst rlnOriginYAngst
rlnOriginXPriorAngst rlnOriginYPriorAngst rlnAngleRot rlnAngleTilt rlnAnglePsi rlnAngleRotPrior rlnAngleTiltPrior
rlnAnglePsiPrior rlnPsiAnglePrior rlnDefocusU rlnDefocusV rlnDefocusAngle rlnPhaseShift rlnCtfBfactor
rlnCtfScalefactor rlnCtfAstigmatism rlnCtfFigureOfMerit rlnCtfMaxResolution rlnCtfValidationScore rlnCtfIceRingDensity
rlnVoltage rlnSphericalAberration rlnAmplitudeContrast rlnDetectorPixelSize rlnMagnification rlnPixelSize
rlnImagePixelSize rlnMicrographPixelSize rlnMicrographOriginalPixelSize rlnMicrographBinning rlnMicrographDoseRate
rlnMicrographPreExposure rlnMicrographShiftX rlnMicrographShiftY rlnMotionModelCoeff rlnAccumMotionTotal
rlnAccumMotionEarly rlnAccumMotionLate rlnBeamTiltX rlnBeamTiltY rlnMagMat00 rlnMagMat01 rlnMagMat10 rlnMagMat11
rlnAutopickFigureOfMerit rlnNormCorrection rlnLogLikeliContribution rlnMaxValueProbDistribution
rlnParticleSelectZScore rlnClassDistribution rlnAccuracyRotations rlnAccuracyTranslationsAngst rlnEstimatedResolution
rlnOverallFourierCompleteness rlnResolution rlnAngstromResolution rlnFourierShellCorrelation
rlnFourierShellCorrelationCorrected rlnFourierShellCorrelationMaskedMaps rlnFourierShellCorrelationUnmaskedMaps
rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps rlnFinalResolution rlnBfactorUsedForSharpening
rlnGroupScaleCorrection rlnSigma2Noise rlnReferenceSigma2 rlnReferenceTau2 rlnSsnrMap rlnGoldStandardFsc
rlnParticleBoxFractionSolventMask rlnLogAmplitudesOriginal rlnLogAmplitudesWeighted rlnLogAmplitudesSharpened
rlnResolutionSquared
"""
_TYPES: dict[str, ColumnType] = {
    **dict.fromkeys(_TEXT.split(), "text"),
    **dict.fromkeys(_INT.split(), "int"),
    **dict.fromkeys(_FLOAT.split(), "float"),
}
#: Columns with these endings are text, so that new name and reason columns need no entry above.
_TEXT_ENDINGS = ("Name", "NameDW", "File", "Item", "Kind", "Reason", "Sha256")

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\Z|[-+]?(nan|inf)\Z", re.IGNORECASE)
#: 007 and 1_2 are names, although Python reads them as numbers.
_FLOAT_SPELLING = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\Z|[-+]?(nan|inf)\Z")


def column_type(name: str) -> ColumnType | None:
    """Return the contract of column ``name`` (without the leading underscore), or None if there is none."""
    own = own_column(name)
    known = own.type if own is not None else _TYPES.get(name)
    if known is None and name.endswith(_TEXT_ENDINGS):
        return "text"
    return known


def cast_column(name: str, values: Sequence[str], source: str) -> np.ndarray:
    """Convert the words of a column to an array [n] of the type of its contract (int64, float64 or object of str).

    Raises
    ------
    InputError
        A word does not fit the type of the column. The message names file, column, row and word.
    """
    kind = column_type(name) or _spelled_type(values)
    if kind == "text":
        return np.array(values, dtype=object)
    try:
        numbers = np.array(values, dtype=np.float64)
    except ValueError:
        row, word = next((i, v) for i, v in enumerate(values) if not _NUMBER.match(v))
        raise InputError(f"{source}: column {name}, row {row + 1}: {word!r} is not a number. Mend the file.") from None
    if kind == "float":
        return numbers
    # RELION writes whole numbers without a point, but other programs write 1.000; only a real fraction is an error.
    bad = ~(np.abs(numbers) < 2.0**53) | (numbers != np.rint(numbers))
    if bad.any() and not all(_WHOLE.match(v) for v in values):
        row = int(np.argmax(bad))
        raise InputError(
            f"{source}: column {name}, row {row + 1}: {values[row]!r} is not a whole number. Mend the file."
        )
    return np.array(values, dtype=np.int64) if bad.any() else numbers.astype(np.int64)


def _spelled_type(values: Sequence[str]) -> ColumnType:
    if not values:
        return "float"
    if _WHOLE.match(values[0]) and all(map(_WHOLE.match, values)):
        return "int"
    return "float" if all(map(_FLOAT_SPELLING.match, values)) else "text"
