"""A picker that only the tests know: what the report shows of it, it shows of every new branch."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from cryopipe import steps as registry
from cryopipe.config.declaration.declare import Reference
from cryopipe.report import counts
from cryopipe.report.sections import methods


@pytest.fixture
def toy_picker(monkeypatch: pytest.MonkeyPatch) -> str:
    """Declare a second picker, ``pick_toy``, and return its name."""
    known = dict(registry.steps())
    places = list(known)
    toy = replace(known["pick_log"], name="pick_toy", references=(Reference("Toy 2026, Picking toys", "10.1/toy"),))
    order = [*places[: places.index("pick_log") + 1], "pick_toy", *places[places.index("pick_log") + 1 :]]
    extended = MappingProxyType({name: toy if name == "pick_toy" else known[name] for name in order})
    monkeypatch.setattr(registry, "steps", lambda: extended)
    for module in (counts, methods):
        monkeypatch.setattr(module, "all_steps", lambda: extended)
    return "pick_toy"
