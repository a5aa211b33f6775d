"""Steps that are done several times: their block of the configuration is a list with one entry per run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationInfo, field_validator

from cryopipe.config.declaration.base import Params, parameter

#: Value of ``start_from`` for a run that starts from the run before it in the list.
PREVIOUS = "previous"


class RunParams(Params):
    """Parameters of a step that may be done several times. Each run has its own folder of results."""

    run: str = parameter(
        "Name of the run and of its folder of results: lower-case letters, digits and _.",
        default="",
        pattern=r"^([a-z][a-z0-9_]*)?$",
    )
    start_from: str | None = parameter(
        "What the run starts from: previous (the run before it in the list), the name of another run, or another step "
        "(<step> or <step>/<run>); null: the input of the stage.",
        default=None,
    )


R = TypeVar("R", bound=RunParams)


class Stage(Params):
    """A section of the configuration: the blocks of the steps of a stage, and the choice between its branches."""

    @property
    def fan_ins(self) -> dict[str, tuple[list[str], str]]:
        """``{fan-in: (labels of the branches that run, label of the branch whose result goes on)}`` of this stage."""
        return {}

    @field_validator("*", mode="before")
    @classmethod
    def _as_runs(cls, value: Any, info: ValidationInfo) -> Any:
        defaults = cls.model_fields[str(info.field_name)].default
        if not _is_runs(defaults):
            if isinstance(value, Sequence) and isinstance(defaults, Params):
                raise ValueError("this step is done once: give one block of parameters, not a list")
            return value
        if isinstance(value, Mapping):
            if len(defaults) > 1:
                runs = ", ".join(f"{{run: {run.run}}}" for run in defaults)
                raise ValueError(
                    f"this step is done several times: give a list with one block for each run, such as [{runs}]"
                )
            value = [value]
        if not isinstance(value, Sequence) or isinstance(value, str):
            return value
        return [_laid_over(block, i, defaults) for i, block in enumerate(value)]

    @field_validator("*", mode="after")
    @classmethod
    def _as_chain(cls, value: Any) -> Any:
        return _chained(value) if _is_runs(value) else value


def _is_runs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(run, RunParams) for run in value)


def _laid_over(block: Any, place: int, defaults: Sequence[RunParams]) -> Any:
    """Return the block of a run, completed from the default run of the same name, or at the same place if it has no name."""
    if not isinstance(block, Mapping):
        return block
    place_name = defaults[place].run if place < len(defaults) else f"run_{place + 1}"
    name = block.get("run") or place_name
    known = next((run.model_dump(exclude_unset=True) for run in defaults if run.run == name), {})
    return known | dict(block) | {"run": name}


def _chained(runs: list[R]) -> list[R]:
    """Return the runs, with ``previous`` replaced by the name of the run before."""
    twice = [name for name, count in Counter(run.run for run in runs).items() if count > 1]
    if twice:
        raise ValueError(f"two runs are called {twice[0]!r}: give each a name of its own (run: <name>)")
    if runs[0].start_from == PREVIOUS:
        raise ValueError(f"run {runs[0].run} is the first of the list, so it cannot start from a previous run")
    return [
        run.model_copy(update={"start_from": runs[i - 1].run}) if run.start_from == PREVIOUS else run
        for i, run in enumerate(runs)
    ]


def check_choice(list_name: str, labels: Sequence[str], from_name: str, chosen: str | None) -> None:
    """Refuse a fan-in without branches, a branch that is named twice, and the choice of a branch that does not run.

    Parameters
    ----------
    list_name, from_name : str
        Keys of the configuration.
    labels : sequence of str
        The branches that run.
    chosen : str, optional
        The branch whose result goes on.

    Raises
    ------
    ValueError
        The choice is not possible. The message names key and value.
    """
    if not labels:
        raise ValueError(f"{list_name} is empty, but at least one branch must run: name one")
    if len(set(labels)) < len(labels):
        raise ValueError(f"{list_name} must name each branch once, but it is {', '.join(labels)}")
    if chosen is not None and chosen not in labels:
        raise ValueError(
            f"{from_name} is {chosen}, but {list_name} has only {', '.join(labels)}: add it there or choose one of these"
        )
