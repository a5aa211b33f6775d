# Stage particles: normalised particle images with CTFs.
# Needs: micrographs and coordinates. Leaves: one stack a micrograph, particle tables, and what was rejected and why.
# Steps: extract_particles.


rule extract_particles:
    input:
        micrographs=MICROGRAPHS_WITH_CTF,
        coordinates="picking/pick_log/{batch}_coordinates.star",
    output:
        particles="particles/extract_particles/{batch}_particles.star",
        rejected="particles/extract_particles/{batch}_rejected.tsv",
    log:
        "logs/particles/extract_particles/{batch}.log",
    benchmark:
        "benchmarks/particles/extract_particles/{batch}.tsv"
    threads: 4
    resources:
        mem_mb=3000,
        runtime=120,
        gpu=plan.gpus("extract_particles"),
    params:
        step=plan.params("extract_particles"),
        run=plan.run("extract_particles"),
        code=plan.code("extract_particles"),
    script:
        "../scripts/particles/extract_particles.py"
