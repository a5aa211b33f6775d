"""Particles that are not hollow balls, from movies to map by the facts alone: what is lost where, and how good the map is.

    python -m benchmarks.whole.specimens rod irregular d2 --folder DIR      # at the demonstration's size, about half an hour each
    python -m benchmarks.whole.specimens rod --folder DIR --until pick_log  # only to a step; the report has what is known then
    python -m benchmarks.whole.specimens rod --folder DIR --set picking.pickers='[pick_shell]'

The specimens are those of config/test; here their movies are larger, some drift or have a bad CTF, and everything but the facts
is the default. A run that is there already goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.shared.losses import lines, losses
from cryopipe.workflow.costs.measured import used
from cryopipe.workflow.plan import Plan

ROOT = Path(__file__).parents[2]
#: What makes a specimen's movies those of a demonstration: 12 of 1024² x 16 frames, 1.6 Å/px, 40 e/Å², 0.5 to 2 µm under focus.
DEMO: dict[str, Any] = {
    "preset": "demo", "pixel_size_A": 1.6, "movies": 12, "special_movies": True, "defocus_range_A": [5000.0, 20000.0],
}  # fmt: skip


def configuration(name: str, size: str, changes: list[str]) -> dict[str, Any]:
    """Return a specimen's configuration; ``changes`` are of the form ``stage.step.key=YAML``."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "config" / "test" / f"{name}.yaml").read_text())
    if size == "demo":
        tree = {key: tree[key] for key in ("run", "simulation", "dataset") if key in tree}
        tree["simulation"]["simulate_movies"] |= DEMO
    for change in changes:
        key, value = change.split("=", 1)
        *path, last = key.split(".")
        block = tree
        for part in path:
            block = block.setdefault(part, {})
        block[last] = yaml.safe_load(value)
    return tree


def report(name: str, plan: Plan) -> list[str]:
    """Return what is known of a run: losses, errors, resolutions, CPU seconds."""
    text = [f"\n### {name}\n", *lines(losses(plan)), ""]
    summary = plan.results / plan.ports["truth_summary"]
    if summary.is_file():
        found = json.loads(summary.read_text())["truth"]
        for key in (
            "fsc05_A",
            "fsc05_true_poses_A",
            "particles",
            "precision",
            "pose_error_deg",
            "centre_error_A",
            "defocus_error_A",
        ):
            text.append(f"- {key}: {found.get(key)}")
    steps = used(plan.results)
    text.append("- CPU s: " + ", ".join(f"{step} {was.cpu_seconds:.0f}" for step, was in steps.items()))
    text.append(f"- CPU s in all: {sum(was.cpu_seconds for was in steps.values()):.0f}")
    return text


def main() -> None:
    """Run the specimens one after the other, and print their reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specimens", nargs="+", choices=["irregular", "d2", "rod", "tiny"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", choices=["tiny", "demo"], default="demo")
    parser.add_argument("--until", help="last step to run; none: run nothing, and report on what is there")
    parser.add_argument("--set", action="append", default=[], help="stage.step.key=value, over what the specimen has")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    for name in options.specimens:
        folder = options.folder.resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(configuration(name, options.size, options.set), sort_keys=False))
        if options.until != "none":
            until = ["--until", options.until] if options.until else []
            subprocess.run(
                [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(file),
                 "--directory", str(folder), "--cores", str(options.cores), "--quiet", "all", *until],
                check=False,
            )  # fmt: skip
        plan = Plan.of({}, root=ROOT, default=str(file), results=folder, extend=False)
        print("\n".join(report(name, plan)), flush=True)


if __name__ == "__main__":
    main()
