"""Parse the command line and run the command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cryopipe import __version__
from cryopipe.cli.check import check_json, check_text
from cryopipe.errors import CryopipeError
from cryopipe.workflow.plan import Plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``cryopipe`` command and return its exit status."""
    parser = argparse.ArgumentParser(prog="cryopipe", description="From cryo-EM movies to a refined, validated map.")
    parser.add_argument("--version", action="version", version=f"cryopipe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="device, driver, memory and a numeric self-test of every kernel")
    check = commands.add_parser("check", help="validate a configuration and print what the run would do")
    check.add_argument("config", type=Path)
    check.add_argument(
        "--cores",
        type=_positive,
        default=os.cpu_count() or 1,
        help="cores of the machine (default: all cores of this machine)",
    )
    check.add_argument("--json", action="store_true", help="print the prediction as JSON")
    params = commands.add_parser("params", help="print all parameters of all steps, with derived values filled in")
    params.add_argument("config", type=Path)
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "doctor":
            from cryopipe.cli.doctor import doctor

            return doctor()
        plan = Plan.of({}, root=Path.cwd(), default=str(arguments.config), keep_listing=False)
        if arguments.command == "check":
            print(check_json(plan, arguments.cores) if arguments.json else check_text(plan, arguments.cores))
        else:
            print(json.dumps({step: plan.params(step) for step in plan.steps}, indent=1, ensure_ascii=False))
    except CryopipeError as error:
        print(f"cryopipe: {error}", file=sys.stderr)
        return 1
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number
