"""Step ``consensus_ctf``: keep the micrographs whose CTF can be trusted, by limits and by agreement of estimators.

First pass: estimators that know nothing of one another, by default ctffind and gctf, give the defocus. Two estimates
agree up to the frequency where their phases part by 90° (`agreement`); more than half of the branches have to agree
with one another (`verdict`), what they agree on has to keep the limits (`criteria`), and the row that goes on carries
their mean, their scatter and the agreement of all pairs (`combine`). Branches are joined by item, never by order, and
the decision depends on neither order. A micrograph that an estimator could not work on stands in that branch's list of
failures; here it is accounted for once, with what each branch says.

References
----------
Marabini et al. 2015, J. Struct. Biol. 190:348, doi:10.1016/j.jsb.2015.04.003; xmipp3 CTF consensus. Known limits: an
estimator that started from another one's answer agrees with it too easily (xmipp started from ctffind is no independent
test: it belongs to the second pass); estimators of one spectrum share what is wrong with the spectrum, so their scatter
is a lower bound of the error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryopipe.config.ctf import ConsensusCtf
from cryopipe.context import Context
from cryopipe.ctf.consensus.run import run_pass


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: ConsensusCtf, context: Context) -> None:
    """Judge a batch; inputs ``micrographs``, ``branches`` and ``failures`` (one of each an estimator)."""
    run_pass(inputs, outputs, params, context, prefix="crpCtfConsensus")
