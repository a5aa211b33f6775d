"""Defocus of the three CTF estimators and of their consensus against truth, on small micrographs of particles in ice.

``python -m benchmarks.ctf.ctf_consensus [--conditions small damped ...] [--seeds 1 2] [--micrographs 12] [--real]``

The simulator draws apoferritin in ice (defocus 0.5-1.6 µm, 25 or 60 particles, 40 e/Å² in two frames without motion), and
counts electrons. Each estimator runs with its defaults and from nothing, as in a run; the micrographs of a seed are one batch
of the consensus. The true defocus is that of the middle of the ice. ``z`` is the rms of error over stated error: 1 if the errors
are right.

``--real`` adds the ten micrographs of EMPIAR-10146 in ../shared/realdata, whose truth is not known: there the distance of the
consensus from the median of the estimators is compared with their spread. The last line is JSON.

Some 1.5 CPU s a micrograph to simulate and 2.5 to estimate.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cryopipe.config.ctf import EstimateCtfCtffind, EstimateCtfGctf, EstimateCtfXmipp
from cryopipe.config.simulation import SimulateMovies
from cryopipe.ctf.consensus.calibration import calibrate
from cryopipe.ctf.consensus.weights import Member, combine
from cryopipe.ctf.defocus import Defocus, Microscope, from_uv
from cryopipe.ctf.estimate_ctf_ctffind import ctf_by_amplitudes
from cryopipe.ctf.estimate_ctf_gctf import ctf_by_log_amplitudes
from cryopipe.ctf.sector_errors import DefocusError, defocus_error
from cryopipe.ctf.xmipp.estimate import ctf_by_power_spectrum
from cryopipe.ctf.xmipp.fit import sector_influences
from cryopipe.io.mrc import read_image
from cryopipe.simulation.atoms import apoferritin
from cryopipe.simulation.camera import draw_camera
from cryopipe.simulation.expose import expose
from cryopipe.simulation.potential import PotentialSampler
from cryopipe.simulation.scene import draw_scene

REAL = Path(__file__).resolve().parents[3] / "shared/realdata/empiar-10146"
ESTIMATORS = ("ctffind", "gctf", "xmipp")
#: What differs from `small`.
CONDITIONS: dict[str, dict[str, Any]] = {
    "small": {},
    "damped": {"b_factor_A2": 90.0},
    "weak": {"b_factor_A2": 160.0},
    "thick": {"ice_thickness_A": 800.0, "b_factor_A2": 70.0},
    "fine": {"pixel_size_A": 0.85, "b_factor_A2": 60.0},
    "coarse": {"pixel_size_A": 1.6, "b_factor_A2": 60.0},
}


def micrographs(condition: str, seed: int, count: int) -> list[tuple[np.ndarray, Defocus, float]]:
    """Return image, true defocus and pixel size (Å) of each."""
    result = []
    for number in range(count):
        rng = np.random.default_rng([seed, number, list(CONDITIONS).index(condition)])
        options: dict[str, Any] = {
            "width_px": 1280, "height_px": 1280, "frames": 2, "pixel_size_A": 1.2, "dose_per_frame_e_A2": 20.0,
            "defocus_range_A": (5000.0, 16000.0), "drift_A": 0.0, "local_motion_A": 0.0, "special_movies": False,
            "particles_per_movie": (25, 60)[number % 2], **CONDITIONS[condition],
        }  # fmt: skip
        params = SimulateMovies(preset="tiny", movies=1, **options)
        sampler = PotentialSampler(apoferritin(), params.value("pixel_size_A"))
        camera = draw_camera((1280, 1280), 0.0, rng)
        scene = draw_scene(params, "ok", rng)
        image = np.sum([frame.astype(np.float32) for frame in expose(scene, params, sampler, camera, rng)], axis=0)
        truth = from_uv(scene.defocus_u_A, scene.defocus_v_A, scene.defocus_angle_deg)
        result.append((image, truth, params.value("pixel_size_A")))
    return result


def estimate(name: str, image: np.ndarray, pixel_A: float, scope: Microscope) -> tuple[Defocus, DefocusError | None]:
    """Return the defocus of one estimator, with its defaults and from nothing, and the error that it states."""
    if name == "ctffind":
        found = ctf_by_amplitudes(image, pixel_A, scope, EstimateCtfCtffind())
        return found.fit.defocus, found.error
    if name == "gctf":
        fit, _ = ctf_by_log_amplitudes(image, pixel_A, scope, EstimateCtfGctf())
        return fit.defocus, fit.error
    power = ctf_by_power_spectrum(image, pixel_A, scope, EstimateCtfXmipp()).fit
    return power.defocus, defocus_error(sector_influences(power.solution, power.cells), power.defocus)


def members(image: np.ndarray, pixel_A: float, scope: Microscope) -> dict[str, Member]:
    """Return the estimates of a micrograph that state an error."""
    found = {name: estimate(name, image, pixel_A, scope) for name in ESTIMATORS}
    return {n: Member(d, error.mean_A, error.astigmatism_A) for n, (d, error) in found.items() if error is not None}


def consensus(batch: list[dict[str, Member]]) -> list[Member]:
    """Return the combined defocus of each micrograph of a batch, with its error."""
    c = calibrate(batch)
    print(f"  correlation {c.correlations[0]:.2f}, errors x {c.scales[0]:.2f}, common {c.common_A:.1f} Å", flush=True)
    found = [combine({n: c.apply(n, m) for n, m in ms.items()}, c.correlations, c.common_A) for ms in batch]
    return [Member(f.defocus, f.error.mean_A, f.error.astigmatism_A) for f in found]


def errors(found: list[Member], truths: list[Defocus]) -> dict[str, float]:
    """Return mean, rms and worst error of the mean defocus, rms of the astigmatism's components (Å), and z of both."""
    pairs = list(zip(found, truths, strict=True))
    mean = np.array([m.defocus.mean_A - t.mean_A for m, t in pairs])
    parts = np.array([(m.defocus.a_A - t.a_A, m.defocus.b_A - t.b_A) for m, t in pairs])
    stated = np.array([m.mean_error_A for m in found])
    of_parts = np.array([m.astigmatism_error_A for m in found])[:, None]

    def rms(values: np.ndarray) -> float:
        return float(np.sqrt((values**2).mean()))

    values = {
        "mean_abs_A": np.abs(mean).mean(), "rms_A": rms(mean), "worst_A": np.abs(mean).max(), "bias_A": mean.mean(),
        "stated_A": rms(stated), "z": rms(mean / stated),
        "astigmatism_rms_A": rms(parts), "astigmatism_z": rms(parts / of_parts),
    }  # fmt: skip
    return {name: round(float(value), 2) for name, value in values.items()}


