# Stage report: one self-contained HTML, and the same numbers in JSON.
# Needs: the tables, pictures and maps of every step of this run. Leaves: report.html, report.json.
# Steps: report.

# Tables of what each batched step did not pass on.
REJECTED = [f"{plan.stage(step)}/{step}/{{batch}}_rejected.tsv" for step in plan.steps_of_run if plan.in_batches(step)]


rule report:
    input:
        rejected=expand(REJECTED, batch=BATCHES),
        aligned=(
            expand("movies/align_movies/{batch}_micrographs.star", batch=BATCHES)
            if plan.source != "micrographs"
            else []
        ),
        entering=expand(MICROGRAPHS, batch=BATCHES),
        estimates=expand(
            [f"ctf/{step}/{{batch}}_micrographs.star" for step in plan.ctf_estimators],
            batch=BATCHES,
        ),
        micrographs=expand(MICROGRAPHS_WITH_CTF, batch=BATCHES),
        coordinates=expand("picking/pick_log/{batch}_coordinates.star", batch=BATCHES),
        particles=expand("particles/extract_particles/{batch}_particles.star", batch=BATCHES),
        gain=rules.estimate_gain.output.summary if plan.source != "micrographs" else [],
        gain_estimate=rules.estimate_gain.output.estimated if plan.source != "micrographs" else [],
        gain_residual=rules.estimate_gain.output.residual if plan.source != "micrographs" else [],
        defects=rules.estimate_gain.output.defects if plan.source != "micrographs" else [],
        classes=rules.classify_2d.output.classes,
        class_features=rules.select_classes_2d.output.class_features,
        selected=rules.select_classes_2d.output.particles,
        deselected=rules.select_classes_2d.output.rejected,
        initial=rules.initial_relion_sgd.output.map,
        initial_history=rules.initial_relion_sgd.output.history,
        refined=rules.refine_homogeneous.output.map,
        refined_particles=rules.refine_homogeneous.output.particles,
        refinement_history=rules.refine_homogeneous.output.history,
        postprocess=rules.postprocess.output.summary,
        postprocess_map=rules.postprocess.output.map,
        postprocess_masked=rules.postprocess.output.masked,
        postprocess_fsc=rules.postprocess.output.fsc,
        truth=rules.validate_truth.output.summary if plan.has_truth else [],
        truth_fsc=rules.validate_truth.output.fsc if plan.has_truth else [],
        model=rules.validate_model.output.summary if plan.model else [],
        model_fsc=rules.validate_model.output.fsc if plan.model else [],
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
