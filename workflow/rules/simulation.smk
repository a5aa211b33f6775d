# Stage simulation: movies whose truth is known, in place of a download.
# Needs: nothing but the config, and the atomic model that it names. Leaves: movies, a gain reference in an orientation of its own, and the truth (poses, motion, CTFs, map).
# Steps: simulate_movies.


rule simulate_movies:
    input:
        model=plan.simulated_model or [],
    output:
        movies="simulation/simulate_movies/movies.star",
        gain="simulation/simulate_movies/gain.mrc",
        truth_particles="simulation/simulate_movies/truth_particles.star",
        truth_movies="simulation/simulate_movies/truth_movies.star",
        truth_map="simulation/simulate_movies/truth_map.mrc",
    script:
        "../scripts/run_step.py"
