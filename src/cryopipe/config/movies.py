"""Parameters of the movies stage."""

from __future__ import annotations

from typing import Literal

from cryopipe.config.dataset import OpticsGroup
from cryopipe.config.declaration.base import Params, parameter
from cryopipe.config.declaration.declare import Cost, Declaration, Reference
from cryopipe.config.declaration.runs import Stage

#: Cost of opening images, decoding some of them and writing a table.
_COST_OF_REGISTRATION = Cost(
    memory_MB="215 + 5e-6 * frame_px",
    cpu_seconds="0.9 + images * (0.02 + 0.03e-6 * frame_px)",
    parallel=0.5,
    disk_MB="0.001 * images",
)


@Declaration(
    counts="movies",
    batched=True,
    makes={"fetched_movies": "fetched.star"},
    when="archive",
    cost=Cost(
        memory_MB="215",
        cpu_seconds="1 + 0.006 * images * movie_MB",
        # 10 MB/s, as public archives give
        wait_seconds="images * movie_MB / 10",
        disk_MB="images * movie_MB",
    ),
    references=(
        Reference(
            "Iudin et al. 2023, EMPIAR: the Electron Microscopy Public Image Archive",
            "10.1093/nar/gkac1062",
        ),
    ),
)
class FetchMovies(Params):
    """Step ``fetch_movies``: download the movies of a batch from a public archive, if dataset.movies names one."""

    paths: list[str] = parameter(
        "The files of this batch; filled from the manifest of the run.", default=[], per_batch=True
    )
    sizes: dict[str, int] = parameter("Their sizes in bytes; filled from the list.", default={}, per_batch=True)
    checksums: dict[str, str] = parameter("Their checksums; filled from the list.", default={}, per_batch=True)
    base_url: str = parameter(
        "Address of the archive's entries: EMPIAR or a mirror.",
        default="https://ftp.ebi.ac.uk/empiar/world_availability",
    )
    listing: str | None = parameter(
        "List of the entry's files, one line per file: checksum (MD5 or SHA-256) and size in bytes if known, then the path, "
        "as written by md5sum and sha256sum. null: the HTML indices of the archive are read, once per run.",
        default=None,
    )
    folder: str | None = parameter(
        "Folder for the movies (<number of the entry>/<path> in it), relative to the folder of the Snakefile, so that several "
        "runs can use them. null: the folder of the run.",
        default=None,
    )
    connections: int = parameter("Files of a batch that are downloaded at the same time.", default=2, ge=1, le=16)
    attempts: int = parameter("Attempts without progress after which a file is quarantined.", default=5, ge=1, le=50)
    wait_s: float = parameter(
        "Pause after the first failed attempt; it doubles with each further one, up to two minutes.",
        unit="s",
        default=2.0,
        ge=0,
        le=120,
    )
    timeout_s: float = parameter(
        "An attempt ends if the server sends nothing for this time.", unit="s", default=60.0, ge=0.1, le=3600
    )


