"""Files of a run that more than one section reads, under one name each."""

from __future__ import annotations

from cryopipe.report.section import Reads

#: Micrographs that enter the CTF stage: aligned and screened in this run, or imported.
ENTERING = Reads(name="entering", port="micrographs")
#: Micrographs that leave the CTF stage.
MICROGRAPHS = Reads(name="micrographs", port="micrographs_with_ctf")
#: Positions that go on to the extraction of particles.
COORDINATES = Reads(name="coordinates", port="coordinates")
#: Particles of the refined map.
REFINED_PARTICLES = Reads(name="refined_particles", port="refined_particles")
#: What each step did not pass on.
REJECTED = Reads(name="rejected", output="rejected")
#: What each CTF estimator found.
ESTIMATES = Reads(name="estimates", output="micrographs", fan_in="estimators")
