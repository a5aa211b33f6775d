"""What the sections of the report read: files that the steps of a run hand over or write, by the names of their ports."""

from __future__ import annotations

from dataclasses import dataclass

from cryopipe.steps import step_of
from cryopipe.workflow.ports import Ports

#: Lists of the items that a step did not pass on. No later stage reads them, so they are not a port.
_REJECTED = "rejected"


@dataclass(frozen=True)
class Reads:
    """Files that a section reads.

    Attributes
    ----------
    port : str
        Name of a port (`cryopipe.workflow.ports`), or ``rejected`` for the lists of items that steps did not pass on.
    every : bool
        Whether the files of all steps that make the port are read (coordinates of all pickers that ran), or only those that
        are handed over (the coordinates that go on).
    """

    port: str
    every: bool = False

    @property
    def name(self) -> str:
        """Name under which the section asks for the files (`RunFiles.paths`): the port, or ``every_<port>``."""
        return f"every_{self.port}" if self.every else self.port

    def files(self, ports: Ports) -> list[str]:
        """Return the files, in the order of steps and batches: an empty list if no step of the run makes them."""
        if self.port == _REJECTED:
            return ports.rejected()
        if not self.every:
            return ports.all(self.port)
        makers = {name: step_of(name).makes for name in ports.names}
        return [
            path
            for name, makes in makers.items()
            if self.port in makes
            for path in ports.files([name], makes[self.port])
        ]


#: Micrographs that enter the CTF stage: aligned and screened in this run, or imported.
ENTERING = Reads("micrographs")
#: Micrographs that leave the CTF stage.
MICROGRAPHS = Reads("micrographs_with_ctf")
#: Coordinates that go on to the extraction of particles.
COORDINATES = Reads("coordinates")
#: Particles of the refined map.
REFINED_PARTICLES = Reads("refined_particles")
#: Lists of items that steps in batches did not pass on, and of particles that other steps left out.
REJECTED = Reads(_REJECTED)
DESELECTED = Reads("deselected_particles", every=True)
#: Results of each CTF estimator.
ESTIMATES = Reads("ctf_estimates", every=True)