@Declaration(
    counts="movies",
    batched=True,
    makes={"movies": "movies.star"},
    when="movies",
    threads=2,
    cost=_COST_OF_REGISTRATION,
    references=(),
)
class ImportMovies(Params):
    """Step ``import_movies``: register and check the raw movies of a batch."""

    paths: list[str] = parameter(
        "The movies of this batch; filled from the manifest of the run.", default=[], per_batch=True
    )
    optics_group_name: str = parameter("Name of the optics group of these movies.", default="opticsGroup1")
    optics_groups: list[OpticsGroup] | None = parameter(
        "Groups of movies that differ in some facts.", derived="dataset.optics_groups"
    )
    frames: int | None = parameter(
        "Number of frames that every movie must have; null: it may differ (with a warning above 5 %).",
        default=None,
        ge=1,
    )
    frame_size: tuple[int, int] | None = parameter(
        "Columns and rows that every movie must have; null: the most frequent size of each batch.",
        unit="px",
        default=None,
    )
    check_frames: Literal["ends", "all"] = parameter(
        "Frames that are decoded to find damaged data: the first and the last, or all (slower).", default="ends"
    )
    eer_grouping: int = parameter("Camera readouts that make one frame of an EER movie.", default=40, ge=1, le=1000)
    eer_upsampling: Literal[1, 2, 4] = parameter("Pixels of an EER frame along one pixel of the camera.", default=1)
    pixel_size_A: float | None = parameter(
        "Pixel size of the movies when read (EER: after upsampling).", unit="Å", derived="dataset.pixel_size_A"
    )
    voltage_kV: float | None = parameter("Acceleration voltage.", unit="kV", derived="dataset.voltage_kV")
    cs_mm: float | None = parameter("Spherical aberration.", unit="mm", derived="dataset.cs_mm")
    amplitude_contrast: float | None = parameter(
        "Fraction of amplitude contrast.", derived="dataset.amplitude_contrast"
    )
    dose_per_frame_e_A2: float | None = parameter(
        "Exposure of one frame (of an EER movie: of eer_grouping readouts). It is compared with the counts.",
        unit="e/Å²",
        derived="dataset.dose_per_frame_e_A2",
    )
    pre_exposure_e_A2: float | None = parameter(
        "Exposure before the first frame.", unit="e/Å²", derived="dataset.pre_exposure_e_A2"
    )


@Declaration(
    counts="micrographs",
    batched=True,
    makes={"micrographs": "micrographs.star"},
    when="micrographs",
    threads=2,
    cost=_COST_OF_REGISTRATION,
    references=(),
)
class ImportMicrographs(Params):
    """Step ``import_micrographs``: register and check aligned micrographs, if there are no movies."""

    paths: list[str] = parameter(
        "The micrographs of this batch; filled from the manifest of the run.", default=[], per_batch=True
    )
    optics_group_name: str = parameter("Name of the optics group of these micrographs.", default="opticsGroup1")
    optics_groups: list[OpticsGroup] | None = parameter(
        "Groups of micrographs that differ in some facts.", derived="dataset.optics_groups"
    )
    dose_weighted_suffix: str | None = parameter(
        "Suffix of the dose-weighted micrograph beside each micrograph (_DW for x.mrc and x_DW.mrc); "
        "null: the given micrograph is used for both purposes.",
        default=None,
    )
    pixel_size_A: float | None = parameter("Pixel size of the micrographs.", unit="Å", derived="dataset.pixel_size_A")
    voltage_kV: float | None = parameter("Acceleration voltage.", unit="kV", derived="dataset.voltage_kV")
    cs_mm: float | None = parameter("Spherical aberration.", unit="mm", derived="dataset.cs_mm")
    amplitude_contrast: float | None = parameter(
        "Fraction of amplitude contrast.", derived="dataset.amplitude_contrast"
    )


@Declaration(
    counts=None,
    batched=False,
    makes={
        "gain": "gain.mrc",
        "gain_estimate": "gain_estimated.mrc",
        "gain_residual": "gain_residual.mrc",
        "defects": "defects.tsv",
        "gain_summary": "gain.json",
    },
    when="movies",
    threads=4,
    cost=Cost(
        names={"Mpx": "1e-6 * frame_px"},
        memory_MB="310 + 50 * Mpx",
        cpu_seconds="1.6 + 0.6 * Mpx + 0.0045 * Mpx * images * frames / (step.frame_step * step.movie_step)",
        parallel=0.7,
        disk_MB="12 * Mpx",
    ),
    references=(
        Reference(
            "Sorzano et al. 2018, Blind estimation of DED camera gain in electron microscopy",
            "10.1016/j.jsb.2018.03.012",
        ),
    ),
)
class EstimateGain(Params):
    """Step ``estimate_gain``: the camera's gain from the movies, orientation and sense of a given gain, and defects."""

    method: Literal["flat_field", "rank"] = parameter(
        "flat_field: mean of all frames divided by its smooth background (any data); rank: all rows and columns get the "
        "same "
        "distribution of grey values, as in xmipp_movie_estimate_gain (integer counts only).",
        default="flat_field",
    )
    frame_step: int = parameter("Use every n-th frame of a movie.", default=1, ge=1)
    movie_step: int = parameter("Use every n-th movie.", default=1, ge=1)
    background_sigma_px: float = parameter(
        "Width of the Gaussian that separates gain from specimen and illumination.",
        unit="px",
        default=32.0,
        ge=4,
        le=256,
    )
    orientation: Literal[
        "auto", "rot0", "rot90", "rot180", "rot270", "mirror_rot0", "mirror_rot90", "mirror_rot180", "mirror_rot270"
    ] = parameter(
        "Orientation of the given gain: it is mirrored along x if the name has mirror, then rotated counter-clockwise in "
        "array axes (numpy.rot90); auto: found by correlation.",
        default="auto",
    )
    sense: Literal["auto", "multiply", "divide"] = parameter(
        "Whether frames are multiplied or divided by the given gain; auto: found by correlation.", default="auto"
    )
    min_score: float = parameter(
        "Smallest correlation score, in standard deviations of the correlation map, that proves an orientation.",
        unit="σ",
        default=20.0,
        ge=6,
    )
    min_margin: float = parameter(
        "The score of the best orientation must be this many times that of the second.", default=5.0, ge=1.5
    )
    hot_sigma: float = parameter(
        "A pixel is hot if its mean exceeds its surroundings by this many robust standard deviations.",
        unit="σ",
        default=6.0,
        ge=4,
        le=20,
    )


