"""Step ``consensus_ctf_envelope``: the envelope and the quality criteria of one estimator with the defocus agreed before.

Second pass: what enters is what `consensus_ctf` accepted. The estimators of this pass (by default xmipp, which fits the
whole spectrum) are compared with the outcome of the first; the row that goes on has the envelope of the one and the
defocus of the other, and names both (``crpCtfDefocusFrom``, ``crpCtfEnvelopeFrom``). Limits on xmipp's criteria are put
here, because its columns are here.

xmipp started from ctffind's CTF is NO independent test of the defocus: it refines that very answer, so its agreement
with a consensus that holds ctffind says that the refinement stayed, not that the defocus is right. What this pass can
find is a fit that ran away, an envelope that ends early, a spectrum with ice or drift.

References
----------
Sorzano et al. 2007, J. Struct. Biol. 160:249, doi:10.1016/j.jsb.2007.08.013; xmipp3 CTF consensus.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryopipe.config.ctf import ConsensusCtfEnvelope
from cryopipe.context import Context
from cryopipe.ctf.consensus.run import run_pass


def main(inputs: dict[str, Any], outputs: dict[str, Path], params: ConsensusCtfEnvelope, context: Context) -> None:
    """Judge a batch; inputs ``micrographs`` (the first pass's), ``branches`` and ``failures``, the first pass last."""
    run_pass(inputs, outputs, params, context, prefix="crpCtfEnvelopeConsensus")
