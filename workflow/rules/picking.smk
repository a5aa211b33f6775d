# Stage picking: particle coordinates.
# Needs: micrographs with CTFs. Leaves: coordinate tables, one a batch.
# Steps: pick_log.


rule pick_log:
    input:
        micrographs=MICROGRAPHS_WITH_CTF,
    output:
        coordinates="picking/pick_log/{batch}_coordinates.star",
        rejected="picking/pick_log/{batch}_rejected.tsv",
    log:
        "logs/picking/pick_log/{batch}.log",
    benchmark:
        "benchmarks/picking/pick_log/{batch}.tsv"
    threads: 4
    resources:
        mem_mb=3000,
        runtime=120,
        gpu=plan.gpus("pick_log"),
    params:
        step=plan.params("pick_log"),
        run=plan.run("pick_log"),
        code=plan.code("pick_log"),
    script:
        "../scripts/picking/pick_log.py"
