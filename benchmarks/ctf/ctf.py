"""Time, memory and errors of the three CTF estimators at real size on one core, on micrographs whose CTF is known.

``python -m benchmarks.ctf.ctf --folder DIR [--width 3838 --height 3710] [--pixel 0.85378] [--micrographs 4] [--real]``

A micrograph is a white object under a CTF (defocus 0.8-2.4 µm, astigmatism to 600 Å, B 50-200 Å²) and white noise.
Every estimator runs with its defaults in a process of its own, bound to one core; wall and CPU seconds are the median
over the micrographs, without a first one that compiles. Memory is the peak of the whole process (the libraries take
200 MB of it, the micrograph 57 MB). ``tilt`` and ``phase`` are options of the estimators. xmipp starts without a previous
CTF (in a run it starts from ctffind's CTF and is faster). The goal is 6 s per micrograph.

The work to be done, for n = 3838 x 3710 = 14.2 Mpx in float32 (57 MB):

- ctffind: one transform of 3840² (2.5 n log2 n = 0.85 GFLOP; 57 MB read, 118 MB of amplitudes kept), its inverse for
  the lags (0.85 GFLOP), then a fit of 5 starts on 1e5 pixels x 40 flop x some 30 steps (0.6 GFLOP).
- gctf: one transform and a smaller inverse to resample (1.2 GFLOP), 64 windows of 512² (64 x 12 MFLOP = 0.75 GFLOP,
  67 MB read four times by the overlap), 470 defoci x 150 rings and simplex steps of 6e3 cells or 9e4 pixels
  (250 x 9e4 x 30 = 0.7 GFLOP).
- xmipp: two downsampled copies at most, each 300 windows of 512² at 70 % overlap (3.6 GFLOP, 300 MB through the
  caches), a separable least-squares fit on 4e3 cells.

So 2 to 5 GFLOP and less than 1 GB of traffic: half a second to two on a core that makes 2-5 GFLOP/s in NumPy.

``--real`` adds the mean defoci on the real micrographs of ../shared/realdata. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from threadpoolctl import threadpool_limits

from cryopipe.config.ctf import EstimateCtfCtffind, EstimateCtfGctf, EstimateCtfXmipp
from cryopipe.ctf import estimate_ctf_ctffind, estimate_ctf_gctf
from cryopipe.ctf.defocus import Defocus, Microscope, from_uv, phase
from cryopipe.ctf.gctf.validation import validation_score
from cryopipe.ctf.xmipp import estimate as spectrum_estimate
from cryopipe.io.mrc import read_image

SCOPE = Microscope(300.0, 2.7, 0.1)
REAL = Path(__file__).resolve().parents[3] / "shared/realdata"
CASES = ("ctffind", "ctffind phase", "ctffind tilt", "gctf", "gctf phase", "xmipp")
BAR_S = 6.0


def truths(count: int) -> list[tuple[Defocus, float]]:
    """Return the CTFs and B-factors (Å²) of the micrographs."""
    rng = np.random.default_rng(1)
    smaller, astigmatism, angle = rng.uniform(8e3, 24e3, count), rng.uniform(0, 600, count), rng.uniform(-90, 90, count)
    b_factors = rng.uniform(50, 200, count)
    return [(from_uv(v + a, v, t), float(b)) for v, a, t, b in zip(smaller, astigmatism, angle, b_factors, strict=True)]


def micrograph(truth: Defocus, b_factor: float, shape: tuple[int, int], pixel: float, seed: int) -> np.ndarray:
    """Return a white object under a CTF with white noise of 2.25 times its power per pixel of 1.4 Å."""
    rng = np.random.default_rng(seed)
    kx = np.fft.rfftfreq(shape[1], pixel)[None, :].astype(np.float32)
    ky = np.fft.fftfreq(shape[0], pixel)[:, None].astype(np.float32)
    k2 = kx**2 + ky**2
    k2[0, 0] = 1.0
    local = truth.mean_A + (truth.a_A * (kx**2 - ky**2) + truth.b_A * 2 * kx * ky) / k2
    k2[0, 0] = 0.0
    transfer = (np.sin(phase(k2, local, SCOPE)) * np.exp(-b_factor / 4 * k2)).astype(np.float32)
    spectrum = scipy.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    signal = scipy.fft.irfft2(spectrum * transfer, s=shape)
    image: np.ndarray = 100 + 10 * (signal + 1.5 * rng.standard_normal(shape, dtype=np.float32))
    return image.astype(np.float32)


def estimate(case: str, image: np.ndarray, pixel: float, scope: Microscope) -> tuple[Defocus, float, dict[str, float]]:
    """Return defocus, resolution of the fit (Å) and further results of an estimator."""
    name, _, option = case.partition(" ")
    if name == "ctffind":
        flags = {"find_phase_shift": option == "phase", "find_tilt": option == "tilt"}
        found = estimate_ctf_ctffind.ctf_by_amplitudes(image, pixel, scope, EstimateCtfCtffind(**flags))
        more = {} if found.tilt is None else {"tilt": found.tilt.tilt_deg}
        return found.fit.defocus, found.resolution_A, more
    if name == "gctf":
        params = EstimateCtfGctf(find_phase_shift=option == "phase")
        fit, spectrum = estimate_ctf_gctf.ctf_by_log_amplitudes(image, pixel, scope, params)
        band = {"coarse_A": params.min_resolution_A, "fine_A": params.max_resolution_A}
        validation = validation_score(spectrum, fit, scope, b_factor_A2=params.b_factor_A2, **band)
        return fit.defocus, fit.resolution_A, {"validation": validation}
    result = spectrum_estimate.ctf_by_power_spectrum(image, pixel, scope, EstimateCtfXmipp())
    return result.fit.defocus, result.resolution_A, {}


def measure(case: str, files: list[Path], pixel: float, send: Any) -> None:
    """Run one estimator over all micrographs on one core, and send a list of figures."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    rows = []
    with threadpool_limits(1):
        for file in [files[0], *files]:
            image = np.load(file)
            wall, cpu = time.perf_counter(), time.process_time()
            d, resolution, more = estimate(case, image, pixel, SCOPE)
            seconds = (time.perf_counter() - wall, time.process_time() - cpu)
            rows.append((seconds, (d.mean_A, d.a_A, d.b_A), resolution, more))
    # ru_maxrss would be that of the parent if it was larger
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    send.send((rows[1:], int(status["VmHWM"].split()[0]) / 1024))