@Declaration(
    counts="movies",
    batched=True,
    makes={"aligned_micrographs": "micrographs.star"},
    when="movies",
    threads=4,
    cost=Cost(
        names={
            "Mpx": "1e-6 * frame_px",
            # MB per 10⁶ Å² and frame: spectra of the patches (at most 1 GB), and the frames binned to the finest detail
            "spectra": "min(1000, 1.2 * (3.5 / step.finest_resolution_A) ** 2 * frames * Mpx * dataset.pixel_size_A ** 2)",
            "binned": "min(2, 0.65 * dataset.pixel_size_A ** 2) * frames * Mpx",
            "decoded": "frames * Mpx * frame_bytes",
            "kept": "decoded * clip(1000 * step.frame_cache_GB - decoded, 0, 1)",
            # small movies are aligned side by side
            "at_once": "1 + (threads - 1) * clip(256 - 4 * frames * Mpx, 0, 1)",
        },
        memory_MB="330 + at_once * (40 + 60 * Mpx + spectra + binned + kept)",
        cpu_seconds="1.5 + images * (0.7 + 0.025 * frames * Mpx)",
        parallel=0.85,
        disk_MB="images * (0.5 + 1e-6 * micrograph_px * (8 - 4 * step.float16))",
    ),
    references=(
        Reference(
            "Střelák et al. 2020, FlexAlign: an accurate and fast algorithm for movie alignment",
            "10.3390/electronics9061040",
        ),
        Reference(
            "Grant & Grigorieff 2015, Measuring the optimal exposure for single particle cryo-EM",
            "10.7554/eLife.06980",
        ),
    ),
)
class AlignMovies(Params):
    """Step ``align_movies``: global and local motion of the frames, plain and dose-weighted averages."""

    max_resolution_A: float | None = parameter(
        "Correlations are low-passed to this resolution (half amplitude); null: 20 Å, or 15 Å above 1 e/Å² per frame.",
        unit="Å",
        default=None,
        ge=5,
        le=100,
    )
    max_shift_A: float | None = parameter(
        "Largest shift between any two frames of a movie, along x and y; null: no bound. Frames are then compared at up to four "
        "times max_resolution_A from each other, and a track may run on from frame to frame, by up to max_resolution_A a frame.",
        unit="Å",
        default=None,
        ge=2,
        le=500,
    )
    robust_iterations: int = parameter(
        "Rounds in which frame pairs are weighted by how well they fit the trajectory.", default=20, ge=0, le=100
    )
    refine_iterations: int = parameter(
        "Largest number of rounds in which each frame is moved against the sum of all others.", default=5, ge=0, le=50
    )
    local: bool = parameter(
        "Find local motion in patches, in addition to global motion (not in frames that are too small for patches).",
        default=True,
    )
    patch_A: float = parameter(
        "Side of a patch; the size of the frame gives their number.", unit="Å", default=500.0, ge=100, le=2000
    )
    finest_resolution_A: float = parameter(
        "Finest detail used by the refinement of the motion. It weighs each frequency by the signal that frames share "
        "there; vitreous ice has a ring at 3.7 Å.",
        unit="Å",
        default=3.5,
        ge=2,
        le=100,
    )
    binning: int = parameter("Fourier binning of the averages (2 for super-resolution movies).", default=1, ge=1, le=8)
    float16: bool = parameter("Write averages as float16 MRC (mode 12), which halves their size.", default=False)
    frame_cache_GB: float = parameter(
        "Decoded frames of a movie stay in memory up to this size; larger movies are read twice.",
        unit="GB",
        default=1.0,
        ge=0,
    )
    dose_per_frame_e_A2: float | None = parameter(
        "Exposure of one frame; null switches dose weighting off.", unit="e/Å²", derived="dataset.dose_per_frame_e_A2"
    )
    pre_exposure_e_A2: float | None = parameter(
        "Exposure before the first frame.", unit="e/Å²", derived="dataset.pre_exposure_e_A2"
    )


