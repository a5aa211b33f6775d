"""From a YAML file (or Snakemake's dictionary) to a validated configuration, with messages for users."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cryopipe.config.declaration.base import model_in, per_batch
from cryopipe.config.model import Config, step_params
from cryopipe.errors import ConfigError


def load_config(path: str | Path) -> Config:
    """Read and validate a YAML configuration.

    Raises
    ------
    ConfigError
        One message that lists every fault with its key, its value and what is allowed.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Give the path of a YAML configuration."
        ) from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: this is not valid YAML: {error}. Correct the file.") from error
    return parse_config(tree or {}, source=str(path))


def parse_config(tree: Mapping[str, Any], *, source: str = "config") -> Config:
    """Validate a configuration that is given as a dictionary. ``source`` is its name in messages."""
    try:
        config = Config.model_validate(dict(tree))
    except ValidationError as error:
        faults = [f"  {_describe(fault)}" for fault in error.errors()]
        raise ConfigError(f"{source} cannot be used:\n" + "\n".join(faults)) from None
    filled = [
        f"{stage}.{step}.{name}"
        for step, (stage, params) in step_params(config).items()
        for name in per_batch(type(params))
        if name in params.model_fields_set
    ]
    if filled:
        raise ConfigError(
            f"{source}: the run fills {', '.join(filled)} for each batch. Leave it out, and give the files in section dataset."
        )
    return config


def _describe(fault: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "(top level)"
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(fault["loc"][-1]), _keys_beside(fault["loc"]), n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"keys here: {', '.join(_keys_beside(fault['loc']))}."
        return f"{key}: this key is not known; {hint}"
    value = "" if isinstance(fault["input"], Mapping | BaseModel) else f" (given: {fault['input']!r})"
    return f"{key}: {fault['msg'].removeprefix('Value error, ')}{value}"


def _keys_beside(location: tuple[str | int, ...]) -> list[str]:
    model: Any = Config
    for part in location[:-1]:
        if isinstance(part, str):
            model = model_in(model.model_fields[part].annotation)
    return list(model.model_fields)
