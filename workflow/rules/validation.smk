# Stage validation: how good is the map, by its own halves, by the truth, by an atomic model.
# Needs: half maps and refined particles. Leaves: sharpened maps, FSC curves, summaries.
# Steps: postprocess; validate_truth (simulated data); validate_model (where dataset.model is given).


rule postprocess:
    input:
        half1=ports["half_map_1"],
        half2=ports["half_map_2"],
    output:
        map="validation/postprocess/postprocess.mrc",
        masked="validation/postprocess/postprocess_masked.mrc",
        mask="validation/postprocess/mask.mrc",
        fsc_xml="validation/postprocess/postprocess_fsc.xml",
        fsc="validation/postprocess/postprocess.star",
        summary="validation/postprocess/postprocess.json",
    script:
        "../scripts/run_step.py"


rule validate_truth:
    input:
        particles=ports["refined_particles"],
        half1=ports["half_map_1"],
        half2=ports["half_map_2"],
        map=ports["refined_map"],
        truth_particles=ports["truth_particles"],
        truth_movies=ports["truth_movies"],
        truth_map=ports["truth_map"],
    output:
        summary="validation/validate_truth/truth.json",
        fsc="validation/validate_truth/truth_fsc.star",
        true_poses_map="validation/validate_truth/true_poses.mrc",
    script:
        "../scripts/run_step.py"


rule validate_model:
    input:
        map=ports["refined_map"],
        model=plan.model or [],
    output:
        summary="validation/validate_model/model.json",
        fsc="validation/validate_model/model_fsc.star",
        density="validation/validate_model/model_density.mrc",
    script:
        "../scripts/run_step.py"
