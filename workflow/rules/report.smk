# Stage report: one self-contained HTML, and the same numbers in JSON.
# Needs: the tables, pictures and maps of every step of this run. Leaves: report.html, report.json.
# Steps: report.


rule report:
    input:
        rejected=ports.rejected(),
        aligned=ports.all("aligned_micrographs"),
        entering=ports.all("micrographs"),
        estimates=ports.files(ports.branches("estimators"), "micrographs.star"),
        micrographs=ports.all("micrographs_with_ctf"),
        coordinates=ports.all("coordinates"),
        particles=ports.all("particles"),
        gain=ports.get("gain_summary"),
        gain_estimate=ports.get("gain_estimate"),
        gain_residual=ports.get("gain_residual"),
        defects=ports.get("defects"),
        classes=ports["class_averages"],
        class_features=ports["class_features"],
        selected=ports["selected_particles"],
        deselected=ports["deselected_particles"],
        initial=ports["initial_map"],
        initial_history=ports["initial_history"],
        refined=ports["refined_map"],
        refined_particles=ports["refined_particles"],
        refinement_history=ports["refinement_history"],
        postprocess=ports["half_map_summary"],
        postprocess_map=ports["sharpened_map"],
        postprocess_masked=ports["masked_map"],
        postprocess_fsc=ports["half_map_fsc"],
        truth=ports.get("truth_summary"),
        truth_fsc=ports.get("truth_fsc"),
        model=ports.get("model_summary"),
        model_fsc=ports.get("model_fsc"),
    output:
        html="report/report/report.html",
        json="report/report/report.json",
    script:
        "../scripts/run_step.py"
