"""The declaration of a step: everything that the rules, the plan, the report and the docs know of it, beside its parameters.

A step is declared once: by a `Declaration` above its parameter class, and by one entry in the section of its stage below it.
The name of that entry is the name of the step. `cryopipe.steps` is where all steps are looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from cryopipe.config.declaration.base import Params

Unit = Literal["movies", "micrographs", "particles"]
#: What a run must be like for a step to run: where its data come from, and whether there is something to judge the map by.
Condition = Literal["always", "simulation", "movies", "archive", "micrographs", "truth", "model"]
P = TypeVar("P", bound=Params)


class Reference(NamedTuple):
    """A paper that a method rests on."""

    text: str
    doi: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one job of a step needs: formulas (`cryopipe.config.declaration.formula`) over the counts and sizes of the run.

    The names of a formula are the attributes of `cryopipe.config.declaration.costs.Sizes`, ``threads``, ``step`` (the step's own
    parameters), ``dataset`` and ``run``. MB are 10⁶ bytes.

    Attributes
    ----------
    memory_MB : str
        Largest resident memory.
    cpu_seconds : str
        CPU time of one core of the reference machine (docs/benchmarks.md), the start of Python included.
    parallel : float
        Share of the CPU time that the job's threads divide among them.
    wait_seconds : str
        Time without the CPU, such as for a download.
    gpu_memory_MB : str
        Least memory of one GPU; batches take more where it is free. "0" for steps without a GPU path.
    disk_MB : str
        Size of what the job leaves on disk.
    names : mapping
        ``{name: formula}`` of what several of the formulas use, each over those before it.
    """

    memory_MB: str
    cpu_seconds: str
    parallel: float = 0.0
    wait_seconds: str = "0"
    gpu_memory_MB: str = "0"
    disk_MB: str = "0"
    names: Mapping[str, str] = field(default_factory=dict)


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
    label : str
        Name of the branch in the configuration; needed where ``branch_of`` is given.
    joins : str
        Name of the fan-in whose branches the step makes one result of; empty for all other steps.
    makes : mapping
        ``{port: file}``: what later stages read of this step (`cryopipe.workflow.ports`), and the name of the file without
        the batch.
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
    label: str = ""
    joins: str = ""
    makes: Mapping[str, str] = field(default_factory=dict)
    gpu: bool = False
    threads: int = 1
    cost: Cost | None = None

    def __call__(self, params: type[P]) -> type[P]:
        """Declare the step whose parameters the decorated class ``params`` describes."""
        if bool(self.branch_of) != bool(self.label):
            raise ValueError(f"{params.__name__}: branch_of and label are given together or not at all")
        DECLARATIONS[params] = self
        return params


#: ``{parameter class: its declaration}``
DECLARATIONS: dict[type[Params], Declaration] = {}


@dataclass(frozen=True)
class BranchOf:
    """Marks a text of the configuration as the label of a branch: ``Annotated[str, BranchOf("pickers")]``.

    Attributes
    ----------
    fan_in : str
        Name of the fan-in.
    """

    fan_in: str

    @property
    def labels(self) -> list[str]:
        """Labels of the branches that are declared so far."""
        return [found.label for found in DECLARATIONS.values() if found.branch_of == self.fan_in]

    def _known(self, label: str) -> str:
        if label not in self.labels:
            raise ValueError(f"there is no such branch of {self.fan_in}; known are {', '.join(self.labels)}")
        return label

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic refuse a label that no step declares."""
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Let editors offer the labels."""
        return {"type": "string", "enum": self.labels}
