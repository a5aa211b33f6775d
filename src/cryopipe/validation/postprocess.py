"""Step ``postprocess``: solvent mask, corrected FSC, B factor and the sharpened map of two half maps.

The four FSC curves, the resolution and the phase randomisation follow Chen et al. 2013
(doi:10.1016/j.ultramic.2013.06.004). The Guinier fit and the FSC weight follow Rosenthal & Henderson 2003
(doi:10.1016/j.jmb.2003.07.013). Limits and order of operations are those of ``relion_postprocess``. Known limits: There is
one mask and one B factor for the whole map. There is no Guinier fit if the map is worse than 10 Å or if the fit would have
fewer than five shells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cryopipe.config.validation import Postprocess
from cryopipe.context import Context
from cryopipe.errors import InputError
from cryopipe.imaging.filters import apply_shell_curve, apply_transfer, fsc_weight, low_pass_transfer
from cryopipe.imaging.fsc import MaskedFsc, Resolution, masked_fsc, resolution_at
from cryopipe.imaging.guinier import GuinierFit, fit_guinier
from cryopipe.imaging.masks import solvent_mask
from cryopipe.io.atomic import atomic_write
from cryopipe.io.fsc import masked_fsc_frame, write_emdb_fsc
from cryopipe.io.mrc import write_volume
from cryopipe.io.star_blocks import read_blocks, write_blocks
from cryopipe.validation.maps import read_maps

#: Two half maps with this FSC are as good as a full map with an FSC of 0.5 against the truth (Rosenthal & Henderson 2003).
HALF_MAP_THRESHOLD = 0.143


@dataclass(frozen=True)
class Postprocessed:
    """Result of :func:`postprocess`. Resolutions are in Å at FSC 0.143, by the name of the curve."""

    sharpened: NDArray[np.float32]
    mask: NDArray[np.float32]
    curves: MaskedFsc
    resolution_A: dict[str, Resolution]
    lowpass_A: float
    b_factor_A2: float
    guinier: GuinierFit | None


def postprocess(
    half1: NDArray[np.float32],
    half2: NDArray[np.float32],
    *,
    pixel_size_A: float,
    params: Postprocess,
    rng: np.random.Generator,
    mtf: NDArray[np.float64] | None = None,
    threads: int = 1,
) -> Postprocessed:
    """Measure the resolution of a map and sharpen it.

    Parameters
    ----------
    half1, half2 : array float32 [z, y, x]
        Unfiltered, unmasked half maps.
    pixel_size_A : float
        Å.
    params : Postprocess
        Options of the step.
    rng : Generator
        Source of the random phases.
    mtf : array [shells], optional
        Modulation transfer function of the detector per shell. The map is divided by it.
    threads : int
        Threads.
    """
    box = half1.shape[0]
    full = 0.5 * (half1 + half2)
    mask = solvent_mask(
        full,
        pixel_size_A,
        low_pass_A=params.mask_lowpass_A,
        threshold=params.mask_threshold,
        extend_A=params.mask_extend_A,
        edge_A=params.mask_edge_A,
        threads=threads,
    )
    curves = masked_fsc(half1, half2, mask, rng, threads=threads)
    resolution = {
        name: resolution_at(getattr(curves, name), HALF_MAP_THRESHOLD, box, pixel_size_A)
        for name in ("unmasked", "masked", "corrected")
    }
    lowpass = params.lowpass_A or max(float(resolution["corrected"]), 2.0 * pixel_size_A)
    if mtf is not None:
        full = apply_shell_curve(full, 1 / mtf, threads=threads)
    weight = fsc_weight(np.concatenate([[1.0], curves.corrected[1:]]))
    guinier = _guinier(full * mask, curves.corrected, pixel_size_A, lowpass, start_A=params.guinier_start_A)
    b_factor = params.b_factor_A2
    if b_factor is None:
        b_factor = -guinier.b_factor_A2 if guinier is not None else 0.0
    sharpened = sharpen(
        full, pixel_size_A=pixel_size_A, b_factor_A2=b_factor, weight=weight, lowpass_A=lowpass, threads=threads
    )
    return Postprocessed(sharpened, mask, curves, resolution, lowpass, b_factor, guinier)


def sharpen(
    volume: NDArray[np.float32],
    *,
    pixel_size_A: float,
    b_factor_A2: float,
    weight: NDArray[np.float64],
    lowpass_A: float,
    edge_shells: int = 2,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Multiply a map's Fourier coefficients by ``exp(-B / 4 d^2)``, one weight per shell, and a low-pass filter.

    Parameters
    ----------
    volume : array float32 [z, y, x]
        Map.
    pixel_size_A : float
        Å.
    b_factor_A2 : float
        B factor. A negative one sharpens.
    weight : array [shells]
        Factor of each shell. Frequencies beyond the last shell get zero.
    lowpass_A : float
        Resolution at the middle of a raised cosine over ``edge_shells`` shells.
    edge_shells : int
        Width of the filter's edge.
    threads : int
        Threads of the transforms.
    """
    side_A = volume.shape[0] * pixel_size_A
    padded = np.append(weight, 0.0)
    width = edge_shells / side_A

    def gain(k: NDArray[np.floating]) -> NDArray[np.floating]:
        shell = np.minimum(np.rint(k * side_A).astype(np.int64), len(weight))
        return padded[shell] * np.exp(-0.25 * b_factor_A2 * k**2) * low_pass_transfer(k, 1 / lowpass_A, width=width)

    result: NDArray[np.float32] = apply_transfer(volume, pixel_size_A, gain, threads=threads)
    return result


