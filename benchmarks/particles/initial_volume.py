"""Seeds of the initial volume against the truth: which are right, what evidence and agreement say of them, and their time.

    python -m benchmarks.particles.initial_volume ferritin|irregular|d2|rod [--particles 500] [--noise 1.0] [--seeds 3]

Particles are projections of the specimen's atoms (config/test) at 3 Å/px with CTF, origins that are known to 1.5 Å, and white
noise: 1 is that of the demonstration, in which ferritin has a signal-to-noise ratio of 0.022 at 1 Å/px in a box of 200 px. Every
specimen has the parameters that follow from its facts. All seeds run, and the verdict that the step would have
reached is printed after each. Correlations are those of `cryopipe.initial_volume.agreement`: without the radial profile, in the
best frame and hand.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.shared.measured import Stopwatch
from benchmarks.shared.particle_sets import write_particles
from cryopipe.config.derive import resolve
from cryopipe.config.initial_volume import InitialRelionSgd
from cryopipe.config.model import Config
from cryopipe.context import Context
from cryopipe.imaging.geometry import random_rotations
from cryopipe.imaging.optics import CtfParameters
from cryopipe.initial_volume import initial_relion_sgd as step
from cryopipe.initial_volume.agreement import agreement
from cryopipe.initial_volume.contest import standing
from cryopipe.initial_volume.descent import Setting
from cryopipe.initial_volume.evidence import image_power, scores
from cryopipe.io.star import read_table, write_table
from cryopipe.projection.particle_keys import canonical_order, particle_keys
from cryopipe.projection.working_box import resize_map
from cryopipe.simulation.atoms import AtomicModel, apoferritin, read_model
from cryopipe.simulation.particle_images import BlobModel, density, project

ROOT = Path(__file__).parents[2]
PIXEL_A = 3.0
#: beyond the atoms' own: motion and radiation damage
EXTRA_B_A2 = 40.0
#: of the demonstration's ferritin, in a box of this side and at this pixel size
DEMO_SNR, DEMO_BOX = 0.022, 200


def specimen(name: str) -> tuple[AtomicModel, dict[str, Any]]:
    """Return the atoms of a specimen and its facts."""
    if name == "ferritin":
        return apoferritin(), {"symmetry": "O", "particle_diameter_A": 125.0, "cavity_diameter_A": 75.0}
    told = yaml.safe_load((ROOT / "config" / "test" / f"{name}.yaml").read_text())["simulation"]["simulate_movies"]
    model = read_model(ROOT / told["model"], assembly=None, operators=told["operators"], group=told.get("expand", "C1"))
    return model, {"symmetry": told["symmetry"], "particle_diameter_A": float(told["particle_diameter_A"])}


def blobs(model: AtomicModel) -> BlobModel:
    """Return the atoms as Gaussians."""
    electrons = {"C": 6.0, "N": 7.0, "O": 8.0, "S": 16.0}
    weights = np.array([electrons.get(str(e), 8.0) for e in model.elements]) * model.occupancies
    return BlobModel(model.positions_A, weights, np.sqrt((model.b_factors_A2 + EXTRA_B_A2) / (8 * np.pi**2)))


def signal(model: BlobModel, box: int, pixel_size_A: float) -> float:
    """Return the variance of the images of a dozen views, without noise and CTF."""
    views = project(model, random_rotations(np.random.default_rng(1), 12), box=box, pixel_size_A=pixel_size_A)
    return float(views.var(axis=(1, 2)).mean())


def simulate(folder: Path, model: BlobModel, *, count: int, box: int, noise: float) -> None:
    """Write particles.mrcs and particles.star, with origins that an earlier alignment found to 1.5 Å."""
    rng = np.random.default_rng(0)
    # a pixel of p Å holds the noise of one of 1 Å and p times its signal
    level = DEMO_SNR / signal(blobs(apoferritin()), DEMO_BOX, 1.0)
    snr = level * PIXEL_A**2 * signal(model, box, PIXEL_A) / noise**2
    rotations, shifts_A = random_rotations(rng, count), rng.normal(0, 2.5, (count, 2))
    defocus = np.repeat(rng.uniform(8000, 18000, -(-count // 30)), 30)[:count]
    optics = CtfParameters(defocus, defocus - 200, np.full(count, 30.0))

    def views(part: slice) -> np.ndarray:
        return project(model, rotations[part], box=box, pixel_size_A=PIXEL_A, shifts_px=shifts_A[part] / PIXEL_A)

    write_particles(folder, views, optics, optics, pixel_size_A=PIXEL_A, snr=snr, rng=rng)
    table = read_table(folder / "particles.star", "particles")
    known = shifts_A + rng.normal(0, 1.5, (count, 2))
    rows = table.rows.assign(rlnOriginXAngst=known[:, 0], rlnOriginYAngst=known[:, 1])
    write_table(folder / "particles.star", table.with_rows(rows))
    print(f"signal-to-noise ratio {snr:.3f} at {PIXEL_A} Å/px in a box of {box} px")


def parameters(facts: dict[str, Any]) -> InitialRelionSgd:
    """Return what follows from the facts."""
    dataset = {"movies": "*.tif", "pixel_size_A": 1.0, "voltage_kV": 300, "cs_mm": 2.7, **facts}
    found = resolve(Config.model_validate({"dataset": dataset}))["initial_relion_sgd"]
    assert isinstance(found, InitialRelionSgd)
    return found


def alike(first: np.ndarray, second: np.ndarray, setting: Setting, resolution_A: float) -> float:
    """Return the agreement of two maps of the working box."""
    settings = {"pixel_size_A": setting.pixel_size_A, "resolution_A": resolution_A, "symmetry": setting.symmetry}
    return agreement(first, second, **settings)


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specimen", choices=["ferritin", "irregular", "d2", "rod"])
    parser.add_argument("--particles", type=int, default=500)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    model, facts = specimen(options.specimen)
    box = 2 * round(0.5 * 1.55 * facts["particle_diameter_A"] / PIXEL_A)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(folder, blobs(model), count=options.particles, box=box, noise=options.noise)
        params = parameters(facts)
        table = read_table(folder / "particles.star", "particles")
        table = table.with_rows(table.rows.iloc[canonical_order(table.rows)])
        context = Context("initial_relion_sgd", folder, threads=1, log=logging.getLogger("benchmark"))
        store = step.open_particles(table, params, context)
        rows = step.split_particles(particle_keys(table.rows), held_out=params.held_out)
        training, held_out = (store.subset(part) for part in rows)
        setting, resolution_A = Setting.of_store(store, params, threads=1), store.side_A / store.radius
        truth = resize_map(density(blobs(model), box=box, pixel_size_A=PIXEL_A), setting.box)
        sigma2 = image_power(training)
        print("| seed | evidence | correlation with the truth | with the best so far | verdict | CPU s |")
        print("|---|---|---|---|---|---|")
        maps: list[np.ndarray] = []
        evidence: list[float] = []
        for seed in range(1, options.seeds + 1):
            with Stopwatch() as watch:
                run = step.run_seed(training, setting, context, seed=seed, sigma2=sigma2, fingerprint="benchmark")
                evidence.append(float(scores(held_out, run, setting).mean()))
            maps.append(run.volume)
            best = int(np.argmax(evidence))
            with_best = [
                np.nan if i == best else alike(maps[best], m, setting, resolution_A) for i, m in enumerate(maps)
            ]
            verdict = standing(np.array(evidence), np.array(with_best)).verdict
            right = alike(run.volume, truth, setting, resolution_A)
            agrees = " ".join(f"{value:.2f}" for value in with_best)
            print(
                f"| {seed} | {evidence[-1]:.2f} | {right:.2f} | {agrees} | {verdict} | {watch.cpu_seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
