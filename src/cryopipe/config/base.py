"""The base of all parameter models, and the one way to declare a parameter with unit, limits and documentation."""

from __future__ import annotations

import inspect
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticUndefined

from cryopipe.errors import ConfigError


class Params(BaseModel):
    """A small, frozen model that refuses unknown keys; steps receive one and read nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def parameter(
    doc: str,
    *,
    unit: str = "",
    default: Any = PydanticUndefined,
    derived: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """Declare a parameter.

    Parameters
    ----------
    doc : str
        What it means, in a sentence; becomes the comment in ``config.default.yaml`` and the row of the parameter page.
    unit : str
        Å, px, e/Å², kV, mm, °, ...; empty for a pure number.
    default : object
        Its default. A required fact has none.
    derived : str
        The formula, evaluated as it stands by :mod:`cryopipe.config.derive` when the user leaves it ``null`` (its default).
    ge, gt, le, lt : float, optional
        Limits; pydantic refuses what lies outside and names the value.
    """
    if derived and default is PydanticUndefined:
        default = None
    return Field(
        default=default,
        description=doc,
        ge=ge,
        gt=gt,
        le=le,
        lt=lt,
        json_schema_extra={"unit": unit, "derived": derived},
    )


def model_in(annotation: Any) -> type[Params] | None:
    """Return the parameter model in an annotation: a model, one that may be None, or a list of them; else None."""
    if inspect.isclass(annotation) and not get_args(annotation):
        return annotation if issubclass(annotation, Params) else None
    return next(filter(None, map(model_in, get_args(annotation))), None)


def require(params: BaseModel, *names: str) -> list[Any]:
    """Return the values of ``names`` or raise a `ConfigError` that says which of them is missing."""
    missing = [name for name in names if getattr(params, name) is None]
    if missing:
        raise ConfigError(
            f"{type(params).__name__}: {', '.join(missing)} has no value. "
            "Give it in the config, in section dataset or in this step's block."
        )
    return [getattr(params, name) for name in names]