def _guinier(
    masked: NDArray[np.float32], fsc: NDArray[np.float64], pixel_size_A: float, end_A: float, *, start_A: float
) -> GuinierFit | None:
    """Fit the B factor. Return None if :func:`fit_guinier` finds that the map is too coarse for it."""
    try:
        return fit_guinier(masked, pixel_size_A, end_A, low_resolution_A=start_A, fsc=fsc)
    except InputError:
        return None


def read_mtf(path: str | Path, *, box: int, pixel_size_A: float, detector_pixel_A: float) -> NDArray[np.float64]:
    """Return the MTF of the detector per shell ``[box // 2 + 1]`` from RELION's STAR file. It is at least 0.01.

    Parameters
    ----------
    path : path
        STAR file with ``rlnResolutionInversePixel`` and ``rlnMtfValue``.
    box : int
        Side of the map in pixels.
    pixel_size_A, detector_pixel_A : float
        Å per pixel of the map and of the detector's physical pixels.

    Raises
    ------
    InputError
        The file has no such columns.
    """
    for block in read_blocks(path).values():
        if {"rlnResolutionInversePixel", "rlnMtfValue"} <= set(block.columns):
            frequency = np.arange(box // 2 + 1) / (box * pixel_size_A) * detector_pixel_A
            values = np.interp(frequency, block["rlnResolutionInversePixel"], block["rlnMtfValue"])
            return np.maximum(values, 0.01)
    raise InputError(
        f"{path}: the columns rlnResolutionInversePixel and rlnMtfValue are missing. Give RELION's MTF file, or mtf: null."
    )


def summary(result: Postprocessed, *, box: int, pixel_size_A: float, given: bool) -> dict[str, Any]:
    """Return the numbers of a result. Each resolution has the name of its curve.

    Parameters
    ----------
    result : Postprocessed
        Result of :func:`postprocess`.
    box : int
        Side of the map in pixels.
    pixel_size_A : float
        Å.
    given : bool
        Whether the user set the B-factor.
    """
    fit = result.guinier
    source = "given" if given else "guinier" if fit is not None else "none: map too coarse for a Guinier fit"
    return {
        "box_px": box,
        "pixel_size_A": pixel_size_A,
        "threshold": HALF_MAP_THRESHOLD,
        "headline_curve": "corrected",
        "resolution_A": {name: round(float(value), 3) for name, value in result.resolution_A.items()},
        "at_nyquist": {name: value.at_nyquist for name, value in result.resolution_A.items()},
        "randomised_from_A": round(box * pixel_size_A / result.curves.randomised_from, 3),
        "lowpass_A": round(result.lowpass_A, 3),
        "b_factor_A2": round(result.b_factor_A2, 2),
        "b_factor_source": source,
        "guinier_correlation": None if fit is None else round(fit.correlation, 4),
        "mask_volume_A3": round(float(result.mask.sum()) * pixel_size_A**3, 1),
    }


def _write_star(
    path: Path, result: Postprocessed, numbers: Mapping[str, Any], *, box: int, pixel_size_A: float
) -> None:
    curves = result.curves
    frame = masked_fsc_frame(
        curves.corrected, curves.unmasked, curves.masked, curves.randomised, box=box, pixel_size_A=pixel_size_A
    )
    general: dict[str, object] = {
        "rlnFinalResolution": numbers["resolution_A"]["corrected"],
        "rlnBfactorUsedForSharpening": result.b_factor_A2,
    }
    blocks: dict[str, Any] = {"general": general, "fsc": frame}
    if result.guinier is not None:
        fit = result.guinier
        general |= {
            "rlnFittedSlopeGuinierPlot": fit.slope,
            "rlnFittedInterceptGuinierPlot": fit.intercept,
            "rlnCorrelationFitGuinierPlot": fit.correlation,
        }
        blocks["guinier"] = pd.DataFrame(
            {"rlnResolutionSquared": fit.inverse_d2, "rlnLogAmplitudesWeighted": fit.log_amplitude}
        )
    write_blocks(path, blocks)


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: Postprocess, context: Context) -> None:
    """Read two half maps. Write the sharpened map, the masked map, the mask, the curves and the numbers.

    Parameters
    ----------
    inputs : dict
        ``half1``, ``half2``: unfiltered half maps.
    outputs : dict of Path
        ``map``, ``masked``, ``mask``, ``fsc`` (STAR), ``fsc_xml`` (EMDB), ``summary`` (JSON).
    params : Postprocess
        Options of the step.
    context : Context
        Seed of the random phases, threads and log.
    """
    (half1, half2), pixel_size_A = read_maps(inputs["half1"], inputs["half2"])
    box = half1.shape[0]
    mtf = None
    if params.mtf is not None:
        detector = params.mtf_pixel_size_A or pixel_size_A
        mtf = read_mtf(params.mtf, box=box, pixel_size_A=pixel_size_A, detector_pixel_A=detector)
    result = postprocess(
        half1,
        half2,
        pixel_size_A=pixel_size_A,
        params=params,
        rng=context.rng("phases"),
        mtf=mtf,
        threads=context.threads,
    )
    numbers = summary(result, box=box, pixel_size_A=pixel_size_A, given=params.b_factor_A2 is not None)
    said = ", ".join(f"{kind} {value} Å" for kind, value in numbers["resolution_A"].items())
    context.log.info("resolution at FSC 0.143: %s; B factor %.1f Å²", said, result.b_factor_A2)
    write_volume(outputs["map"], result.sharpened, pixel_size_A)
    write_volume(outputs["masked"], result.sharpened * result.mask, pixel_size_A)
    write_volume(outputs["mask"], result.mask, pixel_size_A)
    write_emdb_fsc(
        outputs["fsc_xml"], result.curves.corrected, box=box, pixel_size_A=pixel_size_A, title="corrected half-map FSC"
    )
    _write_star(outputs["fsc"], result, numbers, box=box, pixel_size_A=pixel_size_A)
    atomic_write(outputs["summary"], json.dumps(numbers, indent=1) + "\n")
