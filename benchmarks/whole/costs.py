"""Compare predicted and measured costs: ``python -m benchmarks.whole.costs results/demo --config config/config.yaml``.

Memory is that of the largest job of a step. CPU seconds and disk are sums over its jobs. The measured values come from the
provenance of the jobs. The prediction uses the present formulas.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cryopipe.config.declaration.costs import Prediction
from cryopipe.workflow.costs.measured import used
from cryopipe.workflow.costs.prediction import Costs
from cryopipe.workflow.plan import Plan

ROOT = Path(__file__).parents[2]


def table(predicted: dict[str, Prediction], measured: dict[str, Prediction]) -> list[str]:
    """Return one row for each step that was measured."""
    rows = [
        "| step (jobs) | MB, predicted / measured | | CPU s, predicted / measured | | disk MB, predicted / measured | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, was in measured.items():
        said = predicted.get(name)
        if said is not None:
            pairs = [
                f"{mine:.{digits}f} / {theirs:.{digits}f} | {mine / theirs:.2f}" if theirs > 0 else f"{mine:.0f} / 0 |"
                for mine, theirs, digits in (
                    (said.memory_MB, was.memory_MB, 0),
                    (said.cpu_seconds, was.cpu_seconds, 1),
                    (said.disk_MB, was.disk_MB, 1),
                )
            ]
            rows.append(f"| {name} ({was.jobs}) | {' | '.join(pairs)} |")
    return rows


def main() -> None:
    """Print the table of a finished run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the run's results")
    parser.add_argument("--config", type=Path, required=True, help="configuration of the run")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    plan = Plan.of({}, root=ROOT, default=str(arguments.config.resolve()), results=arguments.folder, extend=False)
    print("\n".join(table(Costs(plan).predict(arguments.cores), used(arguments.folder))))


if __name__ == "__main__":
    main()
