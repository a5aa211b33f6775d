# Stage report: one self-contained HTML, and the same numbers in JSON.
# Needs: what the sections of the report read of the steps of this run. Leaves: report.html, report.json.
# Steps: report.

from functools import partial

from cryopipe.report.inputs import report_inputs


rule report:
    input:
        unpack(partial(report_inputs, ports)),
    output:
        html="report/report/report.html",
        json="report/report/report.json",
    script:
        "../scripts/run_step.py"
