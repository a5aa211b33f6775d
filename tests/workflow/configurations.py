"""Which configurations of ``config/test`` the tests run, and how far: what counts as run in `tests/layout` rests on this."""

from __future__ import annotations

from pathlib import Path

from cryopipe.config.load import load_config
from cryopipe.steps import step_of
from cryopipe.workflow.plan import Plan

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "test"

#: Configuration to the steps at which its run ends, none: at the report. The tiny run is whole; of the others each is run
#: as far as its own part reaches, because the steps behind it are those of the tiny run, which take 50 s of processor time.
LAST_STEPS: dict[str, tuple[str, ...]] = {
    "tiny": (),
    # another source: to the map and its report, with one CTF estimator and few iterations
    "micrographs": (),
    # movies that are downloaded: to the micrographs that are made of them
    "archive": ("screen_motion",),
    # another judge of the map, beside the truth
    "model": ("postprocess", "validate_truth", "validate_model"),
}

#: Particles without a step that the others lack: ``tests/workflow/test_specimens.py`` runs them: d2 to the truth, irregular to
#: the selection of classes, rod to its particles.
SPECIMENS = ("irregular", "d2", "rod")


def steps_that_run(name: str) -> list[str]:
    """Return the steps of a configuration that tests run (``consensus_ctf/defocus``), in the order of the data flow."""
    names = list(Plan(load_config(FOLDER / f"{name}.yaml"), root=ROOT).ports.names)
    last = LAST_STEPS[name]
    return names[: names.index(last[-1]) + 1] if last else names


def stage_of(step: str) -> str:
    """Return the stage of a step or run."""
    return step_of(step.split("/")[0]).stage
