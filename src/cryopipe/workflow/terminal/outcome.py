"""The result of a job in a few words for the terminal: counts of items, or else the last message of the step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryopipe.io.star import read_blocks, read_rejections
from cryopipe.steps import step_of, steps
from cryopipe.workflow.terminal.job_log import PROGRESS

#: Outputs that are tables of items: ``{name in the rule: kind of items}``.
TABLES = {"movies": "movies", "fetched": "movies", "micrographs": "micrographs", "particles": "particles"}


class LastWord(logging.Handler):
    """Keeps the last message of a step other than progress."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message, unless it is progress or a traceback."""
        said = record.getMessage()
        if record.levelno == logging.INFO and not PROGRESS.match(said) and not said.startswith("Traceback"):
            self.said = said


def outcome(name: str, outputs: Mapping[str, Any], log: logging.Logger) -> str:
    """Return the result of a job, such as "5 of 6 micrographs".

    Parameters
    ----------
    name : str
        ``<step>``, or ``<step>/<run>``.
    outputs : mapping
        ``{name: file}`` as in the rule.
    log : logging.Logger
        Logger of the job, with a `LastWord` among its handlers.
    """
    said = next((handler.said for handler in log.handlers if isinstance(handler, LastWord)), "")
    said = said.removeprefix(f"{name}: ")
    unit = step_of(name).counts if name.split("/")[0] in steps() else None
    table = next((key for key in TABLES if key in outputs), None)
    if table is None or (unit is None and said):
        return said
    kept = _rows(Path(outputs[table]))
    if unit is None or "rejected" not in outputs:
        return f"{kept} {TABLES[table]}"
    return f"{kept} of {kept + _rejected(Path(outputs['rejected']))} {unit}"


def _rows(path: Path) -> int:
    """Return the number of items in a table. The file has no other rows than those of items and of optics groups."""
    return sum(len(rows) for name, rows in read_blocks(path).items() if name != "optics")


def _rejected(path: Path) -> int:
    return len(read_rejections(path)) if path.suffix == ".tsv" else _rows(path)
