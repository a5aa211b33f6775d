# Stage particles: normalised particle images with CTFs.
# Needs: micrographs and coordinates. Leaves: one stack for each micrograph, particle tables, and what was rejected and why.
# Steps: extract_particles.


rule extract_particles:
    input:
        micrographs=ports["micrographs_with_ctf"],
        coordinates=ports["coordinates"],
    output:
        particles="particles/extract_particles/{batch}_particles.star",
        rejected="particles/extract_particles/{batch}_rejected.tsv",
    script:
        "../scripts/run_step.py"
