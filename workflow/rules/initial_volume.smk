# Stage initial_volume: a map from nothing but particles.
# Needs: selected particles. Leaves: a map at some 10 Å and poses.
# Steps: those that initial_volume.initial_volumes names, side by side; the map of one goes on.


rule initial_relion_sgd:
    input:
        particles=ports["selected_particles"],
    output:
        map="initial_volume/initial_relion_sgd/initial.mrc",
        particles="initial_volume/initial_relion_sgd/particles.star",
        history="initial_volume/initial_relion_sgd/history.tsv",
        seeds="initial_volume/initial_relion_sgd/seeds.json",
    script:
        "../scripts/run_step.py"