def simulated(condition: str, seeds: list[int], count: int) -> dict[str, dict[str, float]]:
    """Return the errors of each estimator, of the plain means and of the consensus in one condition."""
    scope, truths, combined = Microscope(300.0, 2.7, 0.1), [], []
    single: dict[str, list[Member]] = {name: [] for name in (*ESTIMATORS, "mean of 2", "mean of 3")}
    for seed in seeds:
        made = micrographs(condition, seed, count)
        batch = [members(image, pixel, scope) for image, _, pixel in made]
        truths += [truth for _, truth, _ in made]
        combined += consensus(batch)
        for found in batch:
            for name in ESTIMATORS:
                single[name].append(found[name])
            for n in (2, 3):
                single[f"mean of {n}"].append(plain([found[name] for name in ESTIMATORS[:n]]))
    return {name: errors(found, truths) for name, found in (single | {"consensus": combined}).items()}


def plain(several: list[Member]) -> Member:
    """Return the tensor mean of estimates, with the errors that they would have if they were independent."""
    z, a, b = (float(np.mean([getattr(m.defocus, part) for m in several])) for part in ("mean_A", "a_A", "b_A"))
    mean, astigmatism = (
        float(np.linalg.norm([getattr(m, part) for m in several]) / len(several))
        for part in ("mean_error_A", "astigmatism_error_A")
    )
    return Member(Defocus(z, a, b), mean, astigmatism)


def real() -> list[Mapping[str, Any]]:
    """Return the estimates of the real micrographs, and how far the consensus is from their median."""
    files = sorted(REAL.glob("*.mrc"))
    batch = [members(read_image(file)[0], 1.5, Microscope(300.0, 0.001, 0.07)) for file in files]
    rows = []
    for file, found, result in zip(files, batch, consensus(batch), strict=True):
        values = {name: round(m.defocus.mean_A) for name, m in found.items()}
        stated = {f"{name}_error": round(m.mean_error_A, 1) for name, m in found.items()}
        z = result.defocus.mean_A
        rows.append({
            "micrograph": file.stem, **values, **stated, "consensus": round(z), "error": round(result.mean_error_A, 1),
            "from_median": round(abs(z - float(np.median(list(values.values())))), 1),
            "spread": max(values.values()) - min(values.values()),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", nargs="*", choices=CONDITIONS, default=["small", "damped"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--micrographs", type=int, default=12, help="of each seed")
    parser.add_argument("--real", action="store_true", help="the real micrographs of ../shared, too")
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with threadpool_limits(1):
        for condition in arguments.conditions:
            print(condition, flush=True)
            result[condition] = simulated(condition, arguments.seeds, arguments.micrographs)
            for name, figures in result[condition].items():
                print(f"  {name:10}", figures, flush=True)
        if arguments.real:
            result["real"] = real()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
