"""The tables of steps in README and docs/architecture.md. They are made from the declarations and placed between markers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from pydantic import BaseModel

from cryopipe.config.declaration.base import Params, model_in
from cryopipe.config.declaration.declare import DECLARATIONS
from cryopipe.config.model import Config, sections
from cryopipe.errors import ConfigError

_JOBS = {True: "one for each batch", False: "one"}


def stage_table() -> str:
    """Return the table of stages: what each does, and its steps."""
    rows = ["| stage | what it does | steps |", "|---|---|---|"]
    for stage, steps in sections().items():
        section = model_in(Config.model_fields[stage].annotation)
        rows.append(f"| {stage} | {_what(section)} | {', '.join(steps)} |")
    return "\n".join(rows)


def step_table() -> str:
    """Return the table of steps: stage, name, what it does, jobs, what it counts, the fan-in of which it is a branch."""
    rows = [
        "| stage | step = rule = module = block | what it does | jobs | counts | branch of |",
        "|---|---|---|---|---|---|",
    ]
    for stage, steps in sections().items():
        for name, params in steps.items():
            declared = DECLARATIONS[params]
            cells = [stage, name, _what(params), _JOBS[declared.batched], declared.counts or "", declared.branch_of]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


#: ``{path below the repository: {name of a marker: its table}}``
TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"stages": stage_table},
    "docs/architecture.md": {"steps": step_table},
}


def with_tables(name: str, text: str) -> str:
    """Return ``text`` of the file ``name`` with its tables updated.

    Raises
    ------
    ConfigError
        The file lacks a marker.
    """
    for marker, table in TABLES[name].items():
        begin, end = (f"<!-- {word} generated table: {marker} -->" for word in ("begin", "end"))
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise ConfigError(f"{name}: the lines '{begin}' and '{end}' are missing. Put them where the table belongs.")
        made = f"{begin}\n{table()}\n{end}"
        text = pattern.sub(lambda _, made=made: made, text)  # type: ignore[misc]
    return text


def _what(model: type[BaseModel] | type[Params] | None) -> str:
    """Return the first paragraph of a class docstring, without the name at its beginning and the final full stop."""
    first = " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())
    return re.sub(r"^(Step ``\w+``|Stage \w+): ", "", first).removesuffix(".").replace("|", "\\|")
