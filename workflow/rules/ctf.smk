# Stage ctf: contrast transfer functions, and the micrographs whose CTF can be trusted.
# Needs: micrographs. Leaves: micrograph tables with CTF columns, and what was rejected and why.
# Steps: estimate_ctf_ctffind, estimate_ctf_gctf (those that consensus_ctf.estimators names) -> consensus_ctf.

# Micrographs enter here: aligned and screened by this run, or imported as they are.
MICROGRAPHS = (
    "movies/import_micrographs/{batch}_micrographs.star"
    if plan.source == "micrographs"
    else "movies/screen_motion/{batch}_micrographs.star"
)


rule estimate_ctf_ctffind:
    input:
        micrographs=MICROGRAPHS,
    output:
        micrographs="ctf/estimate_ctf_ctffind/{batch}_micrographs.star",
        rejected="ctf/estimate_ctf_ctffind/{batch}_rejected.tsv",
    log:
        "logs/ctf/estimate_ctf_ctffind/{batch}.log",
    benchmark:
        "benchmarks/ctf/estimate_ctf_ctffind/{batch}.tsv"
    threads: 4
    resources:
        mem_mb=3000,
        runtime=120,
        gpu=plan.gpus("estimate_ctf_ctffind"),
    params:
        step=plan.params("estimate_ctf_ctffind"),
        run=plan.run("estimate_ctf_ctffind"),
        code=plan.code("estimate_ctf_ctffind"),
    script:
        "../scripts/ctf/estimate_ctf_ctffind.py"


rule estimate_ctf_gctf:
    input:
        micrographs=MICROGRAPHS,
    output:
        micrographs="ctf/estimate_ctf_gctf/{batch}_micrographs.star",
        rejected="ctf/estimate_ctf_gctf/{batch}_rejected.tsv",
    log:
        "logs/ctf/estimate_ctf_gctf/{batch}.log",
    benchmark:
        "benchmarks/ctf/estimate_ctf_gctf/{batch}.tsv"
    threads: 4
    resources:
        mem_mb=3000,
        runtime=120,
        gpu=plan.gpus("estimate_ctf_gctf"),
    params:
        step=plan.params("estimate_ctf_gctf"),
        run=plan.run("estimate_ctf_gctf"),
        code=plan.code("estimate_ctf_gctf"),
    script:
        "../scripts/ctf/estimate_ctf_gctf.py"


rule consensus_ctf:
    input:
        branches=[
            f"ctf/estimate_ctf_{estimator}/{{batch}}_micrographs.star"
            for estimator in plan.params("consensus_ctf")["estimators"]
        ],
    output:
        micrographs="ctf/consensus_ctf/{batch}_micrographs.star",
        rejected="ctf/consensus_ctf/{batch}_rejected.tsv",
    log:
        "logs/ctf/consensus_ctf/{batch}.log",
    benchmark:
        "benchmarks/ctf/consensus_ctf/{batch}.tsv"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
        gpu=plan.gpus("consensus_ctf"),
    params:
        step=plan.params("consensus_ctf"),
        run=plan.run("consensus_ctf"),
        code=plan.code("consensus_ctf"),
    script:
        "../scripts/ctf/consensus_ctf.py"
