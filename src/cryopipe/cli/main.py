"""Parse the command line and call what was asked for."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cryopipe import __version__
from cryopipe.errors import CryopipeError
from cryopipe.workflow.plan import Plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``cryopipe`` command and return its exit status."""
    parser = argparse.ArgumentParser(prog="cryopipe", description="From cryo-EM movies to a refined, validated map.")
    parser.add_argument("--version", action="version", version=f"cryopipe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="device, driver, memory and a numeric self-test of every kernel")
    check = commands.add_parser("check", help="validate a configuration and say what the run would do")
    check.add_argument("config", type=Path)
    params = commands.add_parser("params", help="print the complete parameters of all steps, derived values filled in")
    params.add_argument("config", type=Path)
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "doctor":
            from cryopipe.cli.doctor import doctor

            return doctor()
        plan = Plan.of({}, root=Path.cwd(), default=str(arguments.config), keep_listing=False)
        if arguments.command == "check":
            print(_summary(plan))
        else:
            print(json.dumps({step: plan.params(step) for step in plan.steps}, indent=1, ensure_ascii=False))
    except CryopipeError as error:
        print(f"cryopipe: {error}", file=sys.stderr)
        return 1
    return 0


def _summary(plan: Plan) -> str:
    known = plan.facts
    files = [file for batch in plan.batches.values() for file in batch]
    return "\n".join(
        [
            f"run {plan.config.run.name}: {len(files)} {'micrographs' if plan.source == 'micrographs' else 'movies'} "
            f"({plan.source}) in {len(plan.batches)} batches",
            f"  {known.pixel_size_A:g} Å/px, {known.voltage_kV:g} kV, Cs {known.cs_mm:g} mm, "
            f"particle {known.particle_diameter_A:g} Å, symmetry {known.symmetry}",
            f"  results: {plan.results}",
        ]
    )
