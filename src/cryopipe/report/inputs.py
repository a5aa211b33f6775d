"""The inputs of the rule ``report``: the files that its sections read."""

from __future__ import annotations

from typing import Any

from cryopipe.workflow.ports import Ports


def report_inputs(ports: Ports, wildcards: Any = None) -> dict[str, list[str]]:
    """Return ``{name: files}`` of all that the sections of the report read in this run.

    Parameters
    ----------
    ports : Ports
        What the steps of the run hand over.
    wildcards : object
        Snakemake passes them to every input function. The report has none.
    """
    # imported here, because the sections import libraries for drawing that no other job needs
    from cryopipe.report.sections import SECTIONS

    reads = dict.fromkeys(part for section in SECTIONS for part in section.reads)
    found = {part.name: part.files(ports) for part in reads}
    return {name: paths for name, paths in found.items() if paths}
