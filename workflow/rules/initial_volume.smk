# Stage initial_volume: a map from nothing but particles.
# Needs: selected particles. Leaves: a map at some 10 Å and poses.
# Steps: initial_relion_sgd.


rule initial_relion_sgd:
    input:
        particles=rules.select_classes_2d.output.particles,
    output:
        map="initial_volume/initial_relion_sgd/initial.mrc",
        particles="initial_volume/initial_relion_sgd/particles.star",
        history="initial_volume/initial_relion_sgd/history.tsv",
    log:
        "logs/initial_volume/initial_relion_sgd.log",
    benchmark:
        "benchmarks/initial_volume/initial_relion_sgd.tsv"
    threads: 32
    resources:
        mem_mb=4000,
        runtime=480,
        gpu=plan.gpus("initial_relion_sgd"),
    params:
        step=plan.params("initial_relion_sgd"),
        run=plan.run("initial_relion_sgd"),
        code=plan.code("initial_relion_sgd"),
    script:
        "../scripts/initial_volume/initial_relion_sgd.py"
