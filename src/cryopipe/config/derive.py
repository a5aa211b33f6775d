"""Fill every parameter that a user left open from the facts of the dataset.

The formula of a derived parameter is its ``derived`` text, which is evaluated as written
(`cryopipe.config.declaration.formula`). It may use ``dataset`` (the facts), ``run``, ``wavelength`` (of the electrons, Å) and
``preset`` (of the simulation). A value that the user gave is never changed.
"""

from __future__ import annotations

from typing import Any

from cryopipe.config.dataset import Dataset
from cryopipe.config.declaration.base import Params
from cryopipe.config.declaration.formula import evaluate
from cryopipe.config.model import Config, step_params
from cryopipe.errors import ConfigError

REQUIRED_FACTS = ("pixel_size_A", "voltage_kV", "cs_mm", "particle_diameter_A", "symmetry")


def facts(config: Config) -> Dataset:
    """Return the facts of the dataset. If there is a simulation, they are taken from it.

    Raises
    ------
    ConfigError
        A required fact is missing, or a given fact differs from that of the simulation.
    """
    dataset = config.dataset
    if config.simulation is not None:
        simulated = config.simulation.simulate_movies.facts()
        for name, value in simulated.items():
            given = getattr(dataset, name)
            if name in dataset.model_fields_set and given is not None and given != value:
                raise ConfigError(
                    f"dataset.{name} is {given}, but the simulation makes data with {value}. "
                    "Leave the fact out or change simulation."
                )
        dataset = dataset.model_copy(update=simulated)
    missing = [name for name in REQUIRED_FACTS if getattr(dataset, name) is None]
    if missing:
        raise ConfigError(
            "these facts of the dataset are missing: "
            + ", ".join(f"dataset.{name}" for name in missing)
            + ". Give them in section dataset."
        )
    return dataset


def resolve(config: Config) -> dict[str, Params]:
    """Return ``{step: params}`` with every derived field filled."""
    known = facts(config)
    volts = 1e3 * float(known.voltage_kV or 0)
    names = {
        "dataset": known,
        "run": config.run,
        # relativistic, as everywhere (docs/conventions.md); config must not import the optics, which is a floor above it
        "wavelength": 12.2643247 / (volts * (1 + 0.978466e-6 * volts)) ** 0.5,
    }
    return {step: _fill(params, names) for step, (_, params) in step_params(config).items()}


def _fill(params: Params, names: dict[str, Any]) -> Params:
    values: dict[str, Any] = {}
    for name, info in type(params).model_fields.items():
        extra = info.json_schema_extra
        derived = str(extra.get("derived", "")) if isinstance(extra, dict) else ""
        if derived == "preset" and getattr(params, name) is None:
            values[name] = params.value(name)  # type: ignore[attr-defined]
        elif derived and getattr(params, name) is None:
            values[name] = evaluate(derived, names)
    # validate again, because a derived value must respect the limits of its field, too
    return type(params).model_validate(params.model_dump() | values)
