# Stage movies: from raw movies to aligned, dose-weighted, screened micrographs.
# Needs: movies, here or in a public archive (or aligned micrographs), a gain reference if there is one. Leaves: micrograph tables, one for each batch, and what was rejected and why.
# Steps: (fetch_movies ->) import_movies -> estimate_gain -> align_movies -> screen_motion; or import_micrographs alone.


rule fetch_movies:
    output:
        fetched="movies/fetch_movies/{batch}_fetched.star",
        rejected="movies/fetch_movies/{batch}_rejected.tsv",
    # where the workflow was started: compute nodes often cannot reach the network
    localrule: True
    resources:
        download=1,
    script:
        "../scripts/run_step.py"


rule import_movies:
    input:
        listing=ports.get("simulated_movies"),
        fetched=ports.get("fetched_movies"),
        files=plan.input_files,
    output:
        movies="movies/import_movies/{batch}_movies.star",
        rejected="movies/import_movies/{batch}_rejected.tsv",
    params:
        files=plan.file_states,
    script:
        "../scripts/run_step.py"


rule import_micrographs:
    input:
        files=plan.input_files,
    output:
        micrographs="movies/import_micrographs/{batch}_micrographs.star",
        rejected="movies/import_micrographs/{batch}_rejected.tsv",
    params:
        files=plan.file_states,
    script:
        "../scripts/run_step.py"


rule estimate_gain:
    input:
        movies=expand("movies/import_movies/{batch}_movies.star", batch=BATCHES),
        # the simulated gain is a file of this run; that of real movies lies where the configuration says
        gain=ports.get("simulated_gain") or plan.gain or [],
    output:
        gain="movies/estimate_gain/gain.mrc",
        estimated="movies/estimate_gain/gain_estimated.mrc",
        residual="movies/estimate_gain/gain_residual.mrc",
        defects="movies/estimate_gain/defects.tsv",
        summary="movies/estimate_gain/gain.json",
    script:
        "../scripts/run_step.py"


rule align_movies:
    input:
        movies="movies/import_movies/{batch}_movies.star",
        gain="movies/estimate_gain/gain.mrc",
        defects="movies/estimate_gain/defects.tsv",
    output:
        micrographs="movies/align_movies/{batch}_micrographs.star",
        rejected="movies/align_movies/{batch}_rejected.tsv",
    script:
        "../scripts/run_step.py"


rule screen_motion:
    input:
        micrographs="movies/align_movies/{batch}_micrographs.star",
    output:
        micrographs="movies/screen_motion/{batch}_micrographs.star",
        rejected="movies/screen_motion/{batch}_rejected.tsv",
    script:
        "../scripts/run_step.py"
