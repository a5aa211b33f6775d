"""Step ``consensus_ctf``: keep the micrographs whose CTF can be trusted, by limits and by agreement of estimators.

The first run (``defocus``): estimators that know nothing of one another, by default ctffind and gctf, give the defocus. Two
estimates agree up to the frequency where their phases part by 90° (`agreement`); more than half of the branches have to agree
with one another (`verdict`), what they agree on has to keep the limits (`criteria`), and the row that goes on carries
their mean, their scatter and the agreement of all pairs (`combine`). Branches are joined by item, never by order, and
the decision depends on neither order. A micrograph that an estimator could not work on is in that branch's list of
failures; here it is listed once, with the reason of each branch.

The second run (``envelope``) starts from the first: what enters is what that accepted, and its outcome is one of the branches.
The estimators of this run (by default xmipp, which fits the whole spectrum) are compared with it; the row that goes on has
the envelope of the one and the defocus of the other, and names both (``crpCtfDefocusFrom``, ``crpCtfEnvelopeFrom``). Limits on
xmipp's criteria take effect here, because its columns are here. What this run can find is a fit that ran away, an envelope that
ends early, a spectrum with ice or drift.

References
----------
Marabini et al. 2015, J. Struct. Biol. 190:348, doi:10.1016/j.jsb.2015.04.003; Sorzano et al. 2007, J. Struct. Biol. 160:249,
doi:10.1016/j.jsb.2007.08.013; xmipp3 CTF consensus. Known limits: an estimator that started from another one's answer agrees
with it too easily: xmipp started from ctffind's CTF refines that very answer, so its agreement with a consensus that holds
ctffind shows that the refinement stayed, not that the defocus is right. Estimators of one spectrum share the errors of
the spectrum, so their scatter is a lower bound of the error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.context import Context
from cryopipe.ctf.consensus.run import run_pass


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: ConsensusCtf, context: Context) -> None:
    """Judge a batch; inputs ``micrographs``, ``branches`` and ``failures`` (one of each for each branch)."""
    run_pass(inputs, outputs, params, context, prefix=params.prefix)
