# Stage report: one self-contained HTML, and the same numbers in JSON.
# Needs: what the sections of the report read of every step of this run. Leaves: report.html, report.json.
# Steps: report.

from functools import partial

from cryopipe.report.inputs import report_inputs


rule report:
    input:
        unpack(partial(report_inputs, plan, rules)),
    output:
        html="report/report/report.html",
        json="report/report/report.json",
    log:
        "logs/report/report.log",
    benchmark:
        "benchmarks/report/report.tsv"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=60,
        gpu=plan.gpus("report"),
    params:
        step=plan.params("report"),
        run=plan.run("report"),
        code=plan.code("report"),
    script:
        "../scripts/report/report.py"
