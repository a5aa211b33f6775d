"""The base of all parameter models, and the one way to declare a parameter with unit, limits and documentation."""

from __future__ import annotations

import inspect
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticUndefined

from cryopipe.errors import ConfigError


class Params(BaseModel):
    """A small, frozen model that refuses unknown keys. A step receives one and reads no other configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    def asks_for(self) -> list[str]:
        """Return the steps whose results this one reads directly, not through a port. They run because this one asks."""
        return []


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
    pattern: str | None = None,
    per_batch: bool = False,
) -> Any:
    """Declare a parameter.

    Parameters
    ----------
    doc : str
        What it means, in a sentence. It is the comment in ``config.default.yaml`` and the row on the parameter page.
    unit : str
        Å, px, e/Å², kV, mm, °, ... It is empty for a pure number.
    default : object
        The default value. A required fact has none.
    derived : str
        Formula of the value if the user leaves it ``null`` (its default); :mod:`cryopipe.config.derive` evaluates it.
    ge, gt, le, lt : float, optional
        Limits. Pydantic refuses a value outside and names it.
    pattern : str, optional
        Regular expression that a text must match.
    per_batch : bool
        Whether the run fills it (for each batch, or from its plan). Such a parameter is not a key of a user's configuration.
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
        pattern=pattern,
        json_schema_extra={"unit": unit, "derived": derived, "per_batch": per_batch},
    )


def model_in(annotation: Any) -> type[Params] | None:
    """Return the parameter model in an annotation (a model, a model or None, or a list of models), or None."""
    if inspect.isclass(annotation) and not get_args(annotation):
        return annotation if issubclass(annotation, Params) else None
    return next(filter(None, map(model_in, get_args(annotation))), None)


def per_batch(model: type[BaseModel]) -> list[str]:
    """Return the parameters of ``model`` that the run fills for each batch."""
    extras = {name: info.json_schema_extra for name, info in model.model_fields.items()}
    return [name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("per_batch")]


def require(params: BaseModel, *names: str) -> list[Any]:
    """Return the values of ``names``, or raise a `ConfigError` that names the missing ones."""
    missing = [name for name in names if getattr(params, name) is None]
    if missing:
        raise ConfigError(
            f"{type(params).__name__}: {', '.join(missing)} has no value. "
            "Give it in the configuration, in section dataset or in the block of this step."
        )
    return [getattr(params, name) for name in names]
