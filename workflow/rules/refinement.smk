# Stage refinement: the gold-standard map, two half sets that never touch.
# Needs: selected particles and an initial map. Leaves: half maps, their FSC, particles with poses.
# Steps: refine_homogeneous.


rule refine_homogeneous:
    input:
        particles=rules.select_classes_2d.output.particles,
        map=rules.initial_relion_sgd.output.map,
    output:
        half1="refinement/refine_homogeneous/run_half1_class001_unfil.mrc",
        half2="refinement/refine_homogeneous/run_half2_class001_unfil.mrc",
        map="refinement/refine_homogeneous/run_class001.mrc",
        mask="refinement/refine_homogeneous/mask.mrc",
        particles="refinement/refine_homogeneous/particles.star",
        fsc="refinement/refine_homogeneous/fsc.star",
        history="refinement/refine_homogeneous/history.tsv",
    log:
        "logs/refinement/refine_homogeneous.log",
    benchmark:
        "benchmarks/refinement/refine_homogeneous.tsv"
    threads: 32
    resources:
        mem_mb=8000,
        runtime=960,
        gpu=plan.gpus("refine_homogeneous"),
    params:
        step=plan.params("refine_homogeneous"),
        run=plan.run("refine_homogeneous"),
        code=plan.code("refine_homogeneous"),
    script:
        "../scripts/refinement/refine_homogeneous.py"
