# Stage picking: particle coordinates.
# Needs: micrographs with CTFs. Leaves: coordinate tables, one for each batch.
# Steps: the pickers that picking.pickers names, side by side; the coordinates of one go on.


rule pick_log:
    input:
        micrographs=ports["micrographs_with_ctf"],
    output:
        coordinates="picking/pick_log/{batch}_coordinates.star",
        rejected="picking/pick_log/{batch}_rejected.tsv",
    script:
        "../scripts/run_step.py"


rule pick_shell:
    input:
        micrographs=ports["micrographs_with_ctf"],
    output:
        coordinates="picking/pick_shell/{batch}_coordinates.star",
        rejected="picking/pick_shell/{batch}_rejected.tsv",
    script:
        "../scripts/run_step.py"
