"""The registry of steps: each is declared once, above its parameter class in `cryopipe.config`, and looked up here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from cryopipe.config.base import Params
from cryopipe.config.declare import DECLARATIONS, Declaration
from cryopipe.config.model import sections


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


def branches(fan_in: str) -> list[str]:
    """Return the names of the steps that are branches of ``fan_in``, in the order of the data flow."""
    return [step.name for step in steps().values() if step.branch_of == fan_in]
