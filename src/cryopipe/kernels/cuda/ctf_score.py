"""Launch of ``ctf_score.cu``; the caller has checked shapes and types."""

from __future__ import annotations

from typing import Any

import numpy as np

from cryopipe.kernels.cuda._source import THREADS, function


def ctf_score(
    amplitude: Any, weight: Any, base: Any, slope: Any, cos2: Any, sin2: Any, candidates: Any, norm: Any, out: Any
) -> None:
    """Fill ``out`` [b, m]; grid (candidate, spectrum).

    Parameters
    ----------
    amplitude, weight, base, slope, cos2, sin2, candidates, norm : CuPy array
        As in :func:`cryopipe.kernels.ctf_score.ctf_score`, prepared there.
    out : CuPy array [b, m]
        Receives the scores.
    """
    function("ctf_score", "ctf_score")(
        (out.shape[1], out.shape[0]), (THREADS,),
        (amplitude, weight, base, slope, cos2, sin2, np.int32(slope.size), candidates, norm, out),
    )  # fmt: skip
