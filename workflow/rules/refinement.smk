# Stage refinement: the gold-standard map, two half sets that never touch.
# Needs: selected particles and an initial map. Leaves: half maps, their FSC, particles with poses.
# Steps: refine_homogeneous.


rule refine_homogeneous:
    input:
        particles=ports["selected_particles"],
        map=ports["initial_map"],
    output:
        half1="refinement/refine_homogeneous/run_half1_class001_unfil.mrc",
        half2="refinement/refine_homogeneous/run_half2_class001_unfil.mrc",
        map="refinement/refine_homogeneous/run_class001.mrc",
        mask="refinement/refine_homogeneous/mask.mrc",
        particles="refinement/refine_homogeneous/particles.star",
        fsc="refinement/refine_homogeneous/fsc.star",
        history="refinement/refine_homogeneous/history.tsv",
    script:
        "../scripts/run_step.py"