def summary(case: str, files: list[Path], pixel: float, known: list[Defocus]) -> dict[str, Any]:
    """Measure one estimator in a child and return its row of the table."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=measure, args=(case, files, pixel, send))
    child.start()
    send.close()
    rows, peak = receive.recv()
    child.join()
    found = np.array([r[1] for r in rows])
    true = np.array([(d.mean_A, d.a_A, d.b_A) for d in known])
    mean, tensor = np.abs(found - true)[:, 0], np.hypot(*(found - true)[:, 1:].T)
    result = {
        "case": case,
        "wall_s": round(float(np.median([r[0][0] for r in rows])), 2),
        "cpu_s": round(float(np.median([r[0][1] for r in rows])), 2),
        "peak_MB": round(peak),
        "defocus_error_A": round(float(np.median(mean)), 1),
        "worst_defocus_error_A": round(float(mean.max()), 1),
        "astigmatism_error_A": round(float(np.median(tensor)), 1),
        "resolution_A": round(float(np.median([r[2] for r in rows])), 2),
    }
    extra = {k: round(float(np.median([r[3][k] for r in rows])), 2) for k in rows[0][3]}
    return result | extra | {"within_bar": result["cpu_s"] <= BAR_S}


def real_micrographs() -> list[dict[str, Any]]:
    """Return the mean defoci of the three estimators on the real micrographs, Å."""
    files = [(REAL / "micrographs/fei-extended.mrc", 0.85378, SCOPE)]
    files += [(f, 1.5, Microscope(300.0, 0.001, 0.07)) for f in sorted((REAL / "empiar-10146").glob("*.mrc"))]
    rows = []
    with threadpool_limits(1):
        for file, pixel, scope in files:
            image, _ = read_image(file)
            found = {case: estimate(case, image, pixel, scope) for case in ("ctffind", "gctf", "xmipp")}
            means = {case: round(f[0].mean_A) for case, f in found.items()}
            spread = max(means.values()) - min(means.values())
            validation = round(found["gctf"][2]["validation"], 2)
            rows.append({"micrograph": file.stem, **means, "spread_A": spread, "validation": validation})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=3838)
    parser.add_argument("--height", type=int, default=3710)
    parser.add_argument("--pixel", type=float, default=0.85378, help="Å")
    parser.add_argument("--micrographs", type=int, default=4)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--real", action="store_true", help="the real micrographs of ../shared, too")
    parser.add_argument("--folder", type=Path, required=True, help="for the simulated micrographs")
    arguments = parser.parse_args()
    shape, known, files = (arguments.height, arguments.width), truths(arguments.micrographs), []
    for seed, (truth, b_factor) in enumerate(known):
        files.append(arguments.folder / f"micrograph_{shape[1]}x{shape[0]}_{arguments.pixel}_{seed}.npy")
        np.save(files[-1], micrograph(truth, b_factor, shape, arguments.pixel, seed))
    table = []
    for case in arguments.cases:
        table.append(summary(case, files, arguments.pixel, [t for t, _ in known]))
        print(table[-1], flush=True)
    result: dict[str, Any] = {"shape": shape, "pixel_A": arguments.pixel, "estimators": table}
    if arguments.real:
        result["real"] = real_micrographs()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
