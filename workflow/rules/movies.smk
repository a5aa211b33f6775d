# Stage movies: from raw movies to aligned, dose-weighted, screened micrographs.
# Needs: movies, here or in a public archive (or aligned micrographs), a gain reference if there is one. Leaves: micrograph tables, one a batch, and what was rejected and why.
# Steps: (fetch_movies ->) import_movies -> estimate_gain -> align_movies -> screen_motion; or import_micrographs alone.

# The simulated movies and their gain are files of this run; real ones lie where the config says. [] is an input that there is not.
SIMULATED = "simulation/simulate_movies/movies.star" if plan.source == "simulation" else []
GAIN = "simulation/simulate_movies/gain.mrc" if plan.source == "simulation" else plan.gain or []


if plan.source == "micrographs":

    rule import_micrographs:
        output:
            micrographs="movies/import_micrographs/{batch}_micrographs.star",
            rejected="movies/import_micrographs/{batch}_rejected.tsv",
        log:
            "logs/movies/import_micrographs/{batch}.log",
        benchmark:
            "benchmarks/movies/import_micrographs/{batch}.tsv"
        threads: 2
        resources:
            mem_mb=1000,
            runtime=60,
            gpu=plan.gpus("import_micrographs"),
        params:
            step=lambda wildcards: plan.params("import_micrographs", batch=wildcards.batch),
            run=plan.run("import_micrographs"),
            code=plan.code("import_micrographs"),
        script:
            "../scripts/movies/import_micrographs.py"

else:

    if plan.is_remote:

        rule fetch_movies:
            output:
                fetched="movies/fetch_movies/{batch}_fetched.star",
                rejected="movies/fetch_movies/{batch}_rejected.tsv",
            log:
                "logs/movies/fetch_movies/{batch}.log",
            benchmark:
                "benchmarks/movies/fetch_movies/{batch}.tsv"
            # where the workflow was started: compute nodes often cannot reach the network
            localrule: True
            threads: 1
            resources:
                mem_mb=500,
                runtime=2880,
                gpu=plan.gpus("fetch_movies"),
                download=1,
            params:
                step=lambda wildcards: plan.params("fetch_movies", batch=wildcards.batch),
                run=plan.run("fetch_movies"),
                code=plan.code("fetch_movies"),
            script:
                "../scripts/movies/fetch_movies.py"

    rule import_movies:
        input:
            listing=SIMULATED,
            fetched="movies/fetch_movies/{batch}_fetched.star" if plan.is_remote else [],
        output:
            movies="movies/import_movies/{batch}_movies.star",
            rejected="movies/import_movies/{batch}_rejected.tsv",
        log:
            "logs/movies/import_movies/{batch}.log",
        benchmark:
            "benchmarks/movies/import_movies/{batch}.tsv"
        threads: 2
        resources:
            mem_mb=1000,
            runtime=60,
            gpu=plan.gpus("import_movies"),
        params:
            step=lambda wildcards: plan.params("import_movies", batch=wildcards.batch),
            run=plan.run("import_movies"),
            code=plan.code("import_movies"),
        script:
            "../scripts/movies/import_movies.py"

    rule estimate_gain:
        input:
            movies=expand("movies/import_movies/{batch}_movies.star", batch=BATCHES),
            gain=GAIN,
        output:
            gain="movies/estimate_gain/gain.mrc",
            estimated="movies/estimate_gain/gain_estimated.mrc",
            residual="movies/estimate_gain/gain_residual.mrc",
            defects="movies/estimate_gain/defects.tsv",
            summary="movies/estimate_gain/gain.json",
        log:
            "logs/movies/estimate_gain.log",
        benchmark:
            "benchmarks/movies/estimate_gain.tsv"
        threads: 4
        resources:
            mem_mb=4000,
            runtime=120,
            gpu=plan.gpus("estimate_gain"),
        params:
            step=plan.params("estimate_gain"),
            run=plan.run("estimate_gain"),
            code=plan.code("estimate_gain"),
        script:
            "../scripts/movies/estimate_gain.py"

    rule align_movies:
        input:
            movies="movies/import_movies/{batch}_movies.star",
            gain=rules.estimate_gain.output.gain,
            defects=rules.estimate_gain.output.defects,
        output:
            micrographs="movies/align_movies/{batch}_micrographs.star",
            rejected="movies/align_movies/{batch}_rejected.tsv",
        log:
            "logs/movies/align_movies/{batch}.log",
        benchmark:
            "benchmarks/movies/align_movies/{batch}.tsv"
        threads: 4
        resources:
            mem_mb=4000,
            runtime=240,
            gpu=plan.gpus("align_movies"),
        params:
            step=plan.params("align_movies"),
            run=plan.run("align_movies"),
            code=plan.code("align_movies"),
        script:
            "../scripts/movies/align_movies.py"

    rule screen_motion:
        input:
            micrographs="movies/align_movies/{batch}_micrographs.star",
        output:
            micrographs="movies/screen_motion/{batch}_micrographs.star",
            rejected="movies/screen_motion/{batch}_rejected.tsv",
        log:
            "logs/movies/screen_motion/{batch}.log",
        benchmark:
            "benchmarks/movies/screen_motion/{batch}.tsv"
        threads: 1
        resources:
            mem_mb=500,
            runtime=10,
            gpu=plan.gpus("screen_motion"),
        params:
            step=plan.params("screen_motion"),
            run=plan.run("screen_motion"),
            code=plan.code("screen_motion"),
        script:
            "../scripts/movies/screen_motion.py"
