"""The declaration of a step: everything that the rules, the plan, the report and the docs know of it, beside its parameters.

A step is declared once: by a `Declaration` above its parameter class, and by one entry in the section of its stage below it.
The name of that entry is the name of the step. `cryopipe.steps` is where all steps are looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from cryopipe.config.base import Params

Unit = Literal["movies", "micrographs", "particles"]
#: What a run must be like for a step to run: where its data come from, and whether there is something to judge the map by.
Condition = Literal["always", "simulation", "movies", "archive", "micrographs", "truth", "model"]
P = TypeVar("P", bound=Params)


class Reference(NamedTuple):
    """A paper that a method rests on."""

    text: str
    doi: str


@dataclass(frozen=True)
class Cost:
    """What one job of a step needs: formulas (`cryopipe.config.formula`) over the counts and sizes of the run.

    Attributes
    ----------
    memory_MB : str
        Resident memory.
    minutes : str
        Wall time.
    gpu_memory_MB : str
        Memory of one GPU; "0" for steps without a GPU path.
    disk_MB : str
        Size of what the job leaves on disk.
    """

    memory_MB: str
    minutes: str
    gpu_memory_MB: str = "0"
    disk_MB: str = "0"


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a step is, apart from its name, its stage and its parameters.

    Attributes
    ----------
    counts : {"movies", "micrographs", "particles"} or None
        What one item of the step is, for the counts of the report; None where the step counts nothing.
    batched : bool
        Whether there is one job for each batch; otherwise there is one job for the run.
    references : tuple of Reference
        Papers that the method rests on; an empty tuple states that there is none.
    when : Condition
        Which runs have this step.
    branch_of : str
        Name of the fan-in that the step is a branch of; empty for a step that does not run beside others.
    joins : str
        Name of the fan-in whose branches the step makes one result of; empty for all other steps.
    gpu : bool
        Whether the step has a GPU path.
    threads : int
        Threads that one job asks for; Snakemake grants no more than the machine has.
    cost : Cost or None
        What one job needs; None where nobody has measured it.
    """

    counts: Unit | None
    batched: bool
    references: tuple[Reference, ...]
    when: Condition = "always"
    branch_of: str = ""
    joins: str = ""
    gpu: bool = False
    threads: int = 1
    cost: Cost | None = None

    def __call__(self, params: type[P]) -> type[P]:
        """Declare the step whose parameters the decorated class ``params`` describes."""
        DECLARATIONS[params] = self
        return params


#: ``{parameter class: its declaration}``
DECLARATIONS: dict[type[Params], Declaration] = {}
