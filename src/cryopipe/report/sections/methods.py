"""Methods: the parameters of every step that ran, and the papers on which its method is based."""

from __future__ import annotations

import json

from cryopipe import __version__
from cryopipe.report.run_files import RunFiles
from cryopipe.report.section import Part, Section
from cryopipe.steps import steps as all_steps


def build(run: RunFiles) -> Part:
    """Return the parameters with which the steps ran, and the references of these steps."""
    ran = run.recorded_params
    names = {name.split("/")[0] for name in ran}
    cited = [step for step in all_steps().values() if step.references and step.name in names]
    return Part(
        numbers={"parameters": ran},
        page={
            "parameters": {
                "steps": {name: json.dumps(values, indent=1, ensure_ascii=False) for name, values in ran.items()}
            },
            "citations": {"steps": {step.name: step.references for step in cited}, "version": __version__},
        },
    )


SECTION = Section(
    name="methods",
    anchors={"parameters": "Parameters", "citations": "Citations"},
    build=build,
)
