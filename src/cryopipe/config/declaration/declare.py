"""The declaration of a step: what the rules, the plan, the report and the docs know about it besides its parameters.

A step is declared once: by a `Declaration` above its parameter class, and by one entry in the section of its stage below.
The name of that entry is the name of the step. All steps are looked up in `cryopipe.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from cryopipe.config.declaration.base import Params

Unit = Literal["movies", "micrographs", "particles"]
#: Condition on which a run has a step: the source of its data, or whether there is a truth or model to judge the map by.
Condition = Literal["always", "simulation", "movies", "archive", "micrographs", "truth", "model"]
P = TypeVar("P", bound=Params)


class Reference(NamedTuple):
    """A paper on which a method is based."""

    text: str
    doi: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one job of a step needs: formulas (`cryopipe.config.declaration.formula`) over the counts and sizes of the run.

    A formula may use the attributes of `cryopipe.config.declaration.costs.Sizes`, ``threads``, ``step`` (the parameters of the
    step), ``dataset`` and ``run``. An MB has 10⁶ bytes.

    Attributes
    ----------
    memory_MB : str
        Largest resident memory.
    cpu_seconds : str
        CPU time of one core of the reference machine (docs/benchmarks.md), with the start of Python.
    parallel : float
        Share of the CPU time that is divided among the threads of the job.
    wait_seconds : str
        Waiting time without use of the CPU, such as for a download.
    gpu_memory_MB : str
        Least memory of one GPU. Batches use more if it is free. "0" for steps without a GPU path.
    disk_MB : str
        Size of the files that the job leaves on disk.
    names : mapping
        ``{name: formula}`` of quantities that several formulas use. Each may use those before it.
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
    """Properties of a step, apart from its name, its stage and its parameters.

    Attributes
    ----------
    counts : {"movies", "micrographs", "particles"} or None
        What one item of the step is, for the counts of the report. None if the step does not count items.
    batched : bool
        Whether there is one job for each batch. Otherwise there is one job for the run.
    references : tuple of Reference
        Papers on which the method is based. An empty tuple states that there is none.
    when : Condition
        Which runs have this step.
    branch_of : str
        Name of the fan-in of which the step is a branch. It is empty for a step that does not run beside others.
    label : str
        Name of the branch in the configuration. It is needed with ``branch_of``.
    joins : str
        Name of the fan-in whose branches the step combines into one result. It is empty for all other steps.
    makes : mapping
        ``{port: file}``: what later stages read from this step (`cryopipe.workflow.ports`), and the name of the file
        without the batch.
    gpu : bool
        Whether the step has a GPU path.
    threads : int
        Threads that one job asks for. Snakemake gives at most as many as the machine has.
    cost : Cost or None
        What one job needs. None if it has not been measured.
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
            raise ValueError(f"{params.__name__}: branch_of and label must be given together or not at all")
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
        """Labels of the branches that have been declared so far."""
        return [found.label for found in DECLARATIONS.values() if found.branch_of == self.fan_in]

    def _known(self, label: str) -> str:
        if label not in self.labels:
            raise ValueError(f"this is not a branch of {self.fan_in}; choose from {', '.join(self.labels)}")
        return label

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic refuse a label that no step declares."""
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Let editors offer the labels."""
        return {"type": "string", "enum": self.labels}
