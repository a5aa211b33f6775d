"""The registry of steps: each is declared once, above its parameter class in `cryopipe.config`, and looked up here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from cryopipe.config.declaration.base import Params
from cryopipe.config.declaration.declare import DECLARATIONS, Declaration
from cryopipe.config.declaration.runs import RunParams
from cryopipe.config.model import sections
from cryopipe.errors import CryopipeError


@dataclass(frozen=True, kw_only=True)
class Step(Declaration):
    """One step of the pipeline.

    Attributes
    ----------
    name : str
        Name of the step: of its rule, its module, its block of the configuration and its folder of results.
    stage : str
        Name of its stage: of its rule file, its package, its section of the configuration and its folder of results.
    params : type
        Class of its parameters.
    """

    name: str
    stage: str
    params: type[Params]

    @property
    def runs(self) -> bool:
        """Whether the step may be done several times, each run with results in a folder of its own."""
        return issubclass(self.params, RunParams)

    @property
    def module(self) -> str:
        """Dotted name of the module whose ``main`` runs the step."""
        return f"cryopipe.{self.stage}.{self.name}"


@cache
def steps() -> Mapping[str, Step]:
    """Return ``{name: step}`` of all steps, in the order of the data flow."""
    return MappingProxyType(
        {
            name: Step(name=name, stage=stage, params=params, **vars(DECLARATIONS[params]))
            for stage, section in sections().items()
            for name, params in section.items()
        }
    )


def step_of(name: str) -> Step:
    """Return the step of ``name``, which is ``<step>`` or ``<step>/<run>``."""
    return steps()[name.split("/")[0]]


def name_of(path: Path) -> str:
    """Return the name of the step, or run of a step, in whose folder of results ``path`` is.

    Raises
    ------
    CryopipeError
        The path is not in the folder of a step.
    """
    *_, before, folder = ("", "", *path.parent.parts)
    name = f"{before}/{folder}" if before in steps() and steps()[before].runs else folder
    if name.split("/")[0] not in steps():
        raise CryopipeError(
            f"{path} is not in the folder of a step. Move it to <stage>/<step>/ or <stage>/<step>/<run>/ of a run."
        )
    return name