@Declaration(
    counts="movies",
    batched=True,
    makes={"micrographs": "micrographs.star"},
    when="movies",
    cost=Cost(memory_MB="215", cpu_seconds="1 + 0.01 * images", disk_MB="0.002 * images"),
    references=(),
)
class ScreenMotion(Params):
    """Step ``screen_motion``: leave out movies that could not be aligned, or that were blurred by motion."""

    criterion: Literal["harm", "legacy2020", "path"] = parameter(
        "harm: loss of detail (blur inside the frames, jumps, frames that do not agree), not length of the drift; "
        "legacy2020: largest step and largest range along x or y; path: largest Euclidean step and length of the path.",
        default="harm",
    )
    max_blur_A: float | None = parameter(
        "harm: coarsest detail that may lose half of its power by motion inside the frames (1.45 s for a steady motion of s "
        "per frame). The default is that of the rings which consensus_ctf requires. null: not judged.",
        unit="Å",
        default=8.0,
        gt=0,
    )
    max_lost_frames: float | None = parameter(
        "harm: largest fraction of frames that share nothing with the others. A fraction f leaves (1 - f)² of the power, which "
        "is half at 0.29. null: not judged.",
        default=0.29,
        ge=0,
        le=1,
    )
    min_evidence: float | None = parameter(
        "harm: smallest evidence (crpAlignmentEvidence) that the frames share a specimen. Noise has less than 0. null: not "
        "judged.",
        default=0.0,
    )
    max_frame_shift_A: float | None = parameter(
        "Largest shift between neighbouring frames; null: 20 Å (harm: after a larger step a frame has lost the detail by which "
        "frames are aligned), 5 Å (legacy2020) or 10 Å (path).",
        unit="Å",
        default=None,
        gt=0,
    )
    max_movie_shift_A: float | None = parameter(
        "Largest motion over the movie; null: no limit (harm), 15 Å (legacy2020) or 45 Å (path).",
        unit="Å",
        default=None,
        gt=0,
    )
    reject: Literal["frame", "movie", "and", "or"] = parameter(
        "Which of the two limits on shifts must be exceeded to reject a movie.", default="or"
    )
    skip: int = parameter("Number of first frames to ignore, while the specimen settles.", default=0, ge=0, le=100)
    ignore_spikes: bool = parameter(
        "Ignore a single frame that jumps out and back (a wrong shift, not motion) in the measures. It is flagged in any "
        "case.",
        default=False,
    )


class MoviesStage(Stage):
    """Stage movies: from raw movies to aligned, screened micrographs."""

    fetch_movies: FetchMovies = FetchMovies()
    import_movies: ImportMovies = ImportMovies()
    import_micrographs: ImportMicrographs = ImportMicrographs()
    estimate_gain: EstimateGain = EstimateGain()
    align_movies: AlignMovies = AlignMovies()
    screen_motion: ScreenMotion = ScreenMotion()
