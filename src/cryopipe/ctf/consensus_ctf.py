"""Step ``consensus_ctf``: keep the micrographs whose CTF can be trusted, by limits and by agreement of estimators.

In the first run (``defocus``) independent estimators, by default ctffind, gctf and xmipp, give the defocus. Two estimates agree
up to the frequency at which their phases differ by 90° (`agreement`). More than half of the branches must agree with one
another (`verdict`), and their result must keep the limits (`criteria`). So two estimates out-vote a third one in a wrong
ring. If there are only two and they disagree, it is not known which one is right, and the micrograph is rejected. The estimates
that agree are weighted by the errors that they state (`weights`). The differences within the batch correct these errors
(`calibration`). The row that goes on has the weighted mean with its error, the weights, the scatter and the agreement of all
pairs (`combine`). Branches are joined by item, and the result does not depend on the order of branches or rows. A micrograph that
an estimator could not process is in that branch's list of failures. Here it is listed once, with the reason of each branch.

The second run (``envelope``) starts from the first. It judges the micrographs that the first run accepted, and the result of
that run is one of the branches. The estimators of this run (by default xmipp, which fits the whole spectrum) are compared with
it. The row that goes on has the envelope of the estimator and the defocus of the first run, and names both
(``crpCtfDefocusFrom``, ``crpCtfEnvelopeFrom``). Limits on xmipp's criteria act in each run that compares xmipp. This run can find
a fit that diverged, an envelope that ends early, or a spectrum with ice or drift.

References
----------
Marabini et al. 2015, J. Struct. Biol. 190:348, doi:10.1016/j.jsb.2015.04.003; Sorzano et al. 2007, J. Struct. Biol. 160:249,
doi:10.1016/j.jsb.2007.08.013; xmipp3 CTF consensus; Lyons et al. 1988, Nucl. Instrum. Methods A 270:110,
doi:10.1016/0168-9002(88)90018-6. Known limits: An estimator that starts from the result of another one agrees with it too easily
(``estimate_ctf_xmipp.previous_from``). Estimators that use the same spectrum share the errors of that spectrum, so their scatter
is a lower bound of the error. An offset that all estimators share cannot be seen. The weights are calibrated by the batch, so a
batch of one or two micrographs has the weights of the simulation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.context import Context
from cryopipe.ctf.consensus.run import run_pass


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: ConsensusCtf, context: Context) -> None:
    """Judge a batch. Inputs are ``micrographs``, and for each branch one of ``branches`` and one of ``failures``."""
    run_pass(inputs, outputs, params, context, prefix=params.prefix)
