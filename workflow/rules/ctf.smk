# Stage ctf: contrast transfer functions, and the micrographs whose CTF can be trusted.
# Needs: micrographs. Leaves: micrograph tables with CTF columns, and what was rejected and why.
# Steps: estimate_ctf_ctffind, estimate_ctf_gctf -> consensus_ctf (defocus), estimate_ctf_ctffind -> estimate_ctf_xmipp,
#   (estimate_ctf_xmipp, consensus_ctf) -> consensus_ctf_envelope. Those run that the two lists of estimators name.

# Micrographs enter here: aligned and screened by this run, or imported as they are.
MICROGRAPHS = (
    "movies/import_micrographs/{batch}_micrographs.star"
    if plan.source == "micrographs"
    else "movies/screen_motion/{batch}_micrographs.star"
)
# Micrographs leave here: the table of the last consensus. Later stages read this and no other table of the stage.
MICROGRAPHS_WITH_CTF = f"ctf/{plan.ctf_passes[-1]}/{{batch}}_micrographs.star"


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


rule estimate_ctf_xmipp:
    input:
        micrographs=MICROGRAPHS,
        previous=f"ctf/{plan.previous_ctf}/{{batch}}_micrographs.star" if plan.previous_ctf else [],
    output:
        micrographs="ctf/estimate_ctf_xmipp/{batch}_micrographs.star",
        rejected="ctf/estimate_ctf_xmipp/{batch}_rejected.tsv",
    log:
        "logs/ctf/estimate_ctf_xmipp/{batch}.log",
    benchmark:
        "benchmarks/ctf/estimate_ctf_xmipp/{batch}.tsv"
    threads: 4
    resources:
        mem_mb=3000,
        runtime=240,
        gpu=plan.gpus("estimate_ctf_xmipp"),
    params:
        step=plan.params("estimate_ctf_xmipp"),
        run=plan.run("estimate_ctf_xmipp"),
        code=plan.code("estimate_ctf_xmipp"),
    script:
        "../scripts/ctf/estimate_ctf_xmipp.py"


rule consensus_ctf:
    input:
        micrographs=MICROGRAPHS,
        branches=[f"ctf/{step}/{{batch}}_micrographs.star" for step in plan.ctf_branches("consensus_ctf")],
        failures=[f"ctf/{step}/{{batch}}_rejected.tsv" for step in plan.ctf_branches("consensus_ctf")],
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


rule consensus_ctf_envelope:
    input:
        micrographs=rules.consensus_ctf.output.micrographs,
        branches=[f"ctf/{step}/{{batch}}_micrographs.star" for step in plan.ctf_branches("consensus_ctf_envelope")],
        failures=[f"ctf/{step}/{{batch}}_rejected.tsv" for step in plan.ctf_branches("consensus_ctf_envelope")],
    output:
        micrographs="ctf/consensus_ctf_envelope/{batch}_micrographs.star",
        rejected="ctf/consensus_ctf_envelope/{batch}_rejected.tsv",
    log:
        "logs/ctf/consensus_ctf_envelope/{batch}.log",
    benchmark:
        "benchmarks/ctf/consensus_ctf_envelope/{batch}.tsv"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
        gpu=plan.gpus("consensus_ctf_envelope"),
    params:
        step=plan.params("consensus_ctf_envelope"),
        run=plan.run("consensus_ctf_envelope"),
        code=plan.code("consensus_ctf_envelope"),
    script:
        "../scripts/ctf/consensus_ctf_envelope.py"
