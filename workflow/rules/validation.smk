# Stage validation: how good is the map, by its own halves, by the truth, by an atomic model.
# Needs: half maps and refined particles. Leaves: sharpened maps, FSC curves, summaries.
# Steps: postprocess; validate_truth (simulated data); validate_model (where dataset.model is given).


rule postprocess:
    input:
        half1=rules.refine_homogeneous.output.half1,
        half2=rules.refine_homogeneous.output.half2,
    output:
        map="validation/postprocess/postprocess.mrc",
        masked="validation/postprocess/postprocess_masked.mrc",
        mask="validation/postprocess/mask.mrc",
        fsc_xml="validation/postprocess/postprocess_fsc.xml",
        fsc="validation/postprocess/postprocess.star",
        summary="validation/postprocess/postprocess.json",
    log:
        "logs/validation/postprocess.log",
    benchmark:
        "benchmarks/validation/postprocess.tsv"
    threads: 2
    resources:
        mem_mb=4000,
        runtime=60,
        gpu=plan.gpus("postprocess"),
    params:
        step=plan.params("postprocess"),
        run=plan.run("postprocess"),
        code=plan.code("postprocess"),
    script:
        "../scripts/validation/postprocess.py"


if plan.has_truth:

    rule validate_truth:
        input:
            particles=rules.refine_homogeneous.output.particles,
            half1=rules.refine_homogeneous.output.half1,
            half2=rules.refine_homogeneous.output.half2,
            map=rules.refine_homogeneous.output.map,
            truth_particles=rules.simulate_movies.output.truth_particles,
            truth_movies=rules.simulate_movies.output.truth_movies,
            truth_map=rules.simulate_movies.output.truth_map,
        output:
            summary="validation/validate_truth/truth.json",
            fsc="validation/validate_truth/truth_fsc.star",
            true_poses_map="validation/validate_truth/true_poses.mrc",
        log:
            "logs/validation/validate_truth.log",
        benchmark:
            "benchmarks/validation/validate_truth.tsv"
        threads: 4
        resources:
            mem_mb=4000,
            runtime=120,
            gpu=plan.gpus("validate_truth"),
        params:
            step=plan.params("validate_truth"),
            run=plan.run("validate_truth"),
            code=plan.code("validate_truth"),
        script:
            "../scripts/validation/validate_truth.py"


if plan.model:

    rule validate_model:
        input:
            map=rules.refine_homogeneous.output.map,
            model=plan.model,
        output:
            summary="validation/validate_model/model.json",
            fsc="validation/validate_model/model_fsc.star",
            density="validation/validate_model/model_density.mrc",
        log:
            "logs/validation/validate_model.log",
        benchmark:
            "benchmarks/validation/validate_model.tsv"
        threads: 4
        resources:
            mem_mb=4000,
            runtime=120,
            gpu=plan.gpus("validate_model"),
        params:
            step=plan.params("validate_model"),
            run=plan.run("validate_model"),
            code=plan.code("validate_model"),
        script:
            "../scripts/validation/validate_model.py"
