"""A run's folder with fabricated tables, motion files and pictures of as many movies as a test wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cryopipe.config.report import Report
from cryopipe.io.mrc import write_image
from cryopipe.io.star import RejectionRow, StarTable, make_optics, write_rejections, write_table
from cryopipe.movies.motion.local_alignment import LocalMotion
from cryopipe.movies.motion.star import write_motion
from cryopipe.report.run_files import RunFiles

OPTICS = make_optics(
    voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1, movie_pixel_size_A=1.0, micrograph_pixel_size_A=1.0
)
#: Every 20th movie drifts, every 15th micrograph that is left has a bad CTF, one movie cannot be read by one estimator.
DRIFTS, BAD_CTF = 20, 15
#: Every tenth movie has no local motion.
UNBENT = 10
SHIFTS = np.array([[0.0, 0.0], [1.0, 0.5], [2.0, -1.0], [3.0, 2.0]])
SHAPE = (len(SHIFTS), 96, 128)


def write_run(folder: Path, count: int, *, drawn: int = 3) -> dict[str, Any]:
    """Write the tables of ``count`` movies, and motion file and pictures of the first ``drawn``; return the inputs."""
    rng = np.random.default_rng(3)
    items = [f"mov_{i:05d}" for i in range(count)]
    drifted = [item for i, item in enumerate(items) if i % DRIFTS == 1]
    entering = [item for item in items if item not in drifted]
    bad = entering[2::BAD_CTF]
    accepted = [item for item in entering if item not in bad]
    aligned = _movies(items, rng)
    inputs = {
        "aligned_micrographs": [_write(folder / "movies/align_movies", aligned)],
        "micrographs": [_write(folder / "movies/screen_motion", _screened(aligned, entering, rng))],
        "every_ctf_estimates": [],
        "rejected": [
            write_losses(folder, "movies/import_movies", []),
            write_losses(folder, "movies/screen_motion", drifted, "largest step between frames 35.2 Å exceeds 20 Å"),
            write_losses(folder, "ctf/estimate_ctf_ctffind", []),
            write_losses(folder, "ctf/estimate_ctf_gctf", entering[:1], "no <rings>", kind="quarantined"),
            write_losses(folder, "ctf/consensus_ctf/defocus", bad, "agree only to 9.1 Å"),
        ],
    }
    truth = dict(zip(entering, rng.uniform(8e3, 2e4, len(entering)), strict=True))
    estimates = {}
    for name, sd in (("ctffind", 20.0), ("gctf", 30.0)):
        found = entering if name == "ctffind" else entering[1:]
        estimates[name] = _estimates(found, truth, set(bad) if name == "gctf" else set(), sd, rng)
        inputs["every_ctf_estimates"].append(_write(folder / f"ctf/estimate_ctf_{name}", estimates[name]))
    final = estimates["ctffind"][estimates["ctffind"]["crpItem"].isin(accepted)].assign(
        crpCtfConsensusCrossing=4.0, crpCtfNewNumber=-9999.0
    )
    inputs["micrographs_with_ctf"] = [_write(folder / "ctf/consensus_ctf/defocus", final)]
    for item in items[:drawn]:
        _motion_file(folder, item)
        _pictures(folder, item, rng)
    return inputs | _gain(folder, rng)


def files_of(folder: Path, inputs: dict[str, Any], **options: int) -> RunFiles:
    """Return the files of a fabricated run."""
    return RunFiles(folder, inputs, Report(title="t", particle_diameter_A=130.0, symmetry="O", **options))


def write_losses(folder: Path, step: str, items: list[str], reason: str = "", *, kind: str = "rejected") -> Path:
    """Write what ``step`` (stage/step) did not pass on."""
    path = folder / step / "batch_0001_rejected.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rejections(path, [RejectionRow(item, kind, reason) for item in items])
    return path


def _write(folder: Path, rows: pd.DataFrame) -> Path:
    path = folder / "batch_0001_micrographs.star"
    folder.mkdir(parents=True, exist_ok=True)
    write_table(path, StarTable("micrographs", OPTICS, rows.reset_index(drop=True)))
    return path


def _movies(items: list[str], rng: np.random.Generator) -> pd.DataFrame:
    n = len(items)
    return pd.DataFrame(
        {
            "rlnMicrographName": [f"movies/align_movies/micrographs/{item}.mrc" for item in items],
            "rlnMicrographMetadata": [f"movies/align_movies/motion/{item}.star" for item in items],
            "rlnOpticsGroup": np.ones(n, dtype=int),
            "rlnAccumMotionTotal": rng.uniform(3, 12, n),
            "rlnAccumMotionEarly": rng.uniform(0, 3, n),
            "rlnAccumMotionLate": rng.uniform(0, 3, n),
            "crpItem": items,
            "crpAlignmentResidual": rng.uniform(0.3, 0.8, n),
            "crpAlignmentAgreeing": np.ones(n),
            "crpAlignmentEvidence": rng.uniform(500, 9000, n),
            "crpFramesLost": np.zeros(n, dtype=int),
            "crpLocalPatches": np.full(n, 16),
            "crpNoLocalMotion": ["no bend beyond the noise" if i % UNBENT == 2 else "none" for i in range(n)],
            "crpLocalResidual": rng.uniform(0.1, 0.3, n),
        }
    )


def _screened(aligned: pd.DataFrame, entering: list[str], rng: np.random.Generator) -> pd.DataFrame:
    rows = aligned[aligned["crpItem"].isin(entering)]
    names = (
        "crpMotionStepMax",
        "crpMotionStepEuclidean",
        "crpMotionRange",
        "crpMotionDiameter",
        "crpMotionPath",
        "crpMotionBlur",
    )
    return rows.assign(**{name: rng.uniform(0.5, 3, len(rows)) for name in names})


def _estimates(
    items: list[str], truth: dict[str, float], wrong: set[str], sd: float, rng: np.random.Generator
) -> pd.DataFrame:
    n = len(items)
    mean = np.array([truth[item] + 3000.0 * (item in wrong) for item in items]) + sd * rng.standard_normal(n)
    return pd.DataFrame(
        {
            "rlnMicrographName": [f"movies/align_movies/micrographs/{item}.mrc" for item in items],
            "rlnOpticsGroup": np.ones(n, dtype=int),
            "crpItem": items,
            "rlnDefocusU": mean + 100,
            "rlnDefocusV": mean - 100,
            "rlnDefocusAngle": rng.uniform(-5, 5, n),
            "rlnCtfAstigmatism": np.full(n, 200.0),
            "rlnCtfFigureOfMerit": rng.uniform(0.05, 0.15, n),
            "rlnCtfMaxResolution": rng.uniform(3, 6, n),
        }
    )


def _motion_file(folder: Path, item: str) -> None:
    coefficients = np.zeros((2, 4, 4, 4))
    coefficients[0] = np.arange(4)[:, None, None] * np.linspace(-1, 1, 4)[None, None, :]
    path = folder / "movies/align_movies/motion" / f"{item}.star"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_motion(
        path, SHIFTS, movie=Path(f"{item}.tif"), frame_shape=SHAPE[1:], pixel_size_A=2.0, voltage_kV=300, binning=1,
        gain=None, dose_per_frame_e_A2=1.0, pre_exposure_e_A2=0.0,
        local=LocalMotion(coefficients, SHAPE, SHAPE[0] // 2, 0.1, (4, 4)),
    )  # fmt: skip


def _pictures(folder: Path, item: str, rng: np.random.Generator) -> None:
    names = {
        "movies/align_movies": ("psd", "micrograph"),
        "ctf/estimate_ctf_ctffind": ("ctf", "epa"),
        "ctf/estimate_ctf_gctf": ("ctf",),
    }
    for step, endings in names.items():
        (folder / step / "pictures").mkdir(parents=True, exist_ok=True)
        for ending in endings:
            noise = rng.integers(0, 255, (512, 512), dtype=np.uint8)
            Image.fromarray(noise).save(folder / step / "pictures" / f"{item}_{ending}.png")


def _gain(folder: Path, rng: np.random.Generator) -> dict[str, Path]:
    parent = folder / "movies/estimate_gain"
    parent.mkdir(parents=True)
    paths = {"gain_estimate": parent / "gain_estimated.mrc", "gain_residual": parent / "gain_residual.mrc"}
    for path in paths.values():
        write_image(path, rng.normal(1, 0.05, (400, 600)).astype(np.float32), 1.0)
    defects = parent / "defects.tsv"
    defects.write_text("x\ty\ttype\n5\t7\tdead\n590\t390\thot\n11\t12\thot\n")
    summary = {
        "movies": 12, "source": "given", "reason": "score 219.6 σ", "dead_pixels": 1, "hot_pixels": 2,
        "residual": {"sd": 0.04, "percentiles": {}},
        "scores": [
            {"orientation": o, "sense": s, "score": 100.0 / (i + 1), "shift_yx_px": [0, i]}
            for i, (o, s) in enumerate(
                (f"{m}rot{r}", s) for m in ("", "mirror_") for r in (0, 90, 180, 270) for s in ("multiply", "divide")
            )
        ],
    }  # fmt: skip
    gain = parent / "gain.json"
    gain.write_text(json.dumps(summary))
    return paths | {"defects": defects, "gain_summary": gain}
