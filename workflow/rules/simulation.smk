# Stage simulation: movies whose truth is known, in place of a download.
# Needs: nothing but the config. Leaves: movies, a gain reference in an orientation of its own, and the truth (poses, motion, CTFs, map).
# Steps: simulate_movies.


if plan.source == "simulation":

    rule simulate_movies:
        output:
            movies="simulation/simulate_movies/movies.star",
            gain="simulation/simulate_movies/gain.mrc",
            truth_particles="simulation/simulate_movies/truth_particles.star",
            truth_movies="simulation/simulate_movies/truth_movies.star",
            truth_map="simulation/simulate_movies/truth_map.mrc",
        log:
            "logs/simulation/simulate_movies.log",
        benchmark:
            "benchmarks/simulation/simulate_movies.tsv"
        threads: 32
        resources:
            mem_mb=4000,
            runtime=240,
            gpu=plan.gpus("simulate_movies"),
        params:
            step=plan.params("simulate_movies"),
            run=plan.run("simulate_movies"),
            code=plan.code("simulate_movies"),
        script:
            "../scripts/simulation/simulate_movies.py"
